"""What every encoder of pictures checks."""

from __future__ import annotations

from torch import Tensor

from snnsl_plugin.errors import BadOption


def check_steps(T: int) -> None:  # noqa: N803
    """Refuse a number of steps below 1.

    Raises:
        BadOption: with the value.
    """
    if T < 1:
        raise BadOption(f"T is {T}; it is the number of time steps, at least 1")


def check_pictures(encoder: str, x: Tensor) -> None:
    """Refuse a batch that has a time axis already.

    Raises:
        BadOption: with the shape, and the encoder to use.
    """
    if x.dim() != 4:
        raise BadOption(
            f"encoder {encoder} takes pictures (N, C, H, W) and met a batch of shape {tuple(x.shape)}; "
            "event frames already have a time axis, so use encoder frames"
        )
