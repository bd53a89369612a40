"""Checks of shapes and widths that every model makes at its door."""

from __future__ import annotations

from collections.abc import Sequence

from snnsl_plugin.errors import BadOption


def check_input(input_shape: Sequence[int], classes: int) -> None:
    """Refuse anything but a (C, H, W) of positive sizes and at least two classes.

    Raises:
        BadOption: with the value.
    """
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise BadOption(f"input shape {tuple(input_shape)} is not (channels, height, width) of positive sizes")
    if classes < 2:
        raise BadOption(f"a classifier of {classes} classes has nothing to choose from; the data needs at least 2")


def check_channels(option: str, widths: Sequence[int]) -> None:
    """Refuse an empty list of widths, and a width below 1.

    Raises:
        BadOption: naming the option.
    """
    if not widths or min(widths) < 1:
        raise BadOption(f"{option} is {list(widths)}; every layer needs at least 1 channel")


def check_pools(input_shape: Sequence[int], pools: int) -> None:
    """Refuse an input that `pools` halvings would reduce to nothing.

    Raises:
        BadOption: with the smallest side that works.
    """
    if min(input_shape[1:]) < 2**pools:
        raise BadOption(
            f"input of {input_shape[1]}x{input_shape[2]} pixels is too small for {pools} poolings; "
            f"it needs at least {2**pools}x{2**pools} (a larger `size` of the data, or a shallower model)"
        )
