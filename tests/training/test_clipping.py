import pytest
import torch
from torch import nn

from snnsl_plugin.training.clipping import clip_


def parameter(grad: list[float]) -> nn.Parameter:
    made = nn.Parameter(torch.zeros(len(grad)))
    made.grad = torch.tensor(grad)
    return made


def test_dead_gradients_do_not_count_and_are_scaled_along() -> None:
    one = parameter([3.0, 4.0, 1000.0])
    norm = clip_([one], 2.5, {one: torch.tensor([True, True, False])})
    assert float(norm) == 5.0
    assert one.grad.tolist() == pytest.approx([1.5, 2.0, 500.0], rel=1e-5)


def test_equals_torch_where_nothing_is_dead() -> None:
    values = torch.randn(2, 7, generator=torch.Generator().manual_seed(0)).tolist()
    ours, theirs = [parameter(v) for v in values], [parameter(v) for v in values]
    want = torch.nn.utils.clip_grad_norm_(theirs, 0.7)
    assert torch.allclose(clip_(ours, 0.7, {}), want)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a.grad, b.grad)


def test_small_gradients_stay() -> None:
    one = parameter([0.3, 0.4])
    clip_([one], 1.0, {})
    assert one.grad.tolist() == pytest.approx([0.3, 0.4])
