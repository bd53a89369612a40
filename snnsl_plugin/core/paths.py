"""Which connections carry anything: the tensor half of the search for paths from the input to an output.

A connection is live when some value of the input can change some output through it. A network of positive weights
tells: its activations are non-zero exactly where the input reaches, its gradients exactly where an output is reached,
and the gradient of a weight is a sum over sites of (activation before it) x (gradient behind it), hence non-zero
exactly where one site has both. One forward and one backward pass find all paths at once, through any wiring.

Two things would spoil the sum: products along a path that vanish or explode with depth, and terms of opposite sign
that cancel (the `x * (1 - y)` of a SEW block). `reach` prevents both: it draws every non-zero value anew, both ways.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class _Reach(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, generator: torch.Generator) -> Tensor:
        ctx.generator = generator
        return drawn_where(x, generator)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return drawn_where(gradient, ctx.generator), None


def drawn_where(x: Tensor, generator: torch.Generator) -> Tensor:
    """Zero where `x` is zero, elsewhere a new number drawn uniformly from [0.1, 0.9).

    Args:
        x: any shape, floating point.
        generator: on the device of `x`.
    """
    drawn = torch.empty_like(x).uniform_(0.1, 0.9, generator=generator)
    return drawn * (x != 0)


def reach(x: Tensor, generator: torch.Generator) -> Tensor:
    """Keeps which values (and, going back, which gradients) are zero, and draws all others anew from [0.1, 0.9).

    Args:
        x: any shape, floating point.
        generator: on the device of `x`; used once now and once in the backward pass.

    Returns:
        The shape of `x`.

    Example:
        >>> x = torch.tensor([0.0, 7.0], requires_grad=True)
        >>> y = reach(x, torch.Generator().manual_seed(0))
        >>> bool(y[0] == 0), bool(0.1 <= y[1] < 0.9)
        (True, True)
        >>> (y * torch.tensor([1e-30, 0.0])).sum().backward()
        >>> bool(0.1 <= x.grad[0] < 0.9), bool(x.grad[1] == 0)
        (True, True)
    """
    reached: Tensor = _Reach.apply(x, generator)  # type: ignore[no-untyped-call]
    return reached


def any_per_channel(x: Tensor, channel: int) -> Tensor:
    """Whether a channel has any non-zero entry.

    Args:
        x: any tensor with a channel axis.
        channel: that axis; negative counts from the end.

    Returns:
        Bool, shape (C,).
    """
    return (x.detach() != 0).movedim(channel, 0).flatten(1).any(1) if x.dim() > 1 else x.detach() != 0


def connections(live: Iterable[Tensor]) -> int:
    """How many weights are on a live path.

    Args:
        live: bool masks, any shapes.

    Example:
        >>> connections([torch.tensor([True, False]), torch.tensor([[True]])])
        2
    """
    return sum(int(mask.count_nonzero()) for mask in live)
