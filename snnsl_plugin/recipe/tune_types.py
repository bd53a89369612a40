"""The block `tune`: which keys of the recipe are searched, for what, within which limits."""

from __future__ import annotations

import json
import re
from math import remainder
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from snnsl_plugin.errors import UnknownName
from snnsl_plugin.recipe.durations import Duration
from snnsl_plugin.recipe.options import Block, problem, union

#: What a trial is measured by -> whether more of it is better. All of them without the test set.
MEASURES = {"accuracy": True, "connections": False, "synops": False, "energy": False, "wall_time": False}

Measure: TypeAlias = Literal["accuracy", "connections", "synops", "energy", "wall_time"]
Sampler: TypeAlias = Literal["tpe", "nsgaii", "gp", "qmc", "random", "cmaes"]


class Parameter(Block):
    """One key of the recipe that is searched."""

    if TYPE_CHECKING:
        name: str
    when: dict[str, Any] = {}  # noqa: RUF012  (pydantic copies it)
    """Values that other searched keys must have for this one to matter, e.g. `{pruning.criterion: spike_saliency}`."""


class Float(Parameter):
    """A number between two ends, both of which can be met."""

    name: Literal["float"]
    low: float
    high: float
    log: bool = False
    """Whether it is drawn by its logarithm."""
    step: Annotated[float, Field(gt=0)] | None = None
    """Only `low`, `low + step`, `low + 2 step`, ...; any number where omitted."""

    @model_validator(mode="after")
    def _possible(self) -> Float:
        _check_ends(self.low, self.high, self.log, self.step is not None)
        if self.step and abs(remainder(self.high - self.low, self.step)) > 1e-6 * self.step:
            raise problem(f"is met by no step of {self.step:g} from {self.low:g}: change it, or the step", "high")
        return self


class Int(Parameter):
    """A whole number between two ends, both of which can be met."""

    name: Literal["int"]
    low: int
    high: int
    log: bool = False
    """Whether it is drawn by its logarithm."""
    step: Annotated[int, Field(ge=1)] = 1
    """Only `low`, `low + step`, `low + 2 step`, ..."""

    @model_validator(mode="after")
    def _possible(self) -> Int:
        _check_ends(self.low, self.high, self.log, self.step != 1)
        if (self.high - self.low) % self.step:
            raise problem(f"is met by no step of {self.step} from {self.low}: change it, or the step", "high")
        return self


class Pick(Parameter):
    """One of several values: numbers, words, or whole blocks."""

    name: Literal["choice"]
    values: Annotated[list[Any], Field(min_length=1)]

    @model_validator(mode="after")
    def _differ(self) -> Pick:
        written = [json.dumps(value, sort_keys=True) for value in self.values]
        if len(set(written)) != len(written):
            raise problem("names a value twice: keep one", "values")
        return self


class Limit(Block):
    """What a trial must keep to; a trial beyond it is no point of the front."""

    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _one(self) -> Limit:
        if (self.at_least is None) == (self.at_most is None):
            raise problem("needs either at_least or at_most")
        return self


class Stop(Block):
    """When a trial is stopped before its last epoch."""

    rungs: Annotated[list[Duration], Field(min_length=1)]
    """When trials are looked at, e.g. `[25%, 50%]` or `[3ep]`; a share at the end of the epoch in which it falls."""
    floor: Annotated[float, Field(ge=0, le=1)] | None = None
    """Validation accuracy that a trial must have at each of them."""
    dominated: bool = True
    """Whether one goes that another trial beats, at the same time, in every objective, even as sparse as it will be."""
    warmup: Annotated[int, Field(ge=1)] = 4
    """Trials that must have come that far before one goes for being beaten."""

    @model_validator(mode="after")
    def _at_epochs(self) -> Stop:
        if any(rung.endswith("it") for rung in self.rungs):
            raise problem("are looked at after whole epochs: write 3ep or 25%, not a number of steps", "rungs")
        return self


