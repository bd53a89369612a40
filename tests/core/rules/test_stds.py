import math

import pytest
import torch

from snnsl_plugin.core.layer import Layer
from snnsl_plugin.core.rules.stds import effective, initial, stds
from snnsl_plugin.core.schedules.constant import constant
from snnsl_plugin.core.schedules.sine import sine
from snnsl_plugin.errors import BadOption
from snnsl_plugin.testing import slow_stds


def layer(theta: torch.Tensor) -> Layer:
    return Layer("fc", theta, initial(theta))


def test_three_steps_by_hand() -> None:
    # D = 4 over N = 4 iterations: d = 4 (1 + sin(pi (t / 4 - 1/2))) / 2 = 0.585786, 2, 3.414214
    theta = torch.tensor([[3.0, -1.0, 0.5, -3.5]])
    steps = [stds([layer(theta)], t / 4, threshold=sine(last=4.0))["fc"] for t in (1, 2, 3)]
    assert [float(state["threshold"]) for state in steps] == pytest.approx([0.585786, 2.0, 3.414214], abs=1e-6)
    assert [state["mask"].tolist() for state in steps] == [
        [[True, True, False, True]],
        [[True, False, False, True]],
        [[False, False, False, True]],
    ]
    assert torch.allclose(effective(theta, steps[1]), torch.tensor([[1.0, 0.0, 0.0, -1.5]]))


def test_the_published_schedule_at_its_own_length() -> None:
    # the authors' 2048 epochs; after 20 of them d = D 2.353e-4
    assert sine(last=1.0)(20 / 2048) == pytest.approx(0.5 * (1 - math.cos(math.pi * 20 / 2048)), rel=1e-9)
    assert sine(last=5.0)(20 / 2048) == pytest.approx(5 * 2.3530e-4, rel=1e-3)


def test_equals_the_slow_oracle_on_tied_inputs() -> None:
    theta = ((torch.randn(300, generator=torch.Generator().manual_seed(0)) * 4).round() / 4).view(1, -1)
    thresholds = [0.0, 0.25, 0.5, 1.0, 1.25]
    for d, want in zip(thresholds, slow_stds(theta.flatten().tolist(), thresholds), strict=True):
        state = stds([layer(theta)], 0.5, threshold=constant(value=d))["fc"]
        weight = effective(theta, state).flatten()
        assert weight.tolist() == want
        assert state["mask"].flatten().tolist() == [w != 0 for w in want]


def test_the_gradient_passes_unchanged_so_that_a_dead_spine_can_come_back() -> None:
    theta = torch.tensor([[0.5, -2.0]], requires_grad=True)
    state = stds([layer(theta)], 1.0, threshold=constant(value=1.0))["fc"]
    (effective(theta, state) * torch.tensor([[3.0, 5.0]])).sum().backward()
    assert theta.grad is not None
    assert theta.grad.tolist() == [[3.0, 5.0]]
    grown = theta.detach() + 2.0
    assert stds([layer(grown)], 1.0, threshold=constant(value=1.0))["fc"]["mask"].tolist() == [[True, False]]


def test_sparsity_may_fall_again_late() -> None:
    theta, kept = torch.tensor([[0.3, 0.6, 0.9]]), []
    for t in range(1, 11):
        theta = theta + (0.2 if t > 6 else 0.0)  # late in training the weights still grow, the threshold hardly does
        kept.append(int(stds([layer(theta)], t / 10, threshold=sine(last=0.7))["fc"]["mask"].sum()))
    assert kept == [3, 3, 3, 3, 2, 2, 2, 3, 3, 3]


def test_a_negative_threshold_is_refused_with_its_value() -> None:
    with pytest.raises(BadOption, match="threshold is -1"):
        stds([layer(torch.ones(1, 1))], 0.5, threshold=constant(value=-1.0))
