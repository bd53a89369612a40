"""How much the loss changes, to second order, when a weight is removed."""

from __future__ import annotations

from torch import Tensor

from snnsl_plugin.core.layer import Layer


def fisher(layer: Layer) -> Tensor:
    """w^2 E[g^2], the diagonal empirical Fisher (Theis et al. 2018; the factor 1/2 does not change the order).

    E[g^2] is the mean over steps since the last update of the squared batch gradient.

    Returns:
        Scores of the weight's shape, >= 0.

    Raises:
        MissingStatistic: no squared gradient was recorded.
    """
    return layer.weight.detach().square() * layer.need("grad_square")
