"""Grow anywhere."""

from __future__ import annotations

from torch import Tensor

from snnsl_plugin.core.layer import Layer


def random(layer: Layer) -> Tensor:
    """Uniform random scores, as in SET (Mocanu et al. 2018), from the layer's own generator.

    Returns:
        Scores of the weight's shape, in [0, 1).

    Raises:
        MissingStatistic: the layer has no generator.
    """
    return layer.random()
