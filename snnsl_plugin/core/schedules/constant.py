"""A value that does not change."""

from __future__ import annotations

from snnsl_plugin.core.layer import Schedule
from snnsl_plugin.core.schedules._ramp import ramp


def constant(*, value: float) -> Schedule:
    """Always `value`: the density of SET (Mocanu et al. 2018) and RigL (Evci et al. 2020).

    >>> constant(value=0.1)(0.7)
    0.1
    """
    return ramp(value, value, lambda done: done)
