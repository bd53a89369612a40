"""Grow the channels whose batch norm asks for them."""

from __future__ import annotations

from torch import Tensor

from snnsl_plugin.core.layer import Layer, per_output


def scale_gradient(layer: Layer) -> Tensor:
    """|dL / d gamma| of each output channel, gamma the scale of its batch norm, summed over the recorded steps.

    What brings a channel back in SCA (Li et al., ICML 2024). For a channel that is masked it is the gradient at gamma =
    0 with the weights that lie beneath the mask. The size is that of the sum, never the sum of sizes: a gradient that
    changes its sign at every step asks for nothing. Without a norm it is the gradient of a factor on the channel. All
    weights of an output channel score the same.

    Returns:
        Scores of the weight's shape, >= 0.

    Raises:
        MissingStatistic: no such gradient was recorded.
    """
    return per_output(layer.need("scale_grad").to(layer.weight).abs(), layer).expand(layer.weight.shape).clone()
