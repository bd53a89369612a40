import pytest
import torch
from torch import nn

from snnsl_plugin.core.distributions.global_ import global_
from snnsl_plugin.core.distributions.uniform import uniform
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.core.rules.dpf import dpf, effective
from snnsl_plugin.core.schedules.constant import constant
from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.pruner import DynamicPruner


def layer(name: str, weight: torch.Tensor, mask: torch.Tensor | None = None) -> Layer:
    return Layer(name, weight, {"mask": torch.ones_like(weight, dtype=torch.bool) if mask is None else mask})


def test_three_updates_by_hand() -> None:
    # SGD with rate 1 and gradient (0.5, -0.25, 1, -1) at the pruned weights moves all four, kept or not.
    weight, gradient = torch.tensor([[1.0, -0.75, 0.5, 0.25]]), torch.tensor([[0.5, -0.25, 1.0, -1.0]])
    mask, seen = torch.ones(1, 4, dtype=torch.bool), []
    for _ in range(3):
        mask = dpf([layer("fc", weight, mask)], 0.5, density=constant(value=0.5), distribution=uniform)["fc"]["mask"]
        seen.append(mask.tolist())
        weight = weight - gradient
    # (1, -.75, .5, .25); (.5, -.5, -.5, 1.25), where a dead one comes back and ties go first; (0, -.25, -1.5, 2.25)
    assert seen == [[[True, True, False, False]], [[True, False, False, True]], [[False, False, True, True]]]


def test_the_gradient_at_the_pruned_weights_moves_the_dense_ones() -> None:
    weight = torch.tensor([[2.0, 3.0]], requires_grad=True)
    mask = torch.tensor([[True, False]])
    out = effective(weight, {"mask": mask})
    assert out.tolist() == [[2.0, 0.0]]
    (out.square() + out * 5.0).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[9.0, 5.0]]  # 2 m w + 5, everywhere


def slow_dpf(weights: list[list[float]], n_keep: int) -> list[list[bool]]:
    """One ranking of all dense weights over all layers, ties to the first."""
    ranked = sorted(
        ((-abs(w), i, j) for i, row in enumerate(weights) for j, w in enumerate(row)), key=lambda each: each
    )
    kept = {(i, j) for _, i, j in ranked[:n_keep]}
    return [[(i, j) in kept for j in range(len(row))] for i, row in enumerate(weights)]


def test_global_ranks_the_pruned_ones_as_well_as_an_oracle_does_on_tied_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        weights = [(torch.randn(1, n, generator=generator) * 3).round() / 2 for n in (7, 11, 5)]
        masks = [torch.rand(1, w.numel(), generator=generator) < 0.3 for w in weights]
        layers = [layer(str(i), w, m) for i, (w, m) in enumerate(zip(weights, masks, strict=True))]
        states = dpf(layers, 1.0, density=constant(value=9 / 23), distribution=global_)
        expected = slow_dpf([w.flatten().tolist() for w in weights], 9)
        assert [states[str(i)]["mask"].flatten().tolist() for i in range(3)] == expected


def test_in_training_dead_weights_keep_learning_and_come_back() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 8), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    pruner = DynamicPruner(
        net, optimizer, "dpf", density=constant(value=0.25), every="2it", until="40it", total_steps=40
    )
    x, target = torch.randn(32, 12), torch.randint(3, (32,))
    dense = torch.nn.utils.parametrize
    dead_moved, revived = False, 0
    for _ in range(40):
        before, mask = net[0].parametrizations.weight.original.detach().clone(), pruner.masks["0.weight"].clone()
        nn.functional.cross_entropy(net(x), target).backward()
        optimizer.step()
        pruner.step()
        optimizer.zero_grad()
        assert dense.is_parametrized(net[0], "weight")
        moved = net[0].parametrizations.weight.original.detach() != before
        dead_moved |= bool((moved & ~mask).any())
        revived += int((pruner.masks["0.weight"] & ~mask).sum())
    assert dead_moved
    assert revived > 0
    assert pruner.density == pytest.approx(0.25)
    masks = pruner.masks
    pruner.finish()
    assert torch.equal(net[0].weight != 0, masks["0.weight"])


def test_a_density_outside_its_range_is_refused() -> None:
    with pytest.raises(BadOption, match=r"density is 1\.5"):
        dpf([layer("fc", torch.ones(1, 4))], 0.0, density=constant(value=1.5))
