"""Whether a trial is stopped at a rung: below its accuracy floor, or beaten in every objective.

Optuna's `report` takes one number a step, so its pruners know single-objective studies only. A trial here is compared
with all that came as far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from snnsl_plugin.errors import BadOption
from snnsl_plugin.recipe.tune_types import Stop
from snnsl_plugin.training.duration import steps
from snnsl_plugin.tuning.measures import dominates

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
            f"tune.stop.rungs: none of {', '.join(stop.rungs)} lies before the last of {epochs} epochs: name an "
            "earlier one, e.g. 25%"
        )
    return found


def verdict(
    stop: Stop,
    own: Mapping[str, float],
    others: Sequence[Mapping[str, float]],
    objectives: list[str],
) -> str | None:
    """Why a trial is stopped, in words; None where it goes on.

    Args:
        stop: on which terms.
        own: its measures at the rung.
        others: those of the other trials at the same rung.
        objectives: names of measures.
    """
    if stop.floor is not None and own["accuracy"] < stop.floor:
        return f"its validation accuracy {own['accuracy']:.4g} is below the floor {stop.floor:g}"
    beaten = sum(dominates(other, own, objectives) for other in others)
    if stop.dominated and len(others) >= stop.warmup and beaten:
        return f"{beaten} of {len(others)} trials were at least as good there in every objective and better in one"
    return None
