"""What a rule will ask for, before anything is trained."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields

import torch
from torch import Tensor

from snnsl_plugin.core.layer import PER_CHANNEL, Layer
from snnsl_plugin.core.rules.drop_grow import budget
from snnsl_plugin.errors import BadOption, MissingStatistic
from snnsl_plugin.training.options import Rule
from snnsl_plugin.training.timetable import Timetable


def density_at(rule: Rule, when: Timetable, step: int) -> float | None:
    """The density asked for after a step, in (0, 1]; None for a rule whose density is an outcome."""
    density = rule.chosen.get("density")
    if density is None:
        return None
    last = when.last_due(step)
    planned: float = 1.0 if last is None else density(when.progress(last))
    return planned


def counts_at_end(rule: Rule, layers: Sequence[Layer], scores: dict[str, Tensor]) -> dict[str, int]:
    """Weights to keep per layer at the end; empty for a rule that shares no budget."""
    density, distribution = rule.chosen.get("density"), rule.chosen.get("distribution")
    if density is None or distribution is None:
        return {}
    counts: dict[str, int] = distribution(layers, scores, budget(layers, density(1.0)))
    return counts


def check_budget(rule: Rule, layers: Sequence[Layer], may_vanish: Collection[str] = ()) -> None:
    """Refuses layers that the rule cannot prune, and a last density that cannot be met or leaves a layer nothing that
    may not vanish.

    Raises:
        BadOption: with the layer and its size.
    """
    if rule.check_layers:
        rule.check_layers(layers)
    try:
        counts = counts_at_end(rule, layers, {})
    except (KeyError, MissingStatistic):
        return  # it ranks scores, or what is recorded, and there is none before training
    for layer in layers:
        if counts.get(layer.name) == 0 and layer.name not in may_vanish:
            raise BadOption(
                f"at density {rule.chosen['density'](1.0):.4g} layer {layer.name!r} would keep none of its "
                f"{layer.weight.numel()} weights, so nothing could pass it: raise the last density, or exclude this "
                "layer"
            )


def needed_to_share(rule: Rule, layers: Sequence[Layer]) -> set[str]:
    """The names of the statistics that a rule's distribution asks for, found as those of criteria are: by asking it."""
    asked: set[str] = set()
    scores = {layer.name: layer.weight.detach().abs() for layer in layers if layer.prunable}
    counts_at_end(rule, as_if_recorded(layers, asked), scores)
    return asked


def as_if_recorded(layers: Sequence[Layer], asked: set[str] | None = None) -> list[Layer]:
    """The same layers before anything was recorded: a statistic that is missing is 1 everywhere.

    Args:
        layers: all of them.
        asked: is told what they are asked for.
    """

    class Recorded(Layer):
        def need(self, statistic: str) -> Tensor:
            if asked is not None:
                asked.add(statistic)
            value: Tensor | None = getattr(self, statistic)
            return value if value is not None else torch.ones_like(self._like(statistic))

        def _like(self, statistic: str) -> Tensor:
            if statistic not in PER_CHANNEL:
                return self.weight
            channels = self.weight.shape[1] * self.groups if statistic == "pre_spikes" else self.weight.shape[0]
            return self.weight.new_empty(channels)

    Recorded.__name__ = Recorded.__qualname__ = "Layer"
    return [Recorded(**{each.name: getattr(layer, each.name) for each in fields(layer)}) for layer in layers]
