"""How much the loss changes when a weight is removed, for each operation that this saves."""

from __future__ import annotations

import torch
from torch import Tensor

from snnsl_plugin.core.layer import Layer, operations


def synop_value(layer: Layer) -> Tensor:
    """w^2 E[g^2] / (2 c), with c the non-zero inputs that the weight multiplies per sample; 0 where c is 0.

    The numerator is the loss of removing a weight to second order (Theis et al. 2018; see `fisher`). Ranked by it per
    operation, as things are for a knapsack, the network loses least for the operations saved. Spikes are accumulated
    and real inputs multiplied; c counts both, so that the layer that reads pixels has a price too: that is our choice,
    as is the whole score. Within a layer the weights of an input channel that often fires must be worth more.

    Returns:
        Scores of the weight's shape, >= 0.

    Raises:
        MissingStatistic: no squared gradient was recorded, or no operations.
    """
    cost = operations(layer)
    loss = layer.weight.detach().square() * layer.need("grad_square") / 2
    return torch.where(cost > 0, loss / cost, 0.0)
