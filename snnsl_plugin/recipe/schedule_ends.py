"""What the schedules of a recipe must stay within at both ends."""

from __future__ import annotations

from collections.abc import Callable

from snnsl_plugin.recipe.options import Choice, build, problem


def ends(low: float, high: float, *, open_below: bool = False) -> Callable[[Choice], Choice]:
    """A check of both ends of a schedule; the values between lie between them.

    Args:
        low: the least value allowed.
        high: the largest.
        open_below: whether `low` itself is not allowed.
    """
    allowed = f"{'(' if open_below else '['}{low:g}, {high:g}{')' if high == float('inf') else ']'}"

    def check(chosen: Choice) -> Choice:
        schedule = build("schedules", chosen)
        for done, end in ((0.0, "first"), (1.0, "last")):
            value = schedule(done)
            if not low <= value <= high or (open_below and value == low):
                key = end if end in type(chosen).model_fields else "value"
                raise problem(f"is {value:g}; it must be in {allowed}", key)
        return chosen

    return check
