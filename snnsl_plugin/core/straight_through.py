"""A weight that is computed with is not the weight that learns."""

from __future__ import annotations

import torch
from torch import Tensor


def straight_through(weight: Tensor, value: Tensor) -> Tensor:
    """`value`, with its gradient passed to `weight` unchanged (the straight-through estimator, Bengio et al. 2013).

    Exact, where `weight + (value - weight).detach()` would round.

    Args:
        weight: what learns, any shape.
        value: what is computed with, of the same shape, made from `weight.detach()`.
    """
    passed: Tensor = _Pass.apply(weight, value)  # type: ignore[no-untyped-call]
    return passed


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, weight: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
