"""A price on neurons that are nearly silent or nearly always on."""

from __future__ import annotations

import math

from torch import Tensor, nn

from snnsl_plugin.anatomy import neurons
from snnsl_plugin.errors import BadOption, NothingMatched
from snnsl_plugin.training.health._rates import Rates


def rate_band(model: nn.Module, *, low: float = 0.01, high: float = 0.3, weight: float = 0.1) -> Rates:
    """Weight * mean over layers of mean over channels of relu(1 - r / low)^2 + relu(r / high - 1)^2.

    r is the firing rate of a channel in the batch, over steps, samples and sites. Both bounds are those of Zenke and
    Vogels 2021 in spirit; theirs count spikes of single neurons, ours are rates relative to the bound, so that silence
    costs the same whatever `low` is. Within the band nothing is paid, and there is no gradient.

    Args:
        model: its spiking neurons are watched in training passes.
        low: rate per step below which a channel is pushed up, in (0, 1); 0 for no lower bound.
        high: rate per step above which it is pushed down, in (low, 1]; 1 for no upper bound.
        weight: factor on the whole, > 0.

    Raises:
        BadOption: bounds out of order, or a weight that is not positive.
        NothingMatched: the model has no spiking neuron.
    """
    if not 0.0 <= low < high <= 1.0:
        raise BadOption(f"low={low:g} and high={high:g}: a band of rates needs 0 <= low < high <= 1")
    if not (math.isfinite(weight) and weight > 0):
        raise BadOption(f"weight={weight:g}: it must be above 0; leave rate_band out for no band")
    watched = neurons(model)
    if not watched:
        raise NothingMatched("rate_band: the model has no spiking neuron whose rate could be kept in a band")

    def cost(rate: Tensor) -> Tensor:
        above = (rate / high - 1.0).relu().square()
        return (above + (1.0 - rate / low).relu().square() if low else above).mean()

    return Rates(watched, cost, weight)
