"""Direct encoding: the picture itself is the input current of every step."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from snnsl_plugin.datasets.encoders._checks import check_pictures, check_steps


def direct(*, T: int = 4) -> Callable[[Tensor], Tensor]:  # noqa: N803  (T is the field's word for time steps)
    """Repeat each picture T times; the first layer turns it into spikes (and does MACs, once per step).

    Args:
        T: number of steps, >= 1.

    Returns:
        A function from (N, C, H, W) to (T, N, C, H, W).

    Raises:
        BadOption: T below 1; later, data that already has a time axis.

    Example:
        >>> import torch
        >>> direct(T=3)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([3, 2, 1, 8, 8])
    """
    check_steps(T)

    def encode(x: Tensor) -> Tensor:
        check_pictures("direct", x)
        return x.unsqueeze(0).repeat(T, *[1] * x.dim())

    return encode
