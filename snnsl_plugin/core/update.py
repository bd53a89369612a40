"""One mask update of all layers, checked and counted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from snnsl_plugin.core.layer import Distribution, Layer, State
from snnsl_plugin.core.masks import grown, keep_top
from snnsl_plugin.errors import Disconnected

Update = Callable[[Sequence[Layer], float], dict[str, State]]


@dataclass(frozen=True)
class Change:
    """What an update did, per layer.

    Attributes:
        states: the new states.
        kept: connections alive after it, a count.
        born: connections that were dead before it, a count.
        dropped: connections that were alive before it, a count.
    """

    states: dict[str, State]
    kept: dict[str, int]
    born: dict[str, int]
    dropped: dict[str, int]


@torch.no_grad()
def update(rule: Update, layers: Sequence[Layer], progress: float, *, may_vanish: Collection[str] = ()) -> Change:
    """Asks a rule for new states and counts what changed.

    Args:
        rule: the update of a rule with its options bound.
        layers: all layers, those that are never pruned too.
        progress: fraction of the schedule that has passed, in [0, 1].
        may_vanish: names of layers that the network can do without, as those of a residual branch.

    Raises:
        Disconnected: any other layer would be left without any connection.
    """
    states = rule(layers, progress)
    kept, born, dropped = {}, {}, {}
    for layer in layers:
        before, after = layer.mask, states[layer.name]["mask"]
        kept[layer.name] = int(after.count_nonzero())
        new = int(grown(before, after).count_nonzero())
        born[layer.name] = new
        dropped[layer.name] = int(before.count_nonzero()) - kept[layer.name] + new
        if kept[layer.name] == 0 and layer.name not in may_vanish:
            raise Disconnected(
                f"layer {layer.name!r} would keep none of its {after.numel()} weights, so nothing could pass it: raise "
                "the last density (or lower the threshold or price), choose distribution 'erk', or exclude this layer"
            )
    return Change(states, kept, born, dropped)


@torch.no_grad()
def random_states(
    layers: Sequence[Layer], distribution: Distribution, budget: int, first: Mapping[str, Tensor] | None = None
) -> dict[str, State]:
    """Random masks of exactly the budget: the start of a network that is sparse from scratch.

    With distribution `erk` this is the Erdos-Renyi start of SET and ESL-SNN.

    Args:
        layers: all layers, those that are never pruned too, each with its generator.
        distribution: how the budget is shared among layers.
        budget: weights to keep over all layers, a count.
        first: scores that decide in place of chance, by layer name, each of its weight's shape.
    """
    scores = {layer.name: layer.random() for layer in layers if layer.prunable}
    scores |= {name: given.to(scores[name].device) for name, given in (first or {}).items() if name in scores}
    counts = distribution(layers, scores, budget)
    return {
        layer.name: {"mask": keep_top(scores[layer.name], counts[layer.name])} if layer.prunable else layer.state
        for layer in layers
    }
