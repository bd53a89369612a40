"""Which units live after an update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from snnsl_plugin import registry
from snnsl_plugin.core.layer import Layer, Schedule
from snnsl_plugin.core.masks import masked_first
from snnsl_plugin.core.rules.drop_grow import drop_grow
from snnsl_plugin.core.schedules.constant import constant
from snnsl_plugin.core.update import Change, update
from snnsl_plugin.for_torch_pruning.units import Units


def choose(
    ranked: Sequence[Units],
    alive: Mapping[str, Tensor],
    counts: Mapping[str, int],
    scores: Mapping[str, Tensor],
    growth: Callable[[Units], Tensor],
    swap: Schedule | None,
    progress: float,
) -> Change:
    """Drops and grows units as `core.rules.drop_grow` does connections: units are to it what weights are to a layer.

    What differs: a unit that is dropped now returns only where no other is masked.

    Args:
        ranked: groups that have scores.
        alive: by name, bool, (count,).
        counts: units to keep by name.
        scores: of the living by name, (count,).
        growth: of the masked of a group, (count,); asked only of groups that have some to spare.
        swap: share of the survivors exchanged.
        progress: share of the updates done, in [0, 1].

    Returns:
        The new masks, and what was born and dropped.

    Raises:
        BadOption: a swap outside [0, 1].
    """
    by_name = {each.name: each for each in ranked}
    rule = partial(
        drop_grow,
        density=constant(value=1.0),
        criterion=lambda layer: scores[layer.name],
        growth=lambda layer: masked_first(growth(by_name[layer.name]), scores[layer.name], layer.mask),
        distribution=lambda *_: dict(counts),
        swap=swap,
    )
    layers = [Layer(each.name, torch.zeros(each.count), {"mask": alive[each.name]}) for each in ranked]
    return update(rule, layers, progress)


def scheduler(schedule: Schedule | str) -> Callable[[float, int], list[float]]:
    """A schedule from 0 to 1 as Torch-Pruning's `iterative_pruning_ratio_scheduler`.

    Args:
        schedule: a function of the share of updates done, or a schedule's name.

    Raises:
        UnknownName: no schedule of that name.
    """
    if isinstance(schedule, str):
        make, known = registry.get("schedules", schedule), registry.options("schedules", schedule)
        ends = {"first": 0.0, "last": 1.0, "value": 1.0}
        shape: Schedule = make(**{word: end for word, end in ends.items() if word in known})
    else:
        shape = schedule

    def ratios(ratio: float, steps: int) -> list[float]:
        return [ratio * shape(step / steps) for step in range(steps + 1)]

    return ratios
