"""When masks are updated."""

from __future__ import annotations

from dataclasses import dataclass

from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.duration import steps


@dataclass(frozen=True)
class Timetable:
    """Updates from `start` to `until`, every so many steps, and always at `until` itself. Steps count from 1.

    Attributes:
        start: step of the first update; 0 is before training.
        until: step of the last update.
        every: steps between two updates.
    """

    start: int
    until: int
    every: int

    @classmethod
    def of(
        cls, *, start: str, until: str, every: str, total_steps: int | None = None, steps_per_epoch: int | None = None
    ) -> Timetable:
        """A timetable from durations.

        Args:
            start: e.g. `0it`.
            until: e.g. `80%`.
            every: e.g. `100it`.
            total_steps: what percentages refer to.
            steps_per_epoch: what epochs refer to.

        Raises:
            BadOption: an order that cannot be, an end after the end of the training, a duration without its reference.
        """
        first, last, between = (
            steps(each, total_steps=total_steps, steps_per_epoch=steps_per_epoch) for each in (start, until, every)
        )
        if between < 1:
            raise BadOption(
                f"every={every!r} must be at least one step: write it in steps, e.g. '1it' (a small share of a short "
                "training is none)"
            )
        if last <= first:
            raise BadOption(f"until={until!r} (step {last}) must come after start={start!r} (step {first})")
        if total_steps is not None and last > total_steps:
            raise BadOption(f"until={until!r} is step {last}, after the end of the training at step {total_steps}")
        return cls(first, last, between)

    def due(self, step: int) -> bool:
        """Whether there is an update at the end of a step."""
        return self.start <= step <= self.until and ((step - self.start) % self.every == 0 or step == self.until)

    def progress(self, step: int) -> float:
        """The fraction of the schedule that has passed, in [0, 1]."""
        return min(1.0, max(0.0, (step - self.start) / (self.until - self.start)))

    def last_due(self, step: int) -> int | None:
        """The last update at or before a step; None where there was none."""
        if step < self.start:
            return None
        if step >= self.until:
            return self.until
        return self.start + (step - self.start) // self.every * self.every
