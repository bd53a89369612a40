"""Whether a trial is stopped at a rung: below its accuracy floor, or beaten in every objective.

Optuna's `report` takes one number a step, so its pruners know single-objective studies only. A trial here is compared
with all that came as far: they as they are there, it as sparse as its schedule says that it will be. Compared as it is,
one that prunes late would lose to any that prunes early, whatever both become.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from snnsl_plugin.recipe.options import Choice, build
from snnsl_plugin.recipe.tune_types import Limit, Stop
from snnsl_plugin.tuning.measures import dominates, violations

#: Costs that fall with the connections.
_SHRINKING = ("connections", "synops", "energy")


def verdict(
    stop: Stop,
    own: Mapping[str, float],
    others: Sequence[Mapping[str, float]],
    objectives: list[str],
    limits: Mapping[str, Limit],
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
        limits: those of the study: another that is beyond one beats nobody.
        left: the share of its connections at the rung that it will have in the end, in [0, 1].
    """
    if stop.floor is not None and own["accuracy"] < stop.floor:
        return f"its validation accuracy {own['accuracy']:.4g} is below the floor {stop.floor:g}"
    if not stop.dominated or len(others) < stop.warmup:
        return None
    becomes = {name: value * left if name in _SHRINKING else value for name, value in own.items()}
    within = [other for other in others if max(violations(limits, other).values(), default=0.0) <= 0]
    beaten = sum(dominates(other, becomes, objectives) for other in within)
    if beaten > (0 if len(objectives) > 1 else len(others) / 2):
        return f"even as sparse as it is to become it is beaten by {beaten} of the {len(others)} that came this far"
    return None


def left_over(pruning: object, density: float) -> float:
    """The share of its connections that a trial will still have in the end, in [0, 1]; 1 where no plan says so.

    Args:
        pruning: the block of its recipe.
        density: kept / all weights now, in (0, 1].
    """
    if getattr(pruning, "budget", None):  # its density is a first guess, and moves until the budget is met
        return 1.0
    last = getattr(pruning, "density", None)
    if isinstance(last, Choice):
        last = build("schedules", last)(1.0)
    return min(1.0, last / density) if isinstance(last, int | float) and density > 0 else 1.0
