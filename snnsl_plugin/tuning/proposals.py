"""A recipe's search space as Optuna sees it: what a trial may suggest, and the recipe's values that stand behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial

from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.recipe.space import value_at
from snnsl_plugin.recipe.tune_types import AnyParameter, Float, Int, Pick

Space: TypeAlias = Mapping[str, AnyParameter]


def suggest(trial: BaseTrial, space: Space) -> dict[str, Any]:
    """What a trial tries, by dotted key; keys whose condition does not hold are left out."""
    params: dict[str, Any] = {}
    for key, parameter in _in_order(space):
        if not _matters(parameter, space, params):
            continue
        span = distribution(parameter)
        if isinstance(span, CategoricalDistribution):
            params[key] = trial.suggest_categorical(key, span.choices)
        elif isinstance(span, IntDistribution):
            params[key] = trial.suggest_int(key, span.low, span.high, step=span.step, log=span.log)
        elif isinstance(span, FloatDistribution):
            params[key] = trial.suggest_float(key, span.low, span.high, step=span.step, log=span.log)
    return values_of(space, params)


def distribution(parameter: AnyParameter) -> BaseDistribution:
    """Optuna's distribution of a parameter."""
    if isinstance(parameter, Pick):
        return CategoricalDistribution([label(value) for value in parameter.values])
    if isinstance(parameter, Int):
        return IntDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)


def values_of(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's values behind Optuna's parameters."""
    return {key: _value(space[key], params[key]) for key in space if key in params}


def own_point(recipe: Recipe) -> dict[str, Any]:
    """The recipe itself as Optuna's parameters, as far as what it says lies in its space."""
    space = recipe.tune.space if recipe.tune else {}
    params: dict[str, Any] = {}
    for key, parameter in _in_order(space):
        try:
            value = value_at(recipe, key)
        except KeyError:
            continue
        if _matters(parameter, space, params) and _holds(parameter, value):
            params[key] = label(_written(parameter, value))
    return params


def _in_order(space: Space) -> Iterator[tuple[str, AnyParameter]]:
    """Parameters that others depend on before those that do."""
    yield from sorted(space.items(), key=lambda item: bool(item[1].when))


def _matters(parameter: AnyParameter, space: Space, params: Mapping[str, Any]) -> bool:
    return all(key in params and _value(space[key], params[key]) == value for key, value in parameter.when.items())


def label(value: Any) -> Any:
    """What a study can hold: numbers and words as they are, lists and blocks as JSON."""
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value


def _value(parameter: AnyParameter, held: Any) -> Any:
    if not isinstance(parameter, Pick):
        return held
    return next(value for value in parameter.values if label(value) == held)


def _holds(parameter: AnyParameter, value: Any) -> bool:
    if isinstance(parameter, Pick):
        return any(_same(each, value) for each in parameter.values)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if isinstance(parameter, Float) and parameter.step is None:
        return parameter.low <= value <= parameter.high
    return bool(distribution(parameter)._contains(value))


def _written(parameter: AnyParameter, value: Any) -> Any:
    """The value as the space writes it: a recipe says `{name: magnitude}` where a space may say `magnitude`."""
    if not isinstance(parameter, Pick):
        return value
    return next(each for each in parameter.values if _same(each, value))


def _same(written: Any, value: Any) -> bool:
    if isinstance(value, dict) and isinstance(written, str):
        return {key for key in value if value[key] is not None} <= {"name"} and value.get("name") == written
    return bool(written == value) and isinstance(written, bool) == isinstance(value, bool)
