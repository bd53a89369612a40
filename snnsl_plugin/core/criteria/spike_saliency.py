"""How large a weight is, and how often a spike arrives at it."""

from __future__ import annotations

import math

from torch import Tensor

from snnsl_plugin.core.layer import Layer, per_weight
from snnsl_plugin.errors import BadOption


def spike_saliency(layer: Layer, *, power: float = 0.5) -> Tensor:
    """|w| r^power, with r = (spikes + 1) / (slots + 2) the rate of the input channel.

    On binary spikes the root mean square of an input is the square root of its rate, so power = 1/2 is Wanda's score
    (Sun et al. 2024); Wanda compares within output rows, we compare within the layer. The rate is Laplace's estimate:
    a channel that was silent is rare, not impossible, and can come back.

    Args:
        layer: with `pre_spikes` of shape (in,) and `pre_slots`.
        power: exponent of the rate, >= 0; 0 is plain magnitude.

    Returns:
        Scores of the weight's shape, >= 0.

    Raises:
        BadOption: a negative or non-finite power.
        MissingStatistic: no spikes were recorded.
    """
    if not (math.isfinite(power) and power >= 0):
        raise BadOption(f"power={power} is not a finite number >= 0")
    spikes = layer.need("pre_spikes").to(layer.weight)
    rate = (spikes + 1.0) / (layer.pre_slots + 2.0)
    return layer.weight.detach().abs() * per_weight(rate.pow(power), layer)
