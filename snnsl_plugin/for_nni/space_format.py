"""Reads NNI's search spaces: `{name: {"_type": ..., "_value": [...]}}`, with nested choices.

Every type is drawn from the very distribution that NNI documents. Where Optuna has no such distribution, the study
holds the number before NNI's own last step, and its name there says so: `width (unrounded)` for the q-types,
`noise (quantile)` for the normal ones. Steps of Optuna's own would begin at the lower end, and NNI's are multiples of
`q`, cut at both ends.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from snnsl_plugin.errors import BadOption, did_you_mean
from snnsl_plugin.for_nni.search_space import Choice, Number, Option, Parameter, Space, columns, is_number

#: NNI's types, all of which are understood.
TYPES = (
    "choice", "randint", "uniform", "quniform", "loguniform", "qloguniform", "normal", "qnormal", "lognormal",
    "qlognormal",
)  # fmt: skip
#: A quantile of a normal distribution stays this far from 0 and 1: within seven standard deviations.
_TAIL = 1e-12


def parse(search_space: Any) -> Space:
    """Reads a search space of NNI's: `{name: {"_type": ..., "_value": [...]}}`, with nested choices.

    Raises:
        BadOption: something that NNI's format does not allow, or two parameters of one name.

    Example:
        >>> [each.column for each in parse({"width": {"_type": "quniform", "_value": [8, 64, 8]}})]
        ['width (unrounded)']
    """
    space = _parse(search_space, "")
    seen: set[str] = set()
    for column in columns(space):
        if column in seen:
            raise BadOption(f"search space: two parameters are called {column!r} in the study; rename one")
        seen.add(column)
    return space


def _parse(search_space: Any, below: str) -> Space:
    where = f"search space{f' below {below!r}' if below else ''}"
    if not isinstance(search_space, Mapping):
        raise BadOption(f"{where}: must map names to {{'_type': ..., '_value': [...]}}, and is {search_space!r}")
    if not search_space and not below:
        raise BadOption(f"{where}: is empty; name at least one parameter")
    return tuple(_parameter(key, spec, f"{below}{key}") for key, spec in search_space.items())


def _parameter(key: Any, spec: Any, column: str) -> Parameter:
    if not isinstance(spec, Mapping) or "_type" not in spec or not isinstance(spec.get("_value"), list):
        raise BadOption(f"search space: {column!r} must be {{'_type': ..., '_value': [...]}}, and is {spec!r}")
    type_, values = spec["_type"], spec["_value"]
    if type_ not in TYPES:
        near = did_you_mean(str(type_), TYPES)
        raise BadOption(f"search space: {column!r} has the unknown type {type_!r}{near} (known: {', '.join(TYPES)})")
    return _choice(key, values, column) if type_ == "choice" else _number(key, type_, values, column)


def _choice(key: Any, values: list[Any], column: str) -> Choice:
    if not values:
        raise BadOption(f"search space: {column!r} has no options; list at least one")
    # NNI takes options for nested ones only where every one is a dict with a name; others are values as they are.
    nested = all(isinstance(value, Mapping) and "_name" in value for value in values)
    options = tuple(_nested(value, column) if nested else _plain(value, column) for value in values)
    labels = [option.label for option in options]
    for index, label in enumerate(labels):
        if label in labels[:index]:  # 1, 1.0 and True are one option to a study
            raise BadOption(f"search space: {column!r} has the option {label!r} twice; drop or rename one")
    return Choice(key, column, CategoricalDistribution(labels), options)


def _nested(value: Mapping[str, Any], column: str) -> Option:
    name = str(value["_name"])
    inner = {key: spec for key, spec in value.items() if key != "_name"}
    return Option(name, None, _parse(inner, f"{column}/{name}/"))


def _plain(value: Any, column: str) -> Option:
    try:
        text = json.dumps(value, sort_keys=True, allow_nan=False)  # a NaN is equal to none, itself included
    except (TypeError, ValueError):
        raise BadOption(
            f"search space: {column!r} has the option {value!r}, which is not JSON; use finite numbers, words, lists, "
            "dicts, truth values or null"
        ) from None
    # A study stores numbers and words only: a list or a dict goes by its text.
    return Option(value if value is None or isinstance(value, str | int | float) else text, value, None)


def _number(key: Any, type_: str, values: list[Any], column: str) -> Number:
    stepped, normal, log = type_.startswith("q"), type_.endswith("normal"), "log" in type_
    names = ["mu", "sigma"] if normal else ["low", "high"]
    wanted = [*names, "q"] if stepped else names
    if len(values) != len(wanted) or not all(map(is_number, values)):
        raise BadOption(f"search space: {column!r} ({type_}) needs the numbers [{', '.join(wanted)}], not {values!r}")
    first, second = values[:2]
    if normal and second <= 0:
        raise BadOption(f"search space: {column!r} ({type_}) has sigma {second!r}; it must be above 0")
    if not normal and first >= second:
        raise BadOption(f"search space: {column!r} ({type_}) has low {first!r} and high {second!r}; high must be above")
    if log and not normal and first <= 0:
        raise BadOption(f"search space: {column!r} ({type_}) has low {first!r}; a logarithm needs one above 0")
    if stepped and values[2] <= 0:
        raise BadOption(f"search space: {column!r} ({type_}) has q {values[2]!r}; it must be above 0")
    if type_ == "randint":
        if not all(isinstance(value, int) for value in values):
            raise BadOption(f"search space: {column!r} (randint) needs whole numbers, not {values!r}; or use quniform")
        return Number(key, column, IntDistribution(first, second - 1), _same, _same)  # NNI's high is exclusive
    ends = (-math.inf, math.inf) if normal else (float(first), float(second))
    finish = _rounded(float(values[2]), *ends) if stepped else _same
    if normal:
        return _normal(key, column, NormalDist(first, second), log, finish)
    column = f"{column} (unrounded)" if stepped else column
    return Number(key, column, FloatDistribution(*ends, log=log), finish, _same)


def _normal(key: Any, column: str, bell: NormalDist, log: bool, finish: Callable[[float], float]) -> Number:
    def decode(quantile: float) -> float:
        drawn = bell.inv_cdf(quantile)
        return finish(math.exp(drawn) if log else drawn)

    def encode(value: float) -> float:
        if log and value <= 0:  # a small value of qlognormal is rounded to 0
            return _TAIL if value == 0 and finish is not _same else math.nan
        return min(max(bell.cdf(math.log(value) if log else value), _TAIL), 1 - _TAIL)

    return Number(key, f"{column} (quantile)", FloatDistribution(_TAIL, 1 - _TAIL), decode, encode)


def _rounded(q: float, low: float, high: float) -> Callable[[float], float]:
    """NNI's `clip(round(x / q) * q, low, high)`: so both ends are reached, multiples of `q` or not."""
    return lambda value: min(max(round(value / q) * q, low), high)


def _same(value: float) -> float:
    return value
