"""SCA: whole channels fall silent and come back, as their neurons' activity and their norms' scale ask for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from snnsl_plugin.core.criteria.membrane_potential import membrane_potential
from snnsl_plugin.core.distributions.uniform import uniform
from snnsl_plugin.core.growth.scale_gradient import scale_gradient
from snnsl_plugin.core.layer import Criterion, Distribution, Growth, Layer, Schedule, State
from snnsl_plugin.core.masks import masked_first
from snnsl_plugin.core.rules.drop_grow import budget, drop_grow
from snnsl_plugin.core.rules.drop_grow import check as check_shares
from snnsl_plugin.core.schedules.constant import constant
from snnsl_plugin.errors import BadOption

#: Whole channels go, so it is compared with pruners of channels.
STRUCTURED = True


#: Growths that have nothing to go by where a whole channel is masked.
_BENEATH = ("gradient", "momentum", "coincidence", "gradient_per_synop")


def sca(
    layers: Sequence[Layer],
    progress: float,
    *,
    density: Schedule,
    criterion: Criterion = membrane_potential,
    growth: Growth = scale_gradient,
    distribution: Distribution = uniform,
    swap: Schedule | None = None,
) -> dict[str, State]:
    """One update of all layers (spiking channel activity, Li et al., ICML 2024).

    What is public of it: channels are scored by the activity of their neurons, the mean size of the membrane potential;
    they are pruned along a target of sparsity while the network trains; some come back by the gradient of their batch
    norm's scale. **The rest is our choice:** per layer, `distribution` says how many weights stay, which is rounded to
    whole output channels, at least one; of the k channels that stay, floor(swap k) are dropped on top, and the best of
    the masked ones by `growth` take their places; one that was dropped at this very update returns only where no other
    is there to return. Scores and growths of weights count by their mean over a channel.

    The network computes with m w. What lies beneath a mask has no gradient and waits: a channel comes back with the
    weights it had, but for what momentum and weight decay have done to them since. Columns that read a masked channel
    stay and read zeros; `compaction.compact` cuts both.

    Args:
        layers: all layers, those that are never pruned too; the last one, whose channels are the classes, must be one.
        progress: fraction of the schedule that has passed, in [0, 1].
        density: the fraction of all weights kept, from 1 down.
        criterion: what a channel is kept for.
        growth: which channel comes back.
        distribution: how the budget is shared among layers.
        swap: the fraction of the channels exchanged, in [0, 1]; none where omitted.

    Returns:
        The new state of each layer: its mask, of whole rows.

    Raises:
        BadOption: a density or swap outside its range.
        MissingStatistic: criterion or growth need what nobody recorded.
        Diverged: a score is NaN.
    """
    by_name = {layer.name: layer for layer in layers}
    scores = {layer.name: criterion(layer) for layer in layers if layer.prunable}
    counts = distribution(layers, scores, budget(layers, density(progress)))
    states = drop_grow(
        [_channels(layer) for layer in layers],
        progress,
        density=constant(value=1.0),
        criterion=lambda each: _mean(scores[each.name]),
        growth=lambda each: masked_first(_mean(growth(by_name[each.name])), _mean(scores[each.name]), each.mask),
        distribution=lambda *_: {layer.name: _whole(layer, counts[layer.name]) for layer in layers},
        swap=swap,
    )
    return {layer.name: _rows(layer, states[layer.name]["mask"]) if layer.prunable else layer.state for layer in layers}


def check(*, density: Schedule, swap: Schedule | None, growth: Growth) -> None:
    """Refuses, before anything is trained, shares outside their range, a start that is not dense, and growths in vain.

    Raises:
        BadOption: with the value.
    """
    check_shares(density=density, swap=swap)
    if density(0.0) < 1.0:
        raise BadOption(
            f"density starts at {density(0.0):.6g}: the rule sca begins with all channels, so let it start at 1, e.g. "
            "cubic from 1.0"
        )
    name = getattr(getattr(growth, "func", growth), "__name__", "")
    if name in _BENEATH:
        raise BadOption(
            f"growth {name!r} looks at weights beneath the mask, which have neither gradient nor spikes under the rule "
            "sca: choose 'scale_gradient' or 'random'"
        )


def check_layers(layers: Sequence[Layer]) -> None:
    """Refuses to prune classes.

    Raises:
        BadOption: the last layer is not excluded.
    """
    if layers and layers[-1].prunable:
        raise BadOption(
            f"the channels of {layers[-1].name!r}, the last layer, are what the network answers, and the rule sca "
            f"removes whole channels: exclude it (exclude=[{layers[-1].name!r}])"
        )


def effective(weight: Tensor, state: State) -> Tensor:
    """M w, with no gradient beneath the mask.

    Args:
        weight: any shape.
        state: holds "mask".
    """
    return weight * state["mask"]


def _channels(layer: Layer) -> Layer:
    alive = layer.mask.flatten(1).any(1)
    return Layer(layer.name, torch.zeros(len(alive), device=alive.device), {"mask": alive}, prunable=layer.prunable)


def _mean(scores: Tensor) -> Tensor:
    # In float64, so that channels whose weights all score the same tie exactly where these scores do.
    return scores.detach().double().flatten(1).mean(1)


def _whole(layer: Layer, count: int) -> int:
    return max(1, math.floor(count / layer.weight[0].numel() + 0.5))


def _rows(layer: Layer, alive: Tensor) -> State:
    return {"mask": alive.view(-1, *(1,) * (layer.weight.dim() - 1)).expand(layer.weight.shape).clone()}
