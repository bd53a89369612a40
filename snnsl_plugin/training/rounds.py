"""When masks are updated by a rule that rewinds: between rounds of one length."""

from __future__ import annotations

from dataclasses import dataclass

from snnsl_plugin.training.timetable import Timetable


@dataclass(frozen=True)
class Rounds(Timetable):
    """Updates that part the steps from `start` to `until` evenly; a last round follows `until`.

    There are as many as `every` goes into that time, to the nearest, so that no short round is left over where it does
    not go evenly. Attributes are those of `Timetable`; at `start` there is what rounds are rewound to.
    """

    @property
    def times(self) -> int:
        """Updates after `start`, at least 1."""
        return max(1, round((self.until - self.start) / self.every))

    def due(self, step: int) -> bool:
        """Whether there is an update at the end of a step."""
        return self.last_due(step) == step

    def progress(self, step: int) -> float:
        """Rounds that have ended, of those before the last, in [0, 1]."""
        return self._ended(step) / self.times

    def last_due(self, step: int) -> int | None:
        """The last update at or before a step, `start` too; None where there was none."""
        return None if step < self.start else self._end(self._ended(step))

    def position(self, step: int, total_steps: int | None) -> float:
        """The share of its round that a network has been trained for, rewinds taken back, in [0, 1].

        A round counts from the beginning of the training to `start`, and on from there.

        Args:
            step: optimizer steps taken.
            total_steps: where the last round ends; that is as long as the others where None.
        """
        ended = self._ended(step)
        began = min(step, self._end(ended))
        last = self.until + (self.until - self.start) // self.times if total_steps is None else total_steps
        ends = last if ended == self.times else self._end(ended + 1)
        if step < self.start:
            return step / ends
        return min(1.0, (self.start + step - began) / (self.start + ends - began))

    def _ended(self, step: int) -> int:
        passed = step - self.start
        # the largest i with span i // times <= passed
        return 0 if passed < 0 else min(self.times, ((passed + 1) * self.times - 1) // (self.until - self.start))

    def _end(self, number: int) -> int:
        return self.start + (self.until - self.start) * number // self.times
