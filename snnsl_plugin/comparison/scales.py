"""Where numbers lie on an axis: its ends and its ticks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from snnsl_plugin.comparison.wording import Row, measure

_MARGIN = 0.05
# A pruner this many times as far below the best as the median is gets an arrow at the foot: one net at chance level
# would else press all others into one line.
_FAR_BELOW, _LEAST_DEPTH = 4.0, 0.02


@dataclass(frozen=True)
class Scale:
    """An axis.

    Attributes:
        low: value at its start.
        high: value at its end, above `low`.
        log: whether it is logarithmic; then both are positive.
        only: the one value there is, and the only tick.
    """

    low: float
    high: float
    log: bool = False
    only: float | None = None

    def share(self, value: float) -> float:
        """Where a value lies: 0 at the start, 1 at the end, values outside moved to the nearer end."""
        low, high, value = (_log(each) if self.log else each for each in (self.low, self.high, value))
        return min(max((value - low) / (high - low), 0.0), 1.0)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values inside, at most `most` and two or more wherever the ends allow it."""
        if self.only is not None:
            return [self.only]
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for digits in ((1, 2, 5), (1, 3), (1,)):
                found = [digit * 10.0**power for power in powers for digit in digits]
                found = [value for value in found if self.low <= value <= self.high]
                if 3 <= len(found) <= most:
                    return found
        return _linear_ticks(self.low, self.high, most)


def around(values: Sequence[float], *, log: bool = False) -> Scale:
    """An axis that holds all values with a margin; `log` is kept only where all are positive.

    Values within 1 % of each other count as one, which stands alone in the middle.
    """
    low, high = min(values), max(values)
    if low > 0 and high <= 1.01 * low:
        return Scale(low / 2, high * 2, log=True, only=statistics.fmean(values))
    if log and low > 0:
        margin = max(_MARGIN * math.log(high / low), 0.05)
        return Scale(low * math.exp(-margin), high * math.exp(margin), log=True)
    margin = _MARGIN * (high - low) or 0.05 * abs(high) or 1.0
    return Scale(low - margin, high + margin)


def of_accuracy(rows: Sequence[Row]) -> Scale:
    """An axis within [0, 1] for the accuracies of rows with their intervals, without what lies far below the others.

    Args:
        rows: those with an accuracy count; one or more.
    """
    scored = [row for row in rows if measure(row, "accuracy") is not None]
    means = [measure(row, "accuracy") or 0.0 for row in scored]
    best = max(means)
    depth = max(_FAR_BELOW * (best - statistics.median(means)), _LEAST_DEPTH)
    near = [row for row, mean in zip(scored, means, strict=True) if mean >= best - depth]
    ends = [
        end for row in near for part in ("mean", "low", "high") if (end := measure(row, "accuracy", part)) is not None
    ]
    # A wide interval of three seeds is cut, too, before it presses the means together.
    low, high = max(min(ends), best - 1.5 * depth), min(max(ends), best + depth)
    margin = _MARGIN * (high - low) or 0.01
    return Scale(max(low - margin, 0.0), min(high + margin, 1.0))


def _log(value: float) -> float:
    return math.log(max(value, 1e-300))


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    raw = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(digit * power for digit in (1, 2, 2.5, 5, 10) if digit * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + number) * step, 12) for number in range(count)]
