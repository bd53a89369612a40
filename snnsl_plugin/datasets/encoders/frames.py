"""Event frames: the data already has a time axis; it only moves to the front."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from snnsl_plugin.datasets.encoders._checks import check_steps
from snnsl_plugin.errors import BadOption


def frames(*, T: int | None = None) -> Callable[[Tensor], Tensor]:  # noqa: N803
    """Pass event frames on. How events become frames, by time or by count, is the data set's `slice_by`.

    Args:
        T: the number of steps expected, >= 1; None takes what the data set gives.

    Returns:
        A function from (N, T, C, H, W) to (T, N, C, H, W).

    Raises:
        BadOption: T below 1; later, data without a time axis or with another number of steps.
    """
    if T is not None:
        check_steps(T)

    def encode(x: Tensor) -> Tensor:
        if x.dim() != 5:
            raise BadOption(
                f"encoder frames takes event frames (N, T, C, H, W) and met a batch of shape {tuple(x.shape)}; "
                "for pictures use encoder direct or poisson"
            )
        if T is not None and x.shape[1] != T:
            raise BadOption(f"encoder frames expects T: {T} and the data has {x.shape[1]} frames; make the two equal")
        return x.transpose(0, 1).contiguous()

    return encode
