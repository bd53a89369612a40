"""A straight line."""

from __future__ import annotations

from snnsl_plugin.core.layer import Schedule
from snnsl_plugin.core.schedules._ramp import ramp


def linear(*, first: float, last: float) -> Schedule:
    """First + (last - first) done.

    >>> linear(first=1.0, last=0.5)(0.5)
    0.75
    """
    return ramp(first, last, lambda done: done)
