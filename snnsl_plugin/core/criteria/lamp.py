"""How large a weight is among those that would outlive it."""

from __future__ import annotations

import torch
from torch import Tensor

from snnsl_plugin.core.layer import Layer


def lamp(layer: Layer) -> Tensor:
    """w^2 over the sum of all v^2 with |v| >= |w| in the layer (Lee et al. 2021, "Layer-adaptive sparsity").

    Within a layer the order is that of magnitude; between layers the scores can be compared, so it is meant for
    `global`, or for the distribution of the same name. The largest weight of each layer scores 1. Equal weights share a
    score, where the paper's depends on how a sort breaks the tie.

    Returns:
        Scores of the weight's shape, in [0, 1].
    """
    squares = layer.weight.detach().double().square().flatten()
    ascending = squares.sort().values
    outlived = ascending.flip(0).cumsum(0).flip(0)  # by rank: the sum of this square and all larger ones
    sums = outlived[torch.searchsorted(ascending, squares)]  # of equal squares the first, which has all of them
    scores = torch.where(squares > 0, squares / sums, 0.0)
    return scores.to(layer.weight.dtype).view_as(layer.weight)
