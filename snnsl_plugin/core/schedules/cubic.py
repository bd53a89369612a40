"""Fast at first, slow at the end: the schedule of gradual magnitude pruning."""

from __future__ import annotations

from snnsl_plugin.core.layer import Schedule
from snnsl_plugin.core.schedules._ramp import ramp


def cubic(*, first: float, last: float) -> Schedule:
    """Last + (first - last) (1 - done)^3 (Zhu and Gupta 2017, eq. 1; GraNet uses the same for density).

    >>> cubic(first=1.0, last=0.0)(0.5)
    0.125
    """
    return ramp(first, last, lambda done: 1.0 - (1.0 - done) ** 3)
