"""Grow where the loss would fall fastest for each operation that this costs."""

from __future__ import annotations

import torch
from torch import Tensor

from snnsl_plugin.core.layer import Layer, operations


def gradient_per_synop(layer: Layer) -> Tensor:
    """|g| / c, with g the dense gradient of the last step and c the non-zero inputs a weight would multiply per sample.

    Where c is 0 the score is 0: inputs that were always zero since the last update have no gradient either, and what
    cannot be told is not grown. c counts spikes and non-zero real inputs alike, as in the criterion `synop_value`; the
    score is ours.

    Returns:
        Scores of the weight's shape, >= 0.

    Raises:
        MissingStatistic: there is no gradient, or operations were not counted.
    """
    cost = operations(layer)
    return torch.where(cost > 0, layer.need("grad").abs() / cost, 0.0)
