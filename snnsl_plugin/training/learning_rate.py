"""How the learning rate goes over a training, as a factor on where it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from snnsl_plugin.core.layer import Schedule
from snnsl_plugin.core.schedules.constant import constant
from snnsl_plugin.core.schedules.cosine import cosine
from snnsl_plugin.core.schedules.linear import linear
from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.duration import steps

LEARNING_RATES = {"constant": constant(value=1.0), "cosine": cosine(first=1.0, last=0.0)}
Course = Literal["constant", "linear", "cosine"]
_COURSES: dict[str, Schedule] = LEARNING_RATES | {"linear": linear(first=1.0, last=0.0)}


@dataclass(frozen=True)
class Restart:
    """A learning rate that starts again, e.g. where the ramp of a density ends (Loshchilov and Hutter 2017).

    Attributes:
        at: when, a duration after the start and before the end, e.g. `70%`.
        before: the course from the start to there: `cosine` or `linear` to 0, or `constant`.
        after: the course from there to the end.
        to: where it starts again, as a share of the first rate, > 0.
    """

    at: str
    before: Course = "cosine"
    after: Course = "cosine"
    to: float = 1.0

    def schedule(self, *, total_steps: int, steps_per_epoch: int) -> Schedule:
        """From the share of the training that has passed to the factor.

        Raises:
            BadOption: a moment that is not within the training, an unknown course, a rate that is not above 0.
        """
        moment = steps(self.at, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
        if not 0 < moment < total_steps:
            raise BadOption(
                f"the learning rate is to restart at {self.at!r}, step {moment} of {total_steps}: choose one within"
            )
        for word, course in (("before", self.before), ("after", self.after)):
            if course not in _COURSES:
                raise BadOption(f"{word}={course!r}: choose one of {', '.join(_COURSES)}")
        if not 0 < self.to < float("inf"):
            raise BadOption(f"to={self.to!r}: the learning rate restarts at a share above 0 of the first one")
        share, before, after = moment / total_steps, _COURSES[self.before], _COURSES[self.after]

        def factor(done: float) -> float:
            if done < share:
                return before(done / share)
            return self.to * after(min(1.0, (done - share) / (1.0 - share)))

        return factor


def learning_rate(chosen: str | Restart, *, total_steps: int, steps_per_epoch: int) -> Schedule:
    """The factor on the learning rate over the share of the training that has passed.

    Args:
        chosen: a name of `LEARNING_RATES`, or a restart.
        total_steps: of the training.
        steps_per_epoch: what durations in epochs refer to.

    Raises:
        BadOption: an unknown name; see `Restart`.
    """
    if isinstance(chosen, Restart):
        return chosen.schedule(total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    if chosen not in LEARNING_RATES:
        raise BadOption(f"lr_schedule={chosen!r}: choose one of {', '.join(LEARNING_RATES)}, or a Restart")
    return LEARNING_RATES[chosen]
