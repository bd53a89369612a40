"""What a trial is measured by, without ever reading the test set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.study import StudyDirection

from snnsl_plugin.recipe.tune_types import MEASURES, Limit

#: One sentence for every measure.
DEFINITIONS = {
    "accuracy": "validation accuracy of the epoch that validation chose, in [0, 1]",
    "connections": "weights kept on a live path from the input to the output, a count",
    "synops": "synaptic operations per sample of the validation part",
    "energy": "picojoules per sample of the validation part, a 45 nm model of arithmetic, not a measurement",
    "wall_time": "seconds of the whole training on the machine that did it",
}


def of_result(result: Mapping[str, Any]) -> dict[str, float]:
    """The measures of a finished run, from its `result.json`."""
    return {
        "accuracy": float(result["accuracy"]["validation"]),
        "connections": float(result["density"]["connections"]["live"]),
        "synops": float(result["validation"]["synops_per_sample"]),
        "energy": float(result["validation"]["energy_pj_per_sample"]["total"]),
        "wall_time": float(result["wall_s"]),
    }


def directions(objectives: list[str]) -> list[StudyDirection]:
    """Optuna's word for each objective."""
    return [StudyDirection.MAXIMIZE if MEASURES[name] else StudyDirection.MINIMIZE for name in objectives]


def violations(limits: Mapping[str, Limit], measured: Mapping[str, float]) -> dict[str, float]:
    """By how much each limit is broken; at 0 or below it is kept.

    >>> violations({"accuracy": Limit(at_least=0.5)}, {"accuracy": 0.75})
    {'accuracy': -0.25}
    """
    return {
        name: limit.at_least - measured[name] if limit.at_least is not None else measured[name] - limit.at_most  # type: ignore[operator]
        for name, limit in limits.items()
    }


def dominates(one: Mapping[str, float], other: Mapping[str, float], objectives: list[str]) -> bool:
    """Whether one is at least as good in every objective and better in one.

    >>> dominates({"accuracy": 0.9, "synops": 5}, {"accuracy": 0.9, "synops": 7}, ["accuracy", "synops"])
    True
    """
    gains = [(one[name] - other[name]) * (1 if MEASURES[name] else -1) for name in objectives]
    return min(gains) >= 0 and max(gains) > 0


def front(points: Mapping[int, Mapping[str, float]], objectives: list[str]) -> list[int]:
    """The numbers of the points that none of the others dominates, in ascending order."""
    return sorted(
        number
        for number, point in points.items()
        if not any(dominates(other, point, objectives) for other in points.values())
    )
