"""How much the loss changes, to first order, when a weight is removed."""

from __future__ import annotations

from torch import Tensor

from snnsl_plugin.core.layer import Layer


def taylor(layer: Layer) -> Tensor:
    """|w g| (Molchanov et al. 2017), with the gradient of the last step taken through the surrogate.

    Returns:
        Scores of the weight's shape, >= 0.

    Raises:
        MissingStatistic: there is no gradient.
    """
    return (layer.weight.detach() * layer.need("grad")).abs()
