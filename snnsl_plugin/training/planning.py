"""What a rule will ask for, before anything is trained."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import Tensor

from snnsl_plugin.core.layer import Layer
from snnsl_plugin.core.rules.drop_grow import budget
from snnsl_plugin.errors import BadOption
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
    except KeyError:
        return  # it ranks scores, and there are none before training
    for layer in layers:
        if counts.get(layer.name) == 0 and layer.name not in may_vanish:
            raise BadOption(
                f"at density {rule.chosen['density'](1.0):.4g} layer {layer.name!r} would keep none of its "
                f"{layer.weight.numel()} weights, so nothing could pass it: raise the last density, or exclude this "
                "layer"
            )
