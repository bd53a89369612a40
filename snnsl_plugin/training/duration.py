"""Durations as recipes write them: `100it` (steps), `2ep` (epochs), `80%` (of all steps)."""

from __future__ import annotations

import re

from snnsl_plugin.errors import BadOption

PATTERN = r"^(\d+(it|ep)|(100(\.0*)?|\d{1,2}(\.\d+)?)%)$"


def steps(duration: str, *, total_steps: int | None = None, steps_per_epoch: int | None = None) -> int:
    """A duration in optimizer steps.

    Args:
        duration: e.g. `100it`, `2ep` or `80%`.
        total_steps: what percentages refer to.
        steps_per_epoch: what epochs refer to.

    Raises:
        BadOption: another form, or a unit whose reference was not given.

    >>> steps("80%", total_steps=50)
    40
    """
    if not isinstance(duration, str) or not re.match(PATTERN, duration):
        raise BadOption(f"{duration!r} is not a duration: write steps as '100it', epochs as '2ep', a share as '80%'")
    if duration.endswith("it"):
        return int(duration[:-2])
    if duration.endswith("ep"):
        if steps_per_epoch is None:
            raise BadOption(f"{duration!r} counts epochs: pass steps_per_epoch, or write it in steps, e.g. '100it'")
        return int(duration[:-2]) * steps_per_epoch
    if total_steps is None:
        raise BadOption(f"{duration!r} is a share of all steps: pass total_steps, or write it in steps, e.g. '100it'")
    return round(float(duration[:-1]) / 100 * total_steps)
