"""DPAP: channels, neurons and synapses live on a reserve that activity fills, and go for good when it is used up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from snnsl_plugin.core.layer import Layer, State
from snnsl_plugin.core.masks import quantile
from snnsl_plugin.errors import BadOption

#: The source looks at its network once an epoch.
EVERY = "1ep"
#: What says how much is dropped, where there is no density to ask for.
STRENGTH = "pressure"
#: What is recorded for it.
NEEDS = ("post_trace", "trace_product", "trace_square")

#: Where a reserve begins, and what is left of it after an update.
RESERVE, LEFT = 10.0, 0.999
#: Of convolutions and linear layers: the cost of an update, the bonus of a gain, and the updates after which what is
#: gained and lost falls to 1/e.
CONVOLUTION, LINEAR = (0.65, 5.0, 12), (1.5, 2.0, 13)


def dpap(layers: Sequence[Layer], progress: float, *, pressure: float = 1.0) -> dict[str, State]:
    """One update of all layers (developmental plasticity-inspired adaptive pruning, Han, Zhao and Zeng, TPAMI 2024).

    With y the trace of an output channel at the end of a pass, x that of an input channel, n the updates so far, all
    sums over every sample since the beginning, and `unit` the map of a layer's least to 0 and of its 75th percentile to
    1, clipped:

        B[o, i] = sum (y - m) y x, m the mean of y            # the BCM rule: a threshold that slides with activity
        a[o]    = minmax(sum_i B[o, i]) minmax(sum y[o])
        gain    = 2 unit(a) - cost;  gain += bonus where gain > 0
        R[o]    = 0.999 R[o] + gain exp(-floor(n / period)),  R = 10 at first

    An output channel whose R falls below 0 loses all its connections, for ever. Single synapses of linear layers have
    an R of their own, with unit(B) for unit(a). Cost, bonus and period are 0.65, 5, 12 for convolutions and 1.5, 2, 13
    for linear layers. **Density is an outcome.** As in the authors' code a layer that drives no neuron, the readout,
    stays as it is. Theirs looks for the first time after 6 of 300 epochs and counts n from there: give `start: 6ep`.

    Ours: m is known at an update and holds for all samples since the one before; theirs moves with every batch, for
    each place in the batch by itself. Samples are those of the steps that are recorded: `sample_every: 1` takes all, as
    theirs. `pressure` is ours too: the bar, cost / 2 as a share of the 75th percentile, becomes 1 - (1 - bar)^pressure.

    Args:
        layers: all layers, those that are never pruned too; their traces since the last update.
        progress: not used.
        pressure: how high the bar of a gain is, > 0; 1 is the authors'.

    Returns:
        The new state of each layer: "mask"; "reserve" (out,), and "synapses", shaped like the weight, where it is
        linear; "trace" (out,), "bcm" (out, in / groups), "samples" and "updates", scalars.

    Raises:
        MissingStatistic: no pass was recorded, or no layer drives a neuron.
    """
    pruned = [layer for layer in layers if layer.prunable]
    if pruned and all(layer.post_trace is None for layer in pruned):
        pruned[0].need("post_trace")
    return {
        layer.name: layer.state if not layer.prunable or layer.post_trace is None else _next(layer, pressure)
        for layer in layers
    }


def check(*, pressure: float) -> None:
    """Refuses, before anything is trained, a pressure that is none.

    Raises:
        BadOption: with the value.
    """
    if not (math.isfinite(pressure) and pressure > 0):
        raise BadOption(f"pressure is {pressure:g}: it must be above 0; 1 is the authors'")


def initial(weight: Tensor) -> State:
    """Everything is there, with a full reserve.

    Args:
        weight: shape (out, in / groups, *kernel) or (out, in).
    """
    out, per_group = weight.shape[:2]
    state = {
        "mask": torch.ones_like(weight, dtype=torch.bool),
        "reserve": weight.new_full((out,), RESERVE),
        "trace": weight.new_zeros(out, dtype=torch.float64),
        "bcm": weight.new_zeros(out, per_group),
        "samples": weight.new_zeros((), dtype=torch.float64),
        "updates": weight.new_zeros((), dtype=torch.int64),
    }
    return state | ({"synapses": torch.full_like(weight, RESERVE)} if weight.dim() == 2 else {})


def after_step_(weight: Tensor, state: State) -> None:
    """Makes dead weights exactly zero after an optimizer step, in place."""
    weight.mul_(state["mask"])


def _next(layer: Layer, pressure: float) -> State:
    state, linear = layer.state, layer.weight.dim() == 2
    samples = state["samples"] + layer.trace_samples
    trace = state["trace"] + layer.need("post_trace")
    sliding = (trace / samples).unsqueeze(1) * layer.need("trace_product")
    bcm = state["bcm"] + (layer.need("trace_square") - sliding).to(state["bcm"])
    activity = _minmax(bcm.sum(1)) * _minmax(trace).to(bcm)
    cost, bonus, period = LINEAR if linear else CONVOLUTION
    fading = math.exp(-(int(state["updates"]) // period))
    bar = 2.0 * (1.0 - (1.0 - cost / 2.0) ** pressure)

    def lived(reserve: Tensor, share: Tensor) -> Tensor:
        gain = 2.0 * share - bar
        return LEFT * reserve + torch.where(gain > 0, gain + bonus, gain) * fading

    reserve = lived(state["reserve"], _share(activity))
    alive = (reserve >= 0).view(-1, *(1,) * (layer.weight.dim() - 1))
    new = {"reserve": reserve, "trace": trace, "bcm": bcm, "samples": samples, "updates": state["updates"] + 1}
    if linear:
        new["synapses"] = lived(state["synapses"], _share(bcm))
        alive = alive & (new["synapses"] >= 0)
    return new | {"mask": layer.mask & alive}


def _minmax(x: Tensor) -> Tensor:
    span = x.max() - x.min()
    return (x - x.min()) / span if span else torch.full_like(x, 0.5)


def _share(x: Tensor) -> Tensor:
    span = quantile(x, 0.75) - x.min()
    return ((x - x.min()) / span).clamp(0, 1) if span else torch.full_like(x, 0.5)
