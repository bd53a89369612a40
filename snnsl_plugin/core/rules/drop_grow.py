"""Drop the worst connections, grow the most promising: the rule behind GMP, SET, RigL, GraNet and NDSNN."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from snnsl_plugin.core.compressibility import prunable_share
from snnsl_plugin.core.criteria.magnitude import magnitude
from snnsl_plugin.core.distributions.erk import erk
from snnsl_plugin.core.growth.gradient import gradient
from snnsl_plugin.core.layer import Criterion, Distribution, Growth, Layer, Schedule, State
from snnsl_plugin.core.masks import keep_top
from snnsl_plugin.errors import BadOption, Diverged


def drop_grow(
    layers: Sequence[Layer],
    progress: float,
    *,
    density: Schedule,
    criterion: Criterion = magnitude,
    growth: Growth = gradient,
    distribution: Distribution = erk,
    swap: Schedule | None = None,
    pq: float | None = None,
    penalty: float = 0.0,
) -> dict[str, State]:
    """One update of all layers.

    Per layer, with n_keep from the distribution and `active` connections alive:

        k       = min(n_keep, active);  n_swap = floor(swap(progress) k)
        survive = the k - n_swap best of the alive by `criterion`
        grow    = the n_keep - |survive| best of the others by `growth`

    A connection dropped a line ago may come back, as in RigL's authors' code, and the floor is RigL's (GraNet takes
    the ceiling). Constant density with random growth is SET (Mocanu et al. 2018), with gradient growth RigL (Evci et
    al. 2020); a falling density with a swap is GraNet (Liu et al. 2021) and NDSNN (Huang et al. 2023); a falling
    density without one is gradual magnitude pruning (Zhu and Gupta 2017).

    With `pq` the fraction is each layer's own: pq times the PQ index of its living weights, the share that could go,
    and at most swap(progress). A layer whose weights are unequal is rewired more. That the rewiring ratio follows the
    index is the idea of Shen et al. (ICLR 2025), whose details were not available to us: index, exponents and factor
    are those of Diao et al. (ICLR 2023, see `core.compressibility`), and the bound is our choice.

    With `penalty` weights shrink between updates as well, all by the same: a price on their sum of sizes (L1), as in
    `bpsr`, taken in a step of its own, so Adam does not divide it. What the loss does not hold up against it is small
    when a budget is shared among layers. That `drop_grow` and a price go together is our choice.

    Args:
        layers: all layers, those that are never pruned too.
        progress: fraction of the schedule that has passed, in [0, 1].
        density: the fraction of all weights kept, in (0, 1].
        criterion: what a connection is kept for.
        growth: where one is grown.
        distribution: how the budget is shared among layers.
        swap: the fraction of survivors exchanged, in [0, 1]; none where omitted.
        pq: factor on the PQ index of each layer, > 0; `swap` is then the most that is exchanged. Swap alone where
            omitted.
        penalty: of a weight's size, in units of the loss, >= 0; see `drift_`.

    Returns:
        The new state of each layer: its mask.

    Raises:
        BadOption: a density, swap, pq or penalty outside its range.
        MissingStatistic: criterion or growth need what nobody recorded.
    """
    fraction = _fraction(swap, progress)
    scores = {layer.name: _shaped(criterion(layer), layer, "criterion") for layer in layers if layer.prunable}
    counts = distribution(layers, scores, budget(layers, density(progress)))

    def exchanged(layer: Layer) -> float:
        return fraction if pq is None else min(fraction, pq * prunable_share(layer.weight[layer.mask]))

    return {
        layer.name: {"mask": _mask(layer, scores[layer.name], growth, counts[layer.name], exchanged(layer))}
        if layer.prunable
        else layer.state
        for layer in layers
    }


def check(*, density: Schedule, swap: Schedule | None, pq: float | None = None, penalty: float = 0.0) -> None:
    """Refuses, before anything is trained, options that start or end outside their range, and an idle pq.

    Raises:
        BadOption: with the value.
    """
    if pq is not None and not (math.isfinite(pq) and pq > 0.0):
        raise BadOption(f"pq is {pq:g}: the factor on the PQ index must be above 0, e.g. 1.0")
    if pq is not None and swap is None:
        raise BadOption(
            f"pq={pq:g} without a swap, and swap is the most that is exchanged: give one, e.g. cosine from 0.5 to 0"
        )
    if not (math.isfinite(penalty) and penalty >= 0.0):
        raise BadOption(f"penalty is {penalty:g}: it must not be below 0")
    for progress in (0.0, 1.0):
        budget([], density(progress))
        _fraction(swap, progress)


def budget(layers: Sequence[Layer], density: float) -> int:
    """How many weights a density stands for, over all layers, rounded to the nearest.

    Raises:
        BadOption: the density is outside (0, 1].
    """
    if not 0.0 < density <= 1.0:
        raise BadOption(f"density is {density:.6g}: it must stay in (0, 1]")
    return round(density * sum(layer.weight.numel() for layer in layers))


def after_step_(weight: Tensor, state: State) -> None:
    """Makes dead weights exactly zero after an optimizer step, in place."""
    weight.mul_(state["mask"])


def drift_(weight: Tensor, state: State, lr: float, *, penalty: float = 0.0) -> None:
    """Shrinks weights towards 0 and not past it, in place, after a step of the optimizer.

    Args:
        weight: any shape.
        state: not used.
        lr: the learning rate of that step.
        penalty: a weight shrinks by lr times it, >= 0.
    """
    if penalty:
        weight.copy_(weight.sign() * (weight.abs() - lr * penalty).clamp_min(0))


def _mask(layer: Layer, scores: Tensor, growth: Growth, n_keep: int, swap: float) -> Tensor:
    active = int(layer.mask.count_nonzero())
    stay = min(n_keep, active)
    stay -= math.floor(swap * stay)
    survive = layer.mask if stay == active else keep_top(scores, stay, among=layer.mask)
    if stay == n_keep:
        return survive.clone()
    return survive | keep_top(_shaped(growth(layer), layer, "growth"), n_keep - stay, among=~survive)


def _fraction(swap: Schedule | None, progress: float) -> float:
    fraction = swap(progress) if swap else 0.0
    if not 0.0 <= fraction <= 1.0:
        raise BadOption(f"swap is {fraction:.6g} at progress {progress:.4g}: it must stay in [0, 1]")
    return fraction


def _shaped(scores: Tensor, layer: Layer, what: str) -> Tensor:
    if scores.shape != layer.weight.shape:
        raise BadOption(
            f"the {what} scores layer {layer.name!r} with shape {tuple(scores.shape)}: it must be the weight's, "
            f"{tuple(layer.weight.shape)}"
        )
    # The sum is NaN where a score is, and also where infinities of both signs meet.
    if bool(torch.isnan(scores.sum())) and bool(torch.isnan(scores).any()):
        raise Diverged(
            f"the {what} scores a weight of layer {layer.name!r} NaN: either the loss has diverged (lower the learning "
            f"rate or clip gradients), or the {what} itself divides by zero or the like"
        )
    return scores
