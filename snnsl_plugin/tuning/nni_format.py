"""A recipe's search space in NNI's format and back, so that an NNI experiment searches what `snnsl tune` would.

Imports no nni: the format is plain data, which the registered tuner `SnnslOptuna` and NNI's own tuners read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from snnsl_plugin.errors import BadOption
from snnsl_plugin.recipe.tune_types import AnyParameter, Float, Int, Pick
from snnsl_plugin.tuning.proposals import Space

#: More steps than this between two ends are no list that a person, or a tuner, could use.
_MOST_STEPS = 1000


def to_nni(space: Space) -> dict[str, Any]:
    """NNI's search space: the same values, drawn the same way.

    Numbers in steps become choices, since NNI counts its steps from 0 and cuts them at the ends. A choice that others
    depend on becomes a nested one. Whole numbers drawn by their logarithm become `qloguniform`, which gives both ends
    half of the share that Optuna gives them.

    Args:
        space: by dotted key of the recipe.

    Raises:
        BadOption: a parameter that depends on two others, which NNI's nesting cannot say, or with too many steps.

    Example:
        >>> to_nni({"pruning.density.last": Float(name="float", low=0.02, high=0.2, log=True)})
        {'pruning.density.last': {'_type': 'loguniform', '_value': [0.02, 0.2]}}
    """
    found: dict[str, Any] = {}
    for key, parameter in space.items():
        if not parameter.when:
            found[key] = _converted(key, parameter, space)
        elif len(parameter.when) > 1:
            raise BadOption(
                f"{key} depends on {' and '.join(parameter.when)}, and NNI nests a parameter below one choice: keep "
                "one condition"
            )
    return found


def from_nni(space: Space, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's values behind the parameters of an NNI trial, by dotted key; for `recipe.space.changed`.

    Raises:
        BadOption: a parameter that is not in the space, or one of its values that is none.
    """
    found: dict[str, Any] = {}
    for key, given in parameters.items():
        if key not in space:
            raise BadOption(f"{key!r} is not in tune.space (known: {', '.join(space)}): write NNI's space with to_nni")
        parameter = space[key]
        if isinstance(parameter, Pick) and _has_children(key, space):
            named = given if isinstance(given, Mapping) else {}
            held = [value for value in parameter.values if _name(value) == named.get("_name")]
            if not held:
                raise BadOption(f"{key!r} is {given!r}, which is none of its values in tune.space")
            found[key] = held[0]
            found |= from_nni(space, {inner: value for inner, value in named.items() if inner != "_name"})
        else:
            found[key] = int(given) if isinstance(parameter, Int) else given
    return found


def _converted(key: str, parameter: AnyParameter, space: Space) -> dict[str, Any]:
    if isinstance(parameter, Pick):
        if not _has_children(key, space):
            return {"_type": "choice", "_value": list(parameter.values)}
        return {"_type": "choice", "_value": [_nested(key, value, space) for value in parameter.values]}
    low, high = parameter.low, parameter.high
    if isinstance(parameter, Float) and parameter.step is None:
        return {"_type": "loguniform" if parameter.log else "uniform", "_value": [low, high]}
    if isinstance(parameter, Int) and parameter.log:
        return {"_type": "qloguniform", "_value": [low, high, 1]}
    if isinstance(parameter, Int) and parameter.step == 1:
        return {"_type": "randint", "_value": [low, high + 1]}
    step = parameter.step or 1
    count = int((high - low) / step + 1e-9) + 1
    if count > _MOST_STEPS:
        raise BadOption(f"{key} has {count} steps, and NNI needs them as a list: make step larger, or leave it out")
    return {"_type": "choice", "_value": [low + number * step for number in range(count)]}


def _nested(key: str, value: Any, space: Space) -> dict[str, Any]:
    inner = {
        child: _converted(child, parameter, space)
        for child, parameter in space.items()
        if parameter.when == {key: value}
    }
    return {"_name": _name(value), **inner}


def _has_children(key: str, space: Space) -> bool:
    return any(key in parameter.when for parameter in space.values())


def _name(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
