"""How large a weight is, and how near its neuron is to firing."""

from __future__ import annotations

from torch import Tensor

from snnsl_plugin.core.layer import Layer, per_output


def criticality(layer: Layer) -> Tensor:
    """|w| E[surrogate'(v - threshold)], the mean over steps, samples and sites of the neuron that the layer drives.

    A neuron whose membrane is mostly far from its threshold passes hardly any gradient, and a change of its weights
    hardly changes a spike. Within a layer the mean ranks output rows only.

    Returns:
        Scores of the weight's shape, >= 0 for a surrogate that never falls.

    Raises:
        MissingStatistic: nothing was recorded, or the layer drives no neuron with a surrogate.
    """
    weight = layer.weight.detach()
    return weight.abs() * per_output(layer.need("surrogate").to(weight), layer)
