"""Durations in recipes: checked as they are read, resolved when the length of the training is known."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from snnsl_plugin.errors import BadOption
from snnsl_plugin.recipe.options import problem
from snnsl_plugin.training.duration import steps


def _duration(text: str) -> str:
    try:
        steps(text, total_steps=1, steps_per_epoch=1)
    except BadOption as error:
        raise problem(str(error)) from error
    return text


Duration = Annotated[str, AfterValidator(_duration)]


def in_order(start: str, until: str, every: str | None = None) -> None:
    """Refuses what no training could follow, as far as it shows without knowing the training.

    Args:
        start: a duration.
        until: one that must come after it.
        every: one that must not be nothing.

    Raises:
        PydanticCustomError: with the key it is about.
    """
    if every and not _amount(every)[0]:
        raise problem(f"is {every!r}: masks need at least one step between two updates", "every")
    (first, unit), (last, other) = _amount(start), _amount(until)
    if last == 0 or (unit == other and last <= first):
        raise problem(f"is {until!r}, which is not after start ({start!r})", "until")


def _amount(duration: str) -> tuple[float, str]:
    unit = duration.lstrip("0123456789.")
    return float(duration.removesuffix(unit)), unit
