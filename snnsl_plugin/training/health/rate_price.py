"""A price on every spike: rates as low as the task allows."""

from __future__ import annotations

import math

from torch import nn

from snnsl_plugin.anatomy import neurons
from snnsl_plugin.errors import BadOption, NothingMatched
from snnsl_plugin.training.health._rates import Rates


def rate_price(model: nn.Module, *, weight: float = 0.1, power: float = 1.0) -> Rates:
    """Weight * mean over layers of mean over channels of r^power.

    r is the firing rate of a channel in the batch, over steps, samples and sites. With the rule `bpsr` it is the
    spiking regularisation of BPSR (Yan et al. 2022), whose own form was not available to us.

    Args:
        model: its spiking neurons are watched in training passes.
        weight: factor on the whole, > 0; what a network that always fires pays, in nats of loss.
        power: above 1 it presses on the busiest channels most; >= 1.

    Raises:
        BadOption: a weight that is not positive, or a power below 1.
        NothingMatched: the model has no spiking neuron.
    """
    if not (math.isfinite(weight) and weight > 0):
        raise BadOption(f"weight={weight:g}: it must be above 0; leave rate_price out for no price")
    if not (math.isfinite(power) and power >= 1):
        raise BadOption(f"power={power:g}: it must be at least 1, or a silent channel would have no finite gradient")
    watched = neurons(model)
    if not watched:
        raise NothingMatched("rate_price: the model has no spiking neuron whose spikes could be paid for")
    return Rates(watched, lambda rate: rate.pow(power).mean(), weight)
