"""SD-SNN: weights have ranges that follow them, channels of the smallest go, and synapses in demand grow back."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from snnsl_plugin.core.layer import Layer, State
from snnsl_plugin.core.masks import keep_top
from snnsl_plugin.core.rules.dpf import effective
from snnsl_plugin.errors import BadOption

__all__ = ["after_step_", "check", "effective", "initial", "sd_snn"]

#: The source looks at its network once an epoch.
EVERY = "1ep"
#: What says how much is dropped, where there is no density to ask for.
STRENGTH = "pressure"

#: What a range shrinks to where its weight has been shrinking.
SHRINK = 0.75
#: Per cent of the channels that go at first, of convolutions and linear layers.
FIRST, FIRST_LINEAR = 0.5, 2.0
#: Per cent of the synapses that are not grown back at first, likewise.
BARRED, BARRED_LINEAR = 65.0, 60.0


def sd_snn(layers: Sequence[Layer], progress: float, *, patience: int = 18, pressure: float = 1.0) -> dict[str, State]:
    """One update of all layers (adaptive sparse structure development, Han, Zhao, Pan and Zeng, Inf. Sci. 2025).

    Every weight has a range [low, high], at the first update -max|w| to max|w| of its layer. At each one after it:

        w >= high at more than `patience` updates in a row:  high += the mean excess of the last `patience` of them
        w <= low  likewise:                                  low  += likewise
        |w| smaller than at the last update, likewise:       low, high *= 0.75, for each further `patience` of them

    After `patience` updates weights are clamped to their ranges at each update. After twice as many, u updates ago,
    synapses are grown and channels are pruned, and dead weights are zero after each update. In between the gradient
    moves them beneath their mask, so at the next one they hold what the gradient wanted:

        grow:  dead kernels (of linear layers: weights) whose sum was among the top 35 - 1.1^u % of the layer, at least
               1 % (40 - 1.1^u in linear layers), at more than `patience` + 1 updates in a row; they keep their value
        prune: the floor(share C / 100) channels of the smallest sum of m minmax(high - low); one that was pruned
               before, and has grown back in part, stays
        share: 0.5 at first, and exp(-u / 5) alive / alive of the next layer more at each update; in linear layers 2,
               and a 51.2 alive / C more, a = exp(-u) / 2 up to u = 23 and 0.0005 from there

    **Density is an outcome.** The last of all layers is the readout, and is left alone as theirs is. Epochs of the
    authors' code are updates here.

    Ours: theirs moves the ranges of the linear layer alone, where the paper speaks of all; begins at max w; calls
    channels of under 20 or 50 synapses dead, ours those without any; takes a tenth of the number of living neurons,
    of 512, for 51.2 times their share; divides by the next layer's number where that is pruned too, which a readout is
    not. Counts are exact, ties go to the lowest index, and one channel stays. `pressure` multiplies every share.

    Args:
        layers: all layers in the order of the network, those that are never pruned too; `weight` is the dense w.
        progress: not used.
        patience: how many updates in a row decide, >= 1.
        pressure: factor on the share of channels that are pruned, > 0; 1 is the authors'.

    Returns:
        The new state of each layer: "mask"; "low", "high", "size" (|w| now), "excess", and for how many updates now it
        has been "above", "below" and "shrinking", all shaped like the weight; "wanted", for how many updates now,
        (out, in / groups); "pruned" (out,), whether ever; scalars: "share" in per cent, "updates", and "due", whether
        weights have yet to be clamped.

    Raises:
        Diverged: a weight is NaN.
    """
    moved = {}
    for layer in layers[:-1]:
        if layer.prunable:
            moved[layer.name] = _grown(layer, _ranged(layer, patience), patience)
    states = {layer.name: moved.get(layer.name, layer.state) for layer in layers}
    for place, layer in enumerate(layers):
        if layer.name in moved and (since := int(layer.state["updates"]) - 2 * patience - 1) >= 0:
            following = states[layers[place + 1].name]["mask"] if layers[place + 1].name in moved else None
            states[layer.name] = _pruned(states[layer.name], since, pressure, following)
    return states


def check(*, patience: int, pressure: float) -> None:
    """Refuses, before anything is trained, what is no patience or no pressure.

    Raises:
        BadOption: with the value.
    """
    if patience < 1:
        raise BadOption(f"patience is {patience}: ranges move after at least 1 update in a row")
    if not (math.isfinite(pressure) and pressure > 0):
        raise BadOption(f"pressure is {pressure:g}: it must be above 0; 1 is the authors'")


def initial(weight: Tensor) -> State:
    """Everything is there; ranges are set at the first update.

    Args:
        weight: shape (out, in / groups, *kernel) or (out, in).
    """
    streaks = {word: torch.zeros_like(weight, dtype=torch.int16) for word in ("above", "below", "shrinking")}
    sizes = {word: torch.zeros_like(weight) for word in ("low", "high", "size", "excess")}
    return {
        "mask": torch.ones_like(weight, dtype=torch.bool),
        **sizes,
        **streaks,
        "wanted": weight.new_zeros(weight.shape[:2], dtype=torch.int16),
        "pruned": weight.new_zeros(weight.shape[:1], dtype=torch.bool),
        "share": weight.new_full((), FIRST_LINEAR if weight.dim() == 2 else FIRST, dtype=torch.float64),
        "updates": weight.new_zeros((), dtype=torch.int64),
        "due": weight.new_zeros((), dtype=torch.bool),
    }


def after_step_(weight: Tensor, state: State) -> None:
    """Clamps weights to their ranges and zeroes the dead, in place, once after an update."""
    if state["due"]:
        weight.copy_(_clamped(weight, state) * state["mask"])
        state["due"].zero_()


def _ranged(layer: Layer, patience: int) -> State:
    """Moves the ranges."""
    state, weight = layer.state, layer.weight.detach() * layer.mask
    size, number = weight.abs(), int(state["updates"])
    new = state | {
        "size": size,
        "updates": state["updates"] + 1,
        "due": torch.full_like(state["due"], number > patience),
    }
    if number == 0:
        widest = size.max()
        return new | {"low": (-widest).expand_as(weight).clone(), "high": widest.expand_as(weight).clone()}
    above = _streak(state["above"], weight >= state["high"])
    below = _streak(state["below"], weight <= state["low"])
    shrinking = _streak(state["shrinking"], size < state["size"])
    # The first update of a streak says that it begins; what lies beyond is added up from the second on.
    excess = torch.where(above > 1, state["excess"] + weight - state["high"], 0.0)
    excess = torch.where(below > 1, state["excess"] + weight - state["low"], excess)
    high = torch.where(above > patience, state["high"] + excess / patience, state["high"])
    low = torch.where(below > patience, state["low"] + excess / patience, state["low"])
    shrunk = torch.where(shrinking > patience, SHRINK, 1.0)
    moved = {"low": low * shrunk, "high": high * shrunk}
    excess = excess.masked_fill((above > patience) | (below > patience), 0.0)
    streaks = {"above": above, "below": below, "shrinking": shrinking}
    return new | moved | {"excess": excess} | {word: _again(each, patience) for word, each in streaks.items()}


def _grown(layer: Layer, state: State, patience: int) -> State:
    """Grows back what the gradient has wanted for long."""
    since = int(layer.state["updates"]) - 2 * patience - 1
    if since < 0:
        return state
    weight = _clamped(layer.weight.detach(), state)
    linear = weight.dim() == 2
    sums, dead = (weight, ~state["mask"]) if linear else (weight.flatten(2).sum(2), ~state["mask"].flatten(2).any(2))
    barred = min(99.0, (BARRED_LINEAR if linear else BARRED) + 1.1 ** min(since, 40))
    top = keep_top(sums, sums.numel() - 1 - math.floor((sums.numel() - 1) * barred / 100.0))
    wanted = _streak(state["wanted"], top & dead)
    back = wanted > patience + 1
    mask = state["mask"] | back.view(*back.shape, *(1,) * (weight.dim() - 2))
    return state | {"mask": mask, "wanted": wanted.masked_fill(back, 1)}


def _pruned(state: State, since: int, pressure: float, following: Tensor | None) -> State:
    """Prunes the channels of the smallest ranges, and says how many more there will be."""
    mask, share, channels = state["mask"], float(state["share"]), len(state["mask"])
    width = state["high"] - state["low"]
    least, most = width.min(), width.max()
    width = width - least if most > least else torch.ones_like(width)  # theirs divides by most - least: no other order
    sums = (width * mask).flatten(1).sum(1, dtype=torch.float64)
    out = ~keep_top(sums, channels - min(channels - 1, math.floor(channels * pressure * share / 100.0)))
    out &= ~state["pruned"]
    mask = mask & ~out.view(-1, *(1,) * (mask.dim() - 1))
    alive = _alive(mask)
    if mask.dim() == 2:
        share += (0.5 * math.exp(-since) if since <= 23 else 0.0005) * 51.2 * alive / channels
    else:
        ratio = alive / channels if following is None else alive / max(1, _alive(following))
        share += math.exp(-since / 5.0) * ratio
    return state | {"mask": mask, "pruned": state["pruned"] | out, "share": torch.full_like(state["share"], share)}


def _clamped(weight: Tensor, state: State) -> Tensor:
    return torch.minimum(torch.maximum(weight, state["low"]), state["high"])


def _streak(before: Tensor, now: Tensor) -> Tensor:
    return torch.where(now, before + 1, 0)


def _again(streak: Tensor, patience: int) -> Tensor:
    """A streak that has had its effect counts anew, but needs no new beginning."""
    return streak.masked_fill(streak > patience, 1)


def _alive(mask: Tensor) -> int:
    return int(mask.flatten(1).any(1).count_nonzero())
