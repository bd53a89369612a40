"""A search space of NNI's as parameters that an Optuna trial can suggest. Imports no torch: a tuner must start fast."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
)
from optuna.trial import FrozenTrial, Trial

from snnsl_plugin.errors import BadOption


class Number(NamedTuple):
    """One number: what the study holds, and the way from there to the trial and back."""

    key: str
    column: str
    distribution: FloatDistribution | IntDistribution
    decode: Callable[[float], float]
    encode: Callable[[float], float]


class Option(NamedTuple):
    """One option of a choice: its name in the study, what the trial gets, and the parameters below it."""

    label: str | int | float | bool | None
    value: Any
    inner: tuple[Parameter, ...] | None


class Choice(NamedTuple):
    """One of several options."""

    key: str
    column: str
    distribution: CategoricalDistribution
    options: tuple[Option, ...]


Parameter: TypeAlias = Number | Choice
Space: TypeAlias = tuple[Parameter, ...]


def columns(space: Space) -> Iterable[str]:
    """The names in the study, those below choices included; a name that is there twice comes twice."""
    for parameter in space:
        yield parameter.column
        if isinstance(parameter, Choice):
            for option in parameter.options:
                yield from columns(option.inner or ())


def suggest(trial: Trial, space: Space) -> dict[str, Any]:
    """What a trial gets: `{name: value}`; a nested choice is `{"_name": ..., **its parameters}`."""
    return {parameter.key: _suggest(trial, parameter) for parameter in space}


def encode(values: Any, space: Space) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """The other way: what a trial got, as `params` and `distributions` of an Optuna trial.

    Raises:
        BadOption: a parameter is missing or lies outside the space.
    """
    params: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    for parameter in space:
        if not isinstance(values, Mapping) or parameter.key not in values:
            raise BadOption(f"{parameter.column!r} is missing")
        value = values[parameter.key]
        if isinstance(parameter, Choice):
            option = _option(value, parameter)
            params[parameter.column] = option.label
            if option.inner:
                below = encode(value, option.inner)
                params |= below[0]
                distributions |= below[1]
        else:
            params[parameter.column] = _encoded(value, parameter)
        distributions[parameter.column] = parameter.distribution
    return params, distributions


def must_fit(space: Space, trials: Iterable[FrozenTrial]) -> None:
    """Checks that a study with these trials can take this space: its choices may not change.

    Raises:
        BadOption: a parameter has other options, or another scale, than in the study.
    """
    held: dict[str, BaseDistribution] = {}
    for trial in trials:
        held |= trial.distributions
    for parameter in _flat(space):
        if parameter.column in held:
            try:
                check_distribution_compatibility(held[parameter.column], parameter.distribution)
            except ValueError:
                raise BadOption(
                    f"search space: the study holds {parameter.column!r} as {held[parameter.column]}, and now it is "
                    f"{parameter.distribution}; rename the parameter, or give another study_name"
                ) from None


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _flat(space: Space) -> Iterable[Parameter]:
    for parameter in space:
        yield parameter
        if isinstance(parameter, Choice):
            for option in parameter.options:
                yield from _flat(option.inner or ())


def _suggest(trial: Trial, parameter: Parameter) -> Any:
    if isinstance(parameter, Choice):
        label = trial.suggest_categorical(parameter.column, parameter.distribution.choices)
        option = next(each for each in parameter.options if each.label == label)
        return option.value if option.inner is None else {"_name": option.label, **suggest(trial, option.inner)}
    span = parameter.distribution
    if isinstance(span, IntDistribution):
        return trial.suggest_int(parameter.column, span.low, span.high)
    return parameter.decode(trial.suggest_float(parameter.column, span.low, span.high, log=span.log))


def _option(value: Any, choice: Choice) -> Option:
    for option in choice.options:
        if option.inner is None and value == option.value:
            return option
        if option.inner is not None and isinstance(value, Mapping) and value.get("_name") == option.label:
            return option
    raise BadOption(f"{choice.column!r} is {value!r}, which is none of its options")


def _encoded(value: Any, number: Number) -> float:
    if not is_number(value):
        raise BadOption(f"{number.column!r} is {value!r}, which is no number")
    held = number.encode(value)
    if isinstance(number.distribution, IntDistribution) and held != int(held):
        raise BadOption(f"{number.column!r} is {value!r}, which is no whole number")
    if not number.distribution.low <= held <= number.distribution.high:
        raise BadOption(f"{number.column!r} is {value!r}, which lies outside the search space")
    return held