def _check_ends(low: float, high: float, log: bool, stepped: bool) -> None:
    if not low < high:
        raise problem(f"is an empty interval: low ({low:g}) must be below high ({high:g})", "low")
    if log and low <= 0:
        raise problem(f"is drawn by its logarithm, so low must be above 0, not {low:g}", "low")
    if log and stepped:
        raise problem("cannot be drawn by its logarithm and in steps: leave one out", "step")


if TYPE_CHECKING:
    AnyParameter: TypeAlias = Float | Int | Pick
else:
    AnyParameter = Annotated[
        union("kind of parameter", [Float, Int, Pick]),
        BeforeValidator(lambda value: {"name": "choice", "values": value} if isinstance(value, list) else value),
    ]


class Tune(Block):
    """What `snnsl tune` searches: recipes that differ from this one in the keys of `space`."""

    space: Annotated[dict[str, AnyParameter], Field(min_length=1)]
    """By dotted key of the recipe: a list of values, or a block `{name: float, low: 0.02, high: 0.2, log: true}`."""
    objectives: Annotated[list[Measure], Field(min_length=1)] = ["accuracy", "connections", "synops"]  # noqa: RUF012
    """What is made better: `accuracy` (validation) grows; `connections`, `synops`, `energy`, `wall_time` fall."""
    constraints: dict[str, Limit] = {}  # noqa: RUF012
    """Limits by measure, e.g. `{accuracy: {at_least: 0.9}}`."""
    sampler: Sampler = "tpe"
    """Who proposes: one of Optuna's samplers."""
    trials: Annotated[int, Field(ge=1)] | None = 20
    """Trials of the whole study, on all machines together; null for as many as `hours` allow."""
    hours: Annotated[float, Field(gt=0)] | None = None
    """No trial begins later than this after the command did."""
    stop: Stop | None = None
    """Early stopping; every trial is trained to its end where omitted."""
    study: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Its name in the database; that of the recipe where omitted."""
    storage: str | None = None
    """URL of the database, sqlite or PostgreSQL; a sqlite file in the study's folder where omitted."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Trials at the same time on this machine, each on `threads` threads."""
    heartbeat: Annotated[int, Field(ge=1)] = 30
    """Seconds between two signs of life; a trial without one for four times as long is given to another worker."""

    @model_validator(mode="after")
    def _possible(self) -> Tune:
        if len(set(self.objectives)) != len(self.objectives):
            raise problem("names an objective twice: keep one", "objectives")
        if self.trials is None and self.hours is None:
            raise problem("needs an end: trials, hours, or both", "trials")
        if self.sampler == "cmaes" and len(self.objectives) > 1:
            raise problem("cmaes knows one objective: keep one, or choose another sampler", "sampler")
        if self.storage and re.search(r"://[^/@:]*:[^@]*@|[?&](ssl)?password=", self.storage):
            raise problem("must not hold a password, which would be in every copy: use --storage", "storage")
        if self.sampler == "qmc" and any(parameter.when for parameter in self.space.values()):
            raise problem("qmc knows no conditions: leave out `when`, or choose another sampler", "sampler")
        for name in self.constraints:
            if name not in MEASURES:
                raise problem(str(UnknownName("measure", name, MEASURES)), "constraints")
        for key, parameter in self.space.items():
            for other, value in parameter.when.items():
                self._check_condition(key, other, value)
        return self

    def _check_condition(self, key: str, other: str, value: Any) -> None:
        known = self.space.get(other)
        if not isinstance(known, Pick):
            raise problem(f"{key} is searched when {other} has a value, and {other} is no choice of the space", "space")
        if value not in known.values:
            raise problem(f"{key} is searched when {other} is {value!r}, which is none of its values", "space")
        if known.when or other == key:
            raise problem(f"{key} depends on {other}, which depends on a key itself: name that one instead", "space")
