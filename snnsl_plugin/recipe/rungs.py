"""The epochs after which trials are looked at."""

from __future__ import annotations

from snnsl_plugin.errors import BadOption
from snnsl_plugin.recipe.tune_types import Stop
from snnsl_plugin.training.duration import steps

#: Steps in which an epoch is cut here: how many it really has makes no difference to a share of the training.
_FINE = 1000


def epochs_of(stop: Stop, epochs: int) -> list[int]:
    """The epochs after which trials are looked at, in ascending order, the last one left out.

    A share falls at the end of the epoch in which it lies.

    Raises:
        BadOption: no rung lies before the last epoch.

    Example:
        >>> epochs_of(Stop(rungs=["25%", "2ep"]), epochs=12)
        [2, 3]
    """
    at = {-(-steps(rung, total_steps=epochs * _FINE, steps_per_epoch=_FINE) // _FINE) for rung in stop.rungs}
    found = sorted(epoch for epoch in at if 0 < epoch < epochs)
    if not found:
        raise BadOption(
            f"none of {', '.join(stop.rungs)} lies before the last of {epochs} epochs: name an earlier one, e.g. 25%"
        )
    return found
