"""The threshold schedule of STDS."""

from __future__ import annotations

import math

from snnsl_plugin.core.layer import Schedule
from snnsl_plugin.core.schedules._ramp import ramp


def sine(*, first: float = 0.0, last: float) -> Schedule:
    """First + (last - first) (1 + sin(pi (done - 1/2))) / 2 (Chen et al. 2022, "State transition of dendritic spines").

    The same curve as `cosine`, under the name and in the form of its source, whose `first` is 0.

    >>> round(sine(last=5.0)(0.5), 12)
    2.5
    """
    return ramp(first, last, lambda done: (1.0 + math.sin(math.pi * (done - 0.5))) / 2.0)
