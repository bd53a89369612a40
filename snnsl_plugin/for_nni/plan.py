"""What a pruner of NNI is asked for: which weights, how much of them, and by which functions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from nni.compression.base.target_space import PruningTargetSpace
from torch import nn

from snnsl_plugin import registry
from snnsl_plugin.anatomy import weight_layers
from snnsl_plugin.errors import BadOption, NothingMatched
from snnsl_plugin.for_nni.choices import by_layer, chosen
from snnsl_plugin.for_nni.config import PRUNER_KEYS
from snnsl_plugin.for_nni.goals import Goals, Group
from snnsl_plugin.training.options import kind_of

TargetSpaces = Mapping[str, Mapping[str, PruningTargetSpace]]


def check_whole(least: int, **given: Any) -> None:
    """Refuses what is no whole number of at least so much; None passes.

    Raises:
        BadOption: with the name and the value.
    """
    for word, value in given.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise BadOption(f"{word}={value!r} must be a whole number of at least {least}")


def check_schedule(schedule: Any, rule: str) -> None:
    """Refuses a schedule for a rule whose density is an outcome.

    Raises:
        BadOption: with the rule.
    """
    if schedule is not None and "density" not in registry.options("rules", rule):
        raise BadOption(
            f"schedule={schedule!r} says when sparse_ratio is reached, and rule {rule!r} has none: leave it out"
        )


def steps_of(habit: str) -> int:
    """A rule's own interval in optimizer steps.

    Raises:
        BadOption: it is in epochs or per cent, which NNI does not know.
    """
    if not habit.endswith("it"):
        raise BadOption(f"the rule updates every {habit}, and NNI counts steps: give interval_steps")
    return int(habit.removesuffix("it"))


def weights_to_prune(
    model: nn.Module, spaces: TargetSpaces, selected: Collection[str]
) -> dict[str, PruningTargetSpace]:
    """The targets that are weights of convolutions or linear layers, by dotted module name.

    Args:
        model: wrapped; its names are those inside DistributedDataParallel, where NNI's begin with `module.`.
        spaces: of the pruner, by NNI's module name and target name.
        selected: NNI's names of all modules that the config list selects.

    Raises:
        BadOption: a target that has no connections to prune.
        NothingMatched: there is no weight among the targets.
    """
    names = {id(layer): name for name, layer in weight_layers(model).items()}
    if taken := [name for name in selected if not spaces.get(name)]:
        raise BadOption(
            f"{taken[0]!r} belongs to the pruner that this one is made from, and NNI would leave it there: leave it "
            "out of the new config list, or make this pruner anew"
        )
    found = {}
    for module_name, targets in spaces.items():
        for target, space in targets.items():
            module = space._wrapper.module
            if id(module) not in names or target not in ("weight", "bias"):
                raise BadOption(
                    f"{module_name}.{target} of a {type(module).__name__} has no connections to prune: select "
                    "convolutions and linear layers, and prune others by one of NNI's own pruners"
                )
            if target == "weight":
                found[names[id(module)]] = space
    if not found:
        raise NothingMatched("the config list selects no weight of a convolution or linear layer")
    # In the order of the model, which is that of a DynamicPruner.
    return {name: found[name] for name in names.values() if name in found}


def check_ratios(spaces: Mapping[str, PruningTargetSpace], rule: str) -> None:
    """Refuses ratios that a rule cannot meet.

    Raises:
        BadOption: a ratio outside [0, 1), missing, or given to a rule whose density is an outcome.
    """
    wanted = "density" in registry.options("rules", rule)
    for name, space in spaces.items():
        ratio = space.sparse_ratio
        if wanted and ratio is None:
            raise BadOption(f"layer {name!r} has no sparse_ratio: give its config entry one, e.g. 'sparse_ratio': 0.9")
        if not wanted and ratio is not None:
            raise BadOption(f"rule {rule!r} takes no sparse_ratio: its density is an outcome; leave the key out")
        if ratio is not None and not 0.0 <= ratio < 1.0:
            raise BadOption(f"sparse_ratio={ratio} of layer {name!r} must lie in [0, 1): a layer keeps something")


def bound_options(
    rule: str,
    options: Mapping[str, Any],
    model: nn.Module,
    entries: Mapping[str, Mapping[str, Any]],
    spaces: Mapping[str, PruningTargetSpace],
    move: Callable[[float], None],
) -> dict[str, Any]:
    """The options of a rule, as functions.

    Args:
        rule: its name.
        options: as the user gave them.
        model: wrapped.
        entries: of the config list, with our keys, by dotted module name.
        spaces: the weights to prune, by dotted module name.
        move: see `Goals`.

    Raises:
        BadOption: a density, which the config's ratios stand for; a value that is none of its kind.
    """
    known = registry.options("rules", rule)
    if "density" in options:
        raise BadOption("density is what the config's sparse_ratio says (1 - sparse_ratio): leave it out")
    bound: dict[str, Any] = {}
    for option, value in (_dynamic(known) | dict(options)).items():
        kind = kind_of(known[option].annotation) if option in known else None
        bound[option] = chosen(kind, value) if kind and value is not None else value
    for key in ("criterion", "growth"):
        if any(key in entry for entry in entries.values()):
            default: Any = bound.get(key) or (known[key].default if key in known else None)
            bound[key] = by_layer(
                {name: _function(key, entry[key]) if key in entry else default for name, entry in entries.items()}
            )
    _check_shares(rule, entries, spaces, known)
    if "density" in known:
        habit = known["distribution"].default if "distribution" in known else None
        groups = _groups(entries, spaces, bound.get("distribution", habit))
        total = sum(layer.weight.numel() for layer in weight_layers(model).values())
        goals = Goals(spaces, groups, total, move)
        bound["density"] = goals.density
        if "distribution" in known:
            bound["distribution"] = goals.counts
    return bound


def _check_shares(
    rule: str,
    entries: Mapping[str, Mapping[str, Any]],
    spaces: Mapping[str, PruningTargetSpace],
    known: Mapping[str, Any],
) -> None:
    if "distribution" in known:
        return
    for name, entry in entries.items():
        if "distribution" in entry or spaces[name].global_group_id is not None:
            raise BadOption(f"rule {rule!r} shares no budget: leave distribution and global_group_id of {name!r} out")
    if len({space.sparse_ratio for space in spaces.values()}) > 1:
        raise BadOption(f"rule {rule!r} has one density for all layers: give all entries the same sparse_ratio")


def _dynamic(known: Mapping[str, Any]) -> dict[str, Any]:
    # Who takes a dynamic pruner wants connections to move, so that is what NNI's door does unless it is told otherwise.
    return {"swap": {"name": "cosine", "first": 0.1, "last": 0.0}} if "swap" in known else {}


def _function(key: str, value: Any) -> Callable[..., Any]:
    return chosen(PRUNER_KEYS[key], value)


def _groups(
    entries: Mapping[str, Mapping[str, Any]], spaces: Mapping[str, PruningTargetSpace], distribution: Any
) -> list[Group]:
    """Who shares a budget: layers of one `global_group_id`, as in NNI, else those of one entry of the config list."""
    members: dict[Any, list[str]] = {}
    how: dict[Any, Any] = {}
    for name, entry in entries.items():
        shared = spaces[name].global_group_id
        habit = distribution if shared is None else "global"
        if (chooses := entry.get("distribution", habit)) is not None:
            key = ("entry", id(entry)) if shared is None else ("global_group_id", shared)
            members.setdefault(key, []).append(name)
            how.setdefault(key, chooses)
    return [Group(frozenset(names), _function("distribution", how[key])) for key, names in members.items()]
