"""Grow where the loss would fall fastest."""

from __future__ import annotations

from torch import Tensor

from snnsl_plugin.core.layer import Layer


def gradient(layer: Layer) -> Tensor:
    """|g| of the last step, dense: dead weights have a gradient too (RigL, Evci et al. 2020).

    Returns:
        Scores of the weight's shape, >= 0.

    Raises:
        MissingStatistic: there is no gradient.
    """
    return layer.need("grad").abs()
