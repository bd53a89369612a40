"""How a run keeps to a budget: counted after every epoch, an epoch within it selected, and told in the result."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from snnsl_plugin.training.budget import Budget
from snnsl_plugin.training.events import Epoch
from snnsl_plugin.training.loop import Training
from snnsl_plugin.training.pruner import DynamicPruner

_log = logging.getLogger(__name__)


def budget_of(pruner: object) -> Budget | None:
    """The budget that a pruner is to meet, where it has one."""
    return pruner.budget if isinstance(pruner, DynamicPruner) else None


def counting(how: Training, pruner: object, counted: Collection[int]) -> Training:
    """How to train: where a budget is to be met, operations and connections are counted after every epoch."""
    return replace(how, counted=range(1, how.epochs + 1) if budget_of(pruner) else counted)


def missed_by(pruner: object, event: Epoch) -> float:
    """By which share of the budget an epoch misses it; 0 within the tolerance, and where there is no budget."""
    budget = budget_of(pruner)
    if budget is None:
        return 0.0
    counts = (event.connections, event.synops_per_sample, event.energy_pj_per_sample)
    told = dict(zip(("connections", "synops", "energy"), counts, strict=True))
    return budget.missed(float(told[budget.name] or 0.0))


def masks_of(pruner: object, missed: float) -> dict[str, Any]:
    """What is kept of a selected epoch besides its weights: masks change between epochs where a budget is to be met."""
    if not isinstance(pruner, DynamicPruner) or not pruner.budget:
        return {}
    return {"missed": missed, "masks": {name: mask.clone() for name, mask in pruner.masks.items()}}


def budget_told(pruner: object, result: dict[str, Any], where: Path) -> dict[str, Any]:
    """The entry of `result.json`: what was asked for and what was measured, with a warning where they are apart.

    Args:
        pruner: of the run.
        result: connections of the selected epoch, and its operations on the validation part.
        where: the run folder, for the warning.

    Returns:
        An entry `budget`, or nothing where there is none.
    """
    budget = budget_of(pruner)
    if budget is None:
        return {}
    measured = {
        "connections": result["density"]["connections"]["live"],
        "synops": result["validation"]["synops_per_sample"],
        "energy": result["validation"]["energy_pj_per_sample"].get("total"),
    }[budget.name]
    met = budget.missed(measured) == 0.0
    if not met:
        _log.warning(
            "%s: the budget of %s is not met: %s were measured at density %.4g, and no later epoch came nearer;"
            " ask for what this network can cost, or let the ramp end earlier (pruning.until)",
            where, budget, f"{measured:,.6g}", result["density"]["weights"]["achieved"],
        )  # fmt: skip
    return {"budget": {"name": budget.name, "asked": budget.amount, "measured": measured, "met": met}}
