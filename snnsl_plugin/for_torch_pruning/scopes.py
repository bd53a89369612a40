"""How many units of each group live on: Torch-Pruning's ranking scopes, with exact counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_pruning.dependency.group import Group

from snnsl_plugin.core.masks import keep_top
from snnsl_plugin.errors import BadOption
from snnsl_plugin.for_torch_pruning.units import Units


def scope_of(pruner: Any, group: Group) -> tuple[str, nn.Module | None]:
    """In which scope a group is ranked, by Torch-Pruning's rules.

    Args:
        pruner: one of Torch-Pruning's.
        group: one of its groups.

    Returns:
        A name that groups ranked together share, and the module that has a ratio of its own in `pruning_ratio_dict`.
    """
    graph = pruner.DG
    for dependency, _ in group:
        for node, function in ((dependency.source, dependency.trigger), (dependency.target, dependency.handler)):
            if node.module in pruner._layer_to_scope and graph.is_out_channel_pruning_fn(function):
                return pruner._layer_to_scope[node.module][0], node.module
    if pruner.isomorphic:
        pattern = [
            f"{type(node.module).__name__}_{graph.is_out_channel_pruning_fn(dependency.handler)}"
            for dependency, _ in group
            for node in (dependency.source, dependency.target)
        ]
        return "isomorphic " + " ".join(pattern), None
    if pruner.global_pruning:
        return "all groups", None
    return graph._module2name[group[0].dep.source.module], None


def kept(units: int, ratio: float, scope: str, floor: int) -> int:
    """How many units a scope keeps: int(units (1 - ratio)), as Torch-Pruning counts.

    Args:
        units: of the scope, a count.
        ratio: the share to mask.
        scope: for the error.
        floor: the least that its groups must keep together.

    Raises:
        BadOption: a ratio outside [0, 1], or one that leaves less than the floor.
    """
    if not 0.0 <= ratio <= 1.0:
        raise BadOption(f"the pruning ratio of {scope!r} is {ratio:.6g}: it must stay in [0, 1]")
    keep = int(units * (1 - ratio))
    if keep < floor:
        raise BadOption(
            f"at a pruning ratio of {ratio:.4g} {scope!r} would keep {keep} of its {units} units, and needs {floor}: "
            "lower pruning_ratio, put the layer into ignored_layers, or raise max_pruning_ratio"
        )
    return keep


def floor_of(units: Units, max_ratio: float) -> int:
    """The least a group keeps: one unit, or what a largest ratio leaves."""
    return max(1, int(units.count * (1 - max_ratio)))


def check_rounding(groups: Sequence[Units], round_to: int | None) -> None:
    """Refuses a multiple that leaves each of the groups whole.

    Args:
        groups: all of which a ratio above 0 is asked.
        round_to: channels of each group become a multiple of this.

    Raises:
        BadOption: no group can lose a channel.
    """
    if groups and all(_rounded(each, 1, round_to) == each.count for each in groups):
        told = ", ".join(f"{each.name!r} has {each.count * each.channel_groups}" for each in groups)
        raise BadOption(
            f"round_to={round_to} lets no group lose a channel ({told}): lower it below the channels of a group, or "
            "leave it out"
        )


def shares(
    groups: Sequence[Units],
    scores: Mapping[str, Tensor],
    alive: Mapping[str, Tensor],
    keep: int,
    *,
    max_ratio: float = 1.0,
    round_to: int | None = None,
    growth: Callable[[Units], Tensor],
) -> dict[str, int]:
    """How the units that a scope keeps are shared among its groups: the best of the living, wherever they are.

    Args:
        groups: of one scope.
        scores: by name, (count,); larger is better; those of the masked are not looked at.
        alive: by name, bool, (count,).
        keep: units of the scope, a count.
        max_ratio: of any group.
        round_to: channels of each group become the multiple of this below, but at least one multiple.
        growth: scores of masked units, asked where more are to live than do.

    Returns:
        Units to keep by name; together `keep`, or less where they are rounded.
    """
    living = torch.cat([alive[each.name] for each in groups])
    active = int(living.count_nonzero())
    if keep > active:
        chosen = living | keep_top(torch.cat([growth(each) for each in groups]), keep - active, among=~living)
    else:
        ranked = torch.cat([scores[each.name] for each in groups])
        surely = torch.cat([keep_top(scores[e.name], _least(e, alive, max_ratio), among=alive[e.name]) for e in groups])
        chosen = surely | keep_top(ranked, keep - int(surely.count_nonzero()), among=living & ~surely)
    counts = [int(part.count_nonzero()) for part in torch.split(chosen, [each.count for each in groups])]
    return {each.name: _rounded(each, count, round_to) for each, count in zip(groups, counts, strict=True)}


def _least(units: Units, alive: Mapping[str, Tensor], max_ratio: float) -> int:
    return min(floor_of(units, max_ratio), int(alive[units.name].count_nonzero()))


def _rounded(units: Units, count: int, round_to: int | None) -> int:
    if not round_to:
        return count
    step = round_to // math.gcd(round_to, units.channel_groups)
    return min(max(count - count % step, step), units.count)
