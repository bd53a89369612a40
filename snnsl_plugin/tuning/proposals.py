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

from snnsl_plugin.errors import BadRecipe
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.recipe.space import changed, value_at
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
    own = changed(recipe, {})
    params: dict[str, Any] = {}
    for key, parameter in _in_order(space):
        if not _matters(parameter, space, params):
            continue
        if isinstance(parameter, Pick):
            # A space may write `magnitude`, or leave out what is a default: what makes the same recipe is the same.
            held = [each for each in parameter.values if _made(recipe, key, each) == own]
        else:
            held = [each for each in _numbers(recipe, key) if _within(parameter, each)]
        if held:
            params[key] = label(held[0])
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


def _made(recipe: Recipe, key: str, value: Any) -> Recipe | None:
    try:
        return changed(recipe, {key: value})
    except BadRecipe:
        return None


def _numbers(recipe: Recipe, key: str) -> list[int | float]:
    try:
        value = value_at(recipe, key)
    except KeyError:
        return []
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def _within(parameter: Float | Int, value: float) -> bool:
    if isinstance(parameter, Float) and parameter.step is None:
        return parameter.low <= value <= parameter.high
    return bool(distribution(parameter)._contains(value))
