"""A ramp between two values, shaped by a function from [0, 1] to [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable

from snnsl_plugin.core.layer import Schedule
from snnsl_plugin.errors import BadOption


def ramp(first: float, last: float, shape: Callable[[float], float]) -> Schedule:
    """A schedule that is exactly `first` at 0 and exactly `last` at 1.

    Args:
        first: value at the start.
        last: value at the end.
        shape: 0 at 0 and 1 at 1.

    Raises:
        BadOption: an end that is not finite; on calling, `done` outside [0, 1].
    """
    for word, value in (("first", first), ("last", last)):
        if not math.isfinite(value):
            raise BadOption(f"{word}={value} is not a finite number: a schedule needs two finite ends")

    def schedule(done: float) -> float:
        if not 0.0 <= done <= 1.0:
            raise BadOption(f"done={done} is outside [0, 1]: pass the fraction of the schedule that has passed")
        # The ends are returned as given: first + (last - first) need not be last in floating point.
        if done in (0.0, 1.0):
            return last if done else first
        return first + (last - first) * shape(done)

    return schedule
