"""Grow where both ends are active together."""

from __future__ import annotations

from torch import Tensor

from snnsl_plugin.core.layer import Layer


def coincidence(layer: Layer) -> Tensor:
    """E[s_post s_pre] - r_pre r_post, over steps, samples and output sites since the last update.

    s_pre is what a weight would read there, active or not, s_post the spike of the first neuron behind the layer, and
    the rates are over the same slots, so it is their covariance: 0 for ends that know nothing of each other, below 0
    for such as exclude each other. No gradient is looked at.

    Returns:
        Scores of the weight's shape, in [-1/4, 1/4].

    Raises:
        MissingStatistic: no spikes were recorded, or the layer drives no neuron.
    """
    return layer.need("coincidence").to(layer.weight)
