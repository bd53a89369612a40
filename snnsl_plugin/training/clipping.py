"""Gradient clipping that ignores the dead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


@torch.no_grad()
def clip_(parameters: Iterable[nn.Parameter], max_norm: float, masks: Mapping[nn.Parameter, Tensor]) -> Tensor:
    """Scales gradients in place so that the norm of the living ones is at most `max_norm`.

    Dense gradients reach pruned weights, and at 5 % density they would be most of the norm although they move nothing.
    All gradients, dead ones too, are scaled by the same factor.

    Args:
        parameters: whose gradients are clipped.
        max_norm: the largest L2 norm allowed, > 0.
        masks: the masks of those parameters that have one.

    Returns:
        The norm before clipping, a scalar.
    """
    with_gradient = [p for p in parameters if p.grad is not None]
    norms = [
        torch.linalg.vector_norm(p.grad * masks[p] if p in masks else p.grad)  # type: ignore[operator]
        for p in with_gradient
    ]
    norm = torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for p in with_gradient:
        p.grad.mul_(factor)  # type: ignore[union-attr]
    return norm
