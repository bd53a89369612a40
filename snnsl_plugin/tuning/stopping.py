"""Whether a trial is stopped at a rung: below its accuracy floor, or beaten in every objective.

Optuna's `report` takes one number a step, so its pruners know single-objective studies only. A trial here is compared
with all that came as far: they as they are there, it as sparse as its schedule says that it will be. Compared as it is,
one that prunes late would lose to any that prunes early, whatever both become.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from snnsl_plugin.errors import BadOption
from snnsl_plugin.recipe.options import Choice, build
from snnsl_plugin.recipe.tune_types import Stop
from snnsl_plugin.training.duration import steps
from snnsl_plugin.tuning.measures import dominates

#: Costs that fall with the connections.
_SHRINKING = ("connections", "synops", "energy")
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
    left: float = 1.0,
) -> str | None:
    """Why a trial is stopped, in words; None where it goes on.

    With several objectives one other that is at least as good in all of them and better in one is enough; with one
    objective more than half of the others must be better, which is the median rule of Optuna and Vizier.

    Args:
        stop: on which terms.
        own: its measures at the rung.
        others: those of the other trials at the same rung.
        objectives: names of measures.
        left: the share of its connections at the rung that it will have in the end, in [0, 1].
    """
    if stop.floor is not None and own["accuracy"] < stop.floor:
        return f"its validation accuracy {own['accuracy']:.4g} is below the floor {stop.floor:g}"
    if not stop.dominated or len(others) < stop.warmup:
        return None
    becomes = {name: value * left if name in _SHRINKING else value for name, value in own.items()}
    beaten = sum(dominates(other, becomes, objectives) for other in others)
    if beaten > (0 if len(objectives) > 1 else len(others) / 2):
        return f"even as sparse as it is to become it is beaten by {beaten} of the {len(others)} that came this far"
    return None


def left_over(pruning: object, density: float) -> float:
    """The share of its connections that a trial will still have in the end, in [0, 1]; 1 where no plan says so.

    Args:
        pruning: the block of its recipe.
        density: kept / all weights now, in (0, 1].
    """
    last = getattr(pruning, "density", None)
    if isinstance(last, Choice):
        last = build("schedules", last)(1.0)
    return min(1.0, last / density) if isinstance(last, int | float) and density > 0 else 1.0
