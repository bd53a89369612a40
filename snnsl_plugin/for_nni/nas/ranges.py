"""Refuses what is no number in its range at the door: NNI and torch would stumble over it later and name no option."""

from __future__ import annotations

from typing import Any

from snnsl_plugin.errors import BadOption


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, and not a truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_real(value: Any) -> bool:
    """Whether it is a number, and not a truth value; NaN is one, and lies in no range."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def must(in_range: bool, option: str, value: Any, wanted: str) -> None:
    """Refuses an option that is not in its range.

    Raises:
        BadOption: with the value and what is wanted.

    >>> must(is_whole(1.5), "epochs", 1.5, "it is a whole number of at least 1")
    Traceback (most recent call last):
    snnsl_plugin.errors.BadOption: epochs is 1.5; it is a whole number of at least 1
    """
    if not in_range:
        raise BadOption(f"{option} is {value!r}; {wanted}")
