"""How large a weight is."""

from __future__ import annotations

from torch import Tensor

from snnsl_plugin.core.layer import Layer


def magnitude(layer: Layer) -> Tensor:
    """|w|: the criterion of gradual magnitude pruning, SET and RigL.

    Returns:
        Scores of the weight's shape, >= 0.
    """
    return layer.weight.detach().abs()
