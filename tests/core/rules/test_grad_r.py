import math

import pytest
import torch
from torch import nn

from snnsl_plugin.core.layer import Layer
from snnsl_plugin.core.rules.grad_r import drift_, effective, grad_r, initial
from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.pruner import DynamicPruner


def test_three_steps_by_hand() -> None:
    # penalty ln 2, sparsity 0.75: mu = ln(2 / 4) / ln 2 = -1. A rate of 1 / ln 2 moves every strength by exactly 1.
    weight = torch.tensor([[1.5, -0.5, 0.25, -3.0]])
    state, seen = initial(weight), []
    assert state["sign"].tolist() == [[1.0, -1.0, 1.0, -1.0]]
    for _ in range(3):
        drift_(weight, state, 1 / math.log(2), penalty=math.log(2), sparsity=0.75)
        state = grad_r([Layer("fc", weight, state)], 0.0)["fc"]
        seen.append((weight * state["sign"]).flatten().tolist())
    # theta: 1.5, .5, .25, 3 falls while above -1, and rises below it
    assert seen[0] == pytest.approx([0.5, -0.5, -0.75, 2.0], abs=1e-6)
    assert seen[1] == pytest.approx([-0.5, -1.5, -1.75, 1.0], abs=1e-6)
    assert seen[2] == pytest.approx([-1.5, -0.5, -0.75, 0.0], abs=1e-6)
    assert effective(torch.tensor([[0.5, 0.5, -0.75, -2.0]]), state).tolist() == [[0.5, 0.0, 0.0, -2.0]]


def test_the_prior_has_that_share_below_zero() -> None:
    for sparsity, penalty in ((0.5, 1.0), (0.95, 0.01), (0.99, 5.0)):
        centre = math.log(2 * (1 - sparsity)) / penalty
        drawn = torch.distributions.Laplace(centre, 1 / penalty)
        assert float(drawn.cdf(torch.tensor(0.0))) == pytest.approx(sparsity, abs=1e-5)


def slow_grad_r(first: list[float], gradients: list[list[float]], lr: float, penalty: float, sparsity: float):
    """Weight by weight with SGD: strengths and effective weights after each step."""
    centre = math.log(2 * (1 - sparsity)) / penalty
    signs = [-1.0 if w < 0 else 1.0 for w in first]
    thetas = [abs(w) for w in first]
    seen = []
    for gradient in gradients:
        thetas = [t - lr * s * g for t, s, g in zip(thetas, signs, gradient, strict=True)]
        thetas = [t - lr * penalty * math.copysign(1.0, t - centre) if t != centre else t for t in thetas]
        seen.append([s * max(t, 0.0) for s, t in zip(signs, thetas, strict=True)])
    return seen


def test_equals_the_slow_oracle_on_tied_inputs_with_sgd() -> None:
    generator = torch.Generator().manual_seed(0)
    first = (torch.randn(40, generator=generator) * 2).round().double() / 4
    gradients = [(torch.randn(40, generator=generator) * 2).round().double() / 2 for _ in range(12)]
    expected = slow_grad_r(first.tolist(), [g.tolist() for g in gradients], 0.1, 0.7, 0.8)
    weight, state = first.clone().view(1, -1), initial(first.view(1, -1))
    for gradient, want in zip(gradients, expected, strict=True):
        weight.sub_(0.1 * gradient.view(1, -1))
        drift_(weight, state, 0.1, penalty=0.7, sparsity=0.8)
        state = grad_r([Layer("fc", weight, state)], 0.0)["fc"]
        assert effective(weight, state).flatten().tolist() == pytest.approx(want, abs=1e-12)
        assert state["mask"].flatten().tolist() == [w != 0 for w in want]


def test_a_dormant_connection_feels_its_gradient() -> None:
    weight = torch.tensor([[-0.5, 2.0]], requires_grad=True)
    state = {"mask": torch.tensor([[False, True]]), "sign": torch.ones(1, 2)}
    (effective(weight, state) * torch.tensor([[3.0, 5.0]])).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[3.0, 5.0]]


def test_in_training_no_sign_ever_flips_and_connections_go_and_come_back() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 3))
    signs = {name: net.get_submodule(name).weight.detach().sign() for name in ("0", "2")}
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    pruner = DynamicPruner(net, optimizer, "grad_r", penalty=0.3, sparsity=0.9, total_steps=120, until="120it")
    x, target = torch.randn(64, 20), torch.randint(3, (64,))
    densities = []
    for _ in range(120):
        nn.functional.cross_entropy(net(x), target).backward()
        optimizer.step()
        pruner.step()
        optimizer.zero_grad()
        densities.append(pruner.density)
        for name, sign in signs.items():
            weight = net.get_submodule(name).weight.detach()
            assert bool(((weight == 0) | (weight.sign() == sign)).all())
    assert densities[-1] < 0.6
    assert pruner.born > 0
    masks = pruner.masks
    pruner.finish()
    assert torch.equal(net[0].weight != 0, masks["0.weight"])


@pytest.mark.parametrize("options", [{"penalty": 0.0}, {"penalty": float("nan")}, {"sparsity": 0.4}, {"sparsity": 1.0}])
def test_a_prior_that_is_none_is_refused_before_training(options) -> None:
    net = nn.Linear(4, 2)
    with pytest.raises(BadOption, match="prior"):
        DynamicPruner(net, torch.optim.SGD(net.parameters(), lr=0.1), "grad_r", total_steps=10, **options)
