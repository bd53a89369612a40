import math
from functools import partial

import pytest
import torch
from networks import batch, conv_net
from torch import nn

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.core.rules.upr import effective, evaluated, initial, learner, penalty, upr
from snnsl_plugin.errors import BadOption, MissingStatistic
from snnsl_plugin.training.losses import cross_entropy
from snnsl_plugin.training.pruner import DynamicPruner

rule = partial(upr, beta_first=5.0, beta_last=20.0)


def test_two_steps_and_the_end_by_hand() -> None:
    # Two weights 1 and -2 that both have gradient 1; each does 1 operation a spike, at a price of 1. The rate is 0.1.
    weight = torch.tensor([[1.0, -2.0]])
    state = initial(weight, beta_first=5.0)
    assert effective(weight, state).tolist() == [[0.5, -1.0]]
    assert evaluated(weight, state).tolist() == [[0.0, 0.0]]  # 1[0 > 0]
    optimizer = learner([state["score"].requires_grad_()], score_lr=0.1)
    layer = Layer("fc", weight, state, drives=torch.tensor(1.0))

    (effective(weight, state).sum() + penalty([layer], 0.0, price=1.0)).backward()
    # (w g + price c) beta s (1 - s) = (1 + 1) 5 / 4 and (-2 + 1) 5 / 4
    assert state["score"].grad.tolist() == [[2.5, -1.25]]
    optimizer.step()  # Adam's first step is its rate
    assert state["score"].tolist() == [pytest.approx([-0.1, 0.1])]
    state["beta"].copy_(rule([layer], 0.5)["fc"]["beta"])
    assert float(state["beta"]) == pytest.approx(10.0)  # half way from 5 to 20, in logarithms
    s = 1 / (1 + math.e)
    assert effective(weight, state).tolist() == [pytest.approx([s, -2 * (1 - s)])]
    assert evaluated(weight, state).tolist() == [[0.0, -2.0]]

    optimizer.zero_grad()
    (effective(weight, state).sum() + penalty([layer], 0.5, price=1.0)).backward()
    one, two = 20 * s * (1 - s), -10 * s * (1 - s)
    assert state["score"].grad.tolist() == [pytest.approx([one, two])]
    optimizer.step()
    means = ((0.9 * 0.25 + 0.1 * one) / 0.19, (-0.9 * 0.125 + 0.1 * two) / 0.19)
    squares = ((0.999 * 0.00625 + 0.001 * one**2) / 0.001999, (0.999 * 0.0015625 + 0.001 * two**2) / 0.001999)
    moved = [-0.1 - 0.1 * means[0] / math.sqrt(squares[0]), 0.1 - 0.1 * means[1] / math.sqrt(squares[1])]
    assert state["score"].tolist() == [pytest.approx(moved, abs=1e-6)]

    last = rule([layer], 1.0)["fc"]
    assert last["mask"].tolist() == [[False, True]]
    assert effective(weight, last).tolist() == evaluated(weight, last).tolist() == [[0.0, -2.0]]
    assert state["mask"].all()  # until then no connection is gone


def test_the_penalty_and_its_gradient_by_hand() -> None:
    # A convolution whose weights are used at 4 sites, and a layer of two neurons that drive 3 and 5 synapses.
    conv, spike = initial(torch.ones(1, 1, 1, 2)), initial(torch.ones(2))
    conv["score"].copy_(torch.tensor([0.2, -0.2]))
    spike["score"].copy_(torch.tensor([0.0, 0.4]))
    for state in (conv, spike):
        state["score"].requires_grad_()
    layers = [
        Layer("conv", torch.ones(1, 1, 1, 2), conv, drives=torch.tensor(4.0)),
        Layer("spike", torch.ones(2), spike, drives=torch.tensor([3.0, 5.0])),
    ]
    owed = penalty(layers, 0.0, price=0.01)
    s1, s2 = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))  # beta is 5
    assert owed.item() == pytest.approx(0.01 * (4 * s1 + 4 * (1 - s1) + 3 * 0.5 + 5 * s2))
    owed.backward()
    slope = 4 * 0.01 * 5 * s1 * (1 - s1)  # c lambda beta sigmoid'
    assert conv["score"].grad.flatten().tolist() == pytest.approx([slope, slope])
    expected = [3 * 0.01 * 5 * 0.25, 5 * 0.01 * 5 * s2 * (1 - s2)]
    assert spike["score"].grad.tolist() == pytest.approx(expected)


