"""How large a weight is, and whether both its ends are active together."""

from __future__ import annotations

from torch import Tensor

from snnsl_plugin.core.layer import Layer


def hebbian(layer: Layer) -> Tensor:
    """|w| max(0, corr(s_pre, s_post)); 0 where either end is silent, or always on.

    s_pre is what the weight reads, active or not, and s_post the spike of the first neuron behind the layer, at the
    same step, sample and output site. What fires together stays wired together; ends that exclude each other do not.
    The sign of the weight is not looked at. How score and size are put together is our choice.

    Returns:
        Scores of the weight's shape, >= 0.

    Raises:
        MissingStatistic: no spikes were recorded, or the layer drives no neuron.
    """
    weight = layer.weight.detach()
    return weight.abs() * layer.need("correlation").to(weight).clamp_min(0.0)
