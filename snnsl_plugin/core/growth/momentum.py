"""Grow where the loss would have fallen over many steps."""

from __future__ import annotations

from torch import Tensor

from snnsl_plugin.core.layer import Layer


def momentum(layer: Layer) -> Tensor:
    """|mean g|, the optimizer's running mean of the dense gradient (SNFS, Dettmers and Zettlemoyer 2019).

    SNFS also moves density between layers by momentum; here the distribution decides that.

    Returns:
        Scores of the weight's shape, >= 0.

    Raises:
        MissingStatistic: the optimizer keeps no momentum.
    """
    return layer.need("momentum").abs()
