"""Finished trials, as NNI exports them and as a study holds them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from optuna.trial import FrozenTrial

from snnsl_plugin.errors import BadOption


class Finished(NamedTuple):
    """A trial with a result: what it was given, what came out, and NNI's name for it where that is known."""

    parameters: Any
    value: float
    job: str | None

    @classmethod
    def of(cls, trial: FrozenTrial) -> Finished:
        """A finished trial of a study."""
        return cls(trial.user_attrs.get("parameters"), float(trial.values[0]), trial.user_attrs.get("nni_trial"))

    @classmethod
    def read(cls, record: Any) -> Finished:
        """A record that NNI exports: `{"parameter": {...}, "value": ..., "trialJobId": ...}`, or its JSON text.

        Raises:
            BadOption: it is something else, or the result is not a finite number.
        """
        if isinstance(record, str):
            try:
                record = json.loads(record)
            except ValueError as error:
                raise BadOption(f"it is not JSON: {error}") from error
        if not isinstance(record, Mapping):
            raise BadOption('it is not {"parameter": {...}, "value": ...}')
        if "value" not in record:
            raise BadOption('it has no "value"')
        value = record["value"]
        own = value.get("parameters") if isinstance(value, Mapping) else None
        reward = reward_of(value)
        if not math.isfinite(reward):
            raise BadOption("its result is not finite")
        if own is None and "parameter" not in record:
            raise BadOption('it has no "parameter"')
        return cls(record["parameter"] if own is None else own, reward, record.get("trialJobId"))

    def is_same(self, other: Finished) -> bool:
        """Whether both are one trial: by NNI's name where both have one, else by what they hold."""
        if self.job and other.job:
            return self.job == other.job
        return (self.parameters, self.value) == (other.parameters, other.value)


def reward_of(value: Any) -> float:
    """The number that NNI goes by in a final result.

    Raises:
        BadOption: there is none.
    """
    number = value.get("default") if isinstance(value, Mapping) else value
    if isinstance(number, int | float):
        return float(number)
    raise BadOption(
        f'a trial reported {value!r} as its final result; report a number, or a dict with one under "default"'
    )