def slow_upr(weights, gradients, *, price, beta, score_lr, lr):
    """Weight by weight, with SGD for weights and Adam for scores: what is computed with at each step, and last."""
    scores, first, second = ([0.0] * len(weights) for _ in range(3))
    seen = []
    for step, gradient in enumerate(gradients, start=1):
        sharp = beta[0] * (beta[1] / beta[0]) ** ((step - 1) / len(gradients))
        soft = [1 / (1 + math.exp(-sharp * m)) for m in scores]
        seen.append([w * s for w, s in zip(weights, soft, strict=True)])
        for i, (g, s) in enumerate(zip(gradient, soft, strict=True)):
            slope = (g * weights[i] + price) * sharp * s * (1 - s)
            weights[i] -= lr * g * s
            first[i] = 0.9 * first[i] + 0.1 * slope
            second[i] = 0.999 * second[i] + 0.001 * slope**2
            mean, square = first[i] / (1 - 0.9**step), second[i] / (1 - 0.999**step)
            scores[i] -= score_lr * mean / (math.sqrt(square) + 1e-8)
    return seen, [w if m > 0 else 0.0 for w, m in zip(weights, scores, strict=True)], [m > 0 for m in scores]


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_slow_oracle_on_tied_inputs(seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    steps, size = 12, 30
    weights = (torch.randn(size, generator=generator) * 2).round().double() / 4
    gradients = [(torch.randn(size, generator=generator) * 2).round().double() / 2 for _ in range(steps)]
    options = {"price": 0.05, "score_lr": 0.02}
    when = {"total_steps": 20, "until": f"{steps}it", "neurons": False, "paths": False}
    expected, last, alive = slow_upr(
        weights.tolist(), [g.tolist() for g in gradients], **options, beta=(5.0, 1000.0), lr=0.1
    )
    net = nn.Linear(size, 1, bias=False).double()
    net.weight.data.copy_(weights)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    pruner = DynamicPruner(net, optimizer, "upr", **when, **options)
    for gradient, want in zip(gradients, expected, strict=True):
        assert net.weight.flatten().tolist() == pytest.approx(want, abs=1e-9)
        net(gradient.view(1, -1)).sum().backward()
        optimizer.step()
        pruner.step()
        optimizer.zero_grad()
    assert pruner.masks["weight"].flatten().tolist() == [there and w != 0 for there, w in zip(alive, last, strict=True)]
    assert 0 < sum(alive) < size
    assert net.weight.flatten().tolist() == pytest.approx(last, abs=1e-9)
    pruner.finish()
    assert net.weight.flatten().tolist() == pytest.approx(last, abs=1e-9)


def test_the_gradient_of_a_neurons_score_is_that_of_finite_differences() -> None:
    model = conv_net().double()
    pruner = DynamicPruner(model, torch.optim.SGD(model.parameters(), lr=0.1), "upr", total_steps=10)
    x, y = batch()
    model(x.double())
    # Of the last neurons alone: what they do to the output is smooth.
    score = dict(model[5].named_buffers())["neuron_mask.score"]
    with torch.no_grad():
        score.add_(torch.linspace(-0.2, 0.2, score.numel(), dtype=torch.float64).view_as(score))

    def loss() -> torch.Tensor:
        reset_(model)
        return cross_entropy(model(x.double()), y)

    loss().backward()
    assert score.grad.abs().max() > 1e-4
    for place in ((0, 0, 0), (3, 1, 0), (7, 1, 1)):
        sides = []
        for side in (1e-6, -1e-6):
            with torch.no_grad():
                score[place] += side
                sides.append(loss().item())
                score[place] -= side
        assert score.grad[place].item() == pytest.approx((sides[0] - sides[1]) / 2e-6, abs=1e-8)
    pruner.finish()


def test_a_dearer_operation_leaves_fewer_connections_and_neurons() -> None:
    left = []
    for price in (0.0, 1e-7, 1e-6):
        model = conv_net()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        pruner = DynamicPruner(model, optimizer, "upr", price=price, score_lr=0.01, total_steps=60, exclude=["7"])
        for step in range(60):
            x, y = batch(step)
            reset_(model)
            cross_entropy(model(x), y).backward()
            optimizer.step()
            pruner.step()
            optimizer.zero_grad()
        left.append((pruner.density, sum(int(mask.sum()) for mask in pruner.neuron_masks.values())))
        before = {name: mask.clone() for name, mask in pruner.masks.items()}
        pruner.finish()
        assert all(torch.equal(before[f"{name}.weight"], model[int(name)].weight != 0) for name in ("0", "4"))
    assert left[0][0] > left[1][0] > left[2][0]
    assert left[0][1] > left[1][1] > left[2][1]


@pytest.mark.parametrize("options", [
    {"price": -1.0}, {"price": float("nan")}, {"beta_first": 0.0}, {"beta_first": 9.0, "beta_last": 5.0},
    {"beta_last": float("inf")}, {"score_lr": 0.0},
])  # fmt: skip
def test_what_nobody_can_search_with_is_refused_before_training(options) -> None:
    model = conv_net()
    with pytest.raises(BadOption, match=next(iter(options))):
        DynamicPruner(model, torch.optim.SGD(model.parameters(), lr=0.1), "upr", total_steps=10, **options)


def test_a_penalty_needs_to_know_what_a_spike_drives() -> None:
    with pytest.raises(MissingStatistic, match="call the whole model"):
        penalty([Layer("fc", torch.ones(1, 1), initial(torch.ones(1, 1)))], 0.0, price=1.0)
