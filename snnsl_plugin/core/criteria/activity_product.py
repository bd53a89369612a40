"""How large a weight is, and how often both its ends fire."""

from __future__ import annotations

from torch import Tensor

from snnsl_plugin.core.layer import Layer, per_output, per_weight


def activity_product(layer: Layer) -> Tensor:
    """|w| r_pre r_post, with rates (spikes + 1) / (slots + 2) of the input channel and of the neuron that it drives.

    A connection between two neurons that often fire is worth keeping, whether or not they fire together. Within a layer
    r_post ranks output rows.

    Returns:
        Scores of the weight's shape, >= 0.

    Raises:
        MissingStatistic: no spikes were recorded, or the layer drives no neuron.
    """
    pre = (layer.need("pre_spikes").to(layer.weight) + 1.0) / (layer.pre_slots + 2.0)
    post = (layer.need("post_spikes").to(layer.weight) + 1.0) / (layer.post_slots + 2.0)
    return layer.weight.detach().abs() * per_weight(pre, layer) * per_output(post, layer)
