"""From the words of a config or a call to functions: `"magnitude"`, `{"name": "cosine", "first": 0.3}`, a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from snnsl_plugin import registry
from snnsl_plugin.core.layer import Layer, Schedule
from snnsl_plugin.errors import BadOption, did_you_mean
from snnsl_plugin.training.options import kind_of


def chosen(kind: str, value: Any, /, **defaults: Any) -> Callable[..., Any]:
    """The function that a value stands for, with its options bound.

    Args:
        kind: of the registry, e.g. `criteria`.
        value: a function; a registered name; or a mapping with a `name` and options.
        **defaults: options taken where the function has them and the value gives none.

    Raises:
        UnknownName: with the nearest known name.
        BadOption: an option that the function does not have, or needs and did not get.

    >>> round(chosen("schedules", {"name": "linear", "first": 1.0, "last": 0.0})(0.25), 2)
    0.75
    """
    if callable(value):
        return value
    word = registry.singular(kind)
    options = dict(value) if isinstance(value, Mapping) else {"name": value}
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise BadOption(
            f"{value!r} is no {word}: give a name ({', '.join(registry.names(kind))}), a mapping with a name and its "
            "options, or a function"
        )
    function, known = registry.get(kind, name), registry.options(kind, name)
    for option in options:
        if option not in known:
            raise BadOption(
                f"{word} {name!r} has no option {option!r}{did_you_mean(option, known)} "
                f"(options: {', '.join(known) or 'none'})"
            )
    given = {option: each for option, each in defaults.items() if option in known} | options
    if missing := [each for each, p in known.items() if p.default is p.empty and each not in given]:
        raise BadOption(
            f"{word} {name!r} needs the option {missing[0]!r}: write {{'name': {name!r}, {missing[0]!r}: ...}}"
        )
    bound = {
        option: chosen(inner, each) if (inner := kind_of(known[option].annotation)) and each is not None else each
        for option, each in given.items()
    }
    takes = inspect.signature(function).parameters.values()
    if any(each.kind is not each.KEYWORD_ONLY for each in takes):
        return partial(function, **bound)
    return function(**bound)


def ramp_to_goal(value: Any) -> Schedule:
    """The share of the goal that is asked for over progress: 1 at the end, in [0, 1] all the way.

    A name alone goes from 0 to 1; `constant` is at the goal from the start.

    Raises:
        BadOption: it ends elsewhere, or leaves [0, 1].
    """
    schedule: Schedule = chosen("schedules", value, first=0.0, last=1.0, value=1.0)
    for progress in (0.0, 0.25, 0.5, 0.75, 1.0):
        if not 0.0 <= schedule(progress) <= 1.0:
            raise BadOption(
                f"schedule={value!r} is {schedule(progress):.4g} at progress {progress}: it is the share of the "
                "config's sparse_ratio and must stay in [0, 1]"
            )
    if schedule(1.0) != 1.0:
        raise BadOption(
            f"schedule={value!r} ends at {schedule(1.0):.4g} of the config's sparse_ratio: let it end at 1, and lower "
            "sparse_ratio instead"
        )
    return schedule


def by_layer(own: Mapping[str, Callable[[Layer], Any]]) -> Callable[[Layer], Any]:
    """One criterion or growth that asks each layer's own.

    Args:
        own: by dotted module name.
    """
    functions = list(dict.fromkeys(own.values()))
    if len(functions) == 1:
        return functions[0]

    def score(layer: Layer) -> Any:
        if layer.name in own:
            return own[layer.name](layer)
        # A layer that nobody knows is the pruner's question what statistics are needed: those of all.
        scores = [function(layer) for function in functions]
        return scores[0]

    return score
