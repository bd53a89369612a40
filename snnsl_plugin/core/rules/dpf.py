"""DPF: dense weights learn from the gradient at the pruned ones, and the mask is their top again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from snnsl_plugin.core.criteria.magnitude import magnitude
from snnsl_plugin.core.distributions.erk import erk
from snnsl_plugin.core.layer import Criterion, Distribution, Layer, Schedule, State
from snnsl_plugin.core.masks import keep_top
from snnsl_plugin.core.rules.drop_grow import budget
from snnsl_plugin.core.rules.drop_grow import check as check_budget
from snnsl_plugin.core.straight_through import straight_through


def dpf(
    layers: Sequence[Layer],
    progress: float,
    *,
    density: Schedule,
    criterion: Criterion = magnitude,
    distribution: Distribution = erk,
) -> dict[str, State]:
    """One update of all layers (dynamic pruning with feedback, Lin et al., ICLR 2020).

    The network computes with m w, and the gradient found there moves all of w, the pruned too. At each update the mask
    is the best n_keep of **all** weights, so whatever has grown beneath its mask comes back with its value. Theirs
    ranks magnitude over the whole network (`global`) at every 16th step; the defaults here are those of other rules.

    Args:
        layers: all layers, those that are never pruned too; `weight` is the dense w.
        progress: fraction of the schedule that has passed, in [0, 1].
        density: the fraction of all weights kept, in (0, 1]; theirs falls along a cubic.
        criterion: what a connection is kept for.
        distribution: how the budget is shared among layers; one that ranks live weights ranks all of them here.

    Returns:
        The new state of each layer: its mask.

    Raises:
        BadOption: a density outside its range.
        MissingStatistic: the criterion needs what nobody recorded.
        Diverged: a score is NaN.
    """
    alive = [
        replace(layer, state={"mask": torch.ones_like(layer.mask)}) if layer.prunable else layer for layer in layers
    ]
    scores = {layer.name: criterion(layer) for layer in alive if layer.prunable}
    counts = distribution(alive, scores, budget(layers, density(progress)))
    return {
        layer.name: {"mask": keep_top(scores[layer.name], counts[layer.name])} if layer.prunable else layer.state
        for layer in layers
    }


def check(*, density: Schedule) -> None:
    """Refuses, before anything is trained, a density that starts or ends outside its range.

    Raises:
        BadOption: with the value.
    """
    check_budget(density=density, swap=None)


def effective(weight: Tensor, state: State) -> Tensor:
    """M w, with the gradient of m w passed to all of w unchanged.

    Args:
        weight: the dense w, any shape.
        state: holds "mask".
    """
    return straight_through(weight, weight.detach() * state["mask"])
