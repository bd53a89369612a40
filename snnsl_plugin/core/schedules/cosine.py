"""Half a cosine: slow, fast, slow."""

from __future__ import annotations

import math

from snnsl_plugin.core.layer import Schedule
from snnsl_plugin.core.schedules._ramp import ramp


def cosine(*, first: float, last: float) -> Schedule:
    """Last + (first - last) (1 + cos(pi done)) / 2 (RigL's drop fraction, Evci et al. 2020, with last = 0).

    >>> round(cosine(first=0.3, last=0.0)(0.5), 12)
    0.15
    """
    return ramp(first, last, lambda done: (1.0 - math.cos(math.pi * done)) / 2.0)
