"""The same share goes in equal times: the density of iterative magnitude pruning."""

from __future__ import annotations

import math

from snnsl_plugin.core.layer import Schedule
from snnsl_plugin.core.schedules._ramp import ramp
from snnsl_plugin.errors import BadOption

#: of a schedule that has an end at 0, and so no ratio of its ends
_RATIO = 0.05


def geometric(*, first: float, last: float, ratio: float | None = None) -> Schedule:
    """First (last / first)^done: rounds of equal length each remove the same share of what is left (Han et al. 2015).

    With a `ratio` q between other ends, an end at 0 among them: last + (first - last) (q^done - q) / (1 - q).

    Args:
        first: value at the start.
        last: value at the end.
        ratio: q > 0, what is left in the end of what decays; where omitted last / first, or 0.05 where an end is not
            above 0.

    Raises:
        BadOption: an end or a ratio that is not finite, a ratio that is not above 0.

    >>> round(geometric(first=1.0, last=0.75**14)(1 / 14), 12)
    0.75
    """
    if ratio is None:
        ratio = last / first if first > 0 and last > 0 else _RATIO
    if not (math.isfinite(ratio) and ratio > 0) and math.isfinite(first) and math.isfinite(last):
        raise BadOption(f"ratio={ratio:g}: a geometric schedule needs a finite one above 0, e.g. 0.05")
    if ratio == 1.0:
        return ramp(first, last, lambda done: done)  # the limit
    return ramp(first, last, lambda done: (1.0 - ratio**done) / (1.0 - ratio))
