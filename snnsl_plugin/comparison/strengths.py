"""How much each pruner has to keep in its own measure, so that all of a table end at the same budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch

from snnsl_plugin.anatomy import weight_layers, weight_name
from snnsl_plugin.errors import SnnslError
from snnsl_plugin.metrics.paths import live_paths
from snnsl_plugin.recipe.assemble import Data, assemble
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.training.loop import batches

#: A plan within this share of its budget is kept as it is; so is a search within the second.
PLAN_TOLERANCE, SEARCH_TOLERANCE = 0.005, 0.05
#: Trainings that a search may take.
MOST_RUNS = 6
_LOWEST, _HIGHEST = 1e-4, 0.9999
#: Of a miss, in logarithms: one where next to nothing is left says little about how far to go back.
_TALLEST = 3.0
#: What stands for a share of zero, of which there is no logarithm.
_NOTHING = 1e-9
#: Halvings of the interval: channels come in whole numbers, so more would find nothing new.
_TRIES = 24


@dataclass
class Strength:
    """How much a pruner is told to keep.

    Attributes:
        key: of its pruning block.
        value: what is written there; None leaves the block as it is.
        found_by: `plan`, where the pruner says beforehand what it will leave; `search`, where trainings had to tell;
            `given`, where it has nothing to set.
        missed: whether what it leaves is further from the budget than the tolerance.
        runs: trainings that the search took.
    """

    key: str | None
    value: float | None
    found_by: Literal["plan", "search", "given"]
    missed: bool = False
    runs: int = 0


@dataclass
class Search:
    """Looks for the strength at which a measured share meets a budget: a secant in logarithms, blind to accuracy.

    Ask for `next_value()`, train with it, `tell()` what came out; until there is none.

    Args:
        budget: the share wanted, in (0, 1).
        first: the value to begin with, > 0.
        bounded: whether values stay in (0, 1), as a share kept does.
    """

    budget: float
    first: float
    bounded: bool = True
    seen: dict[float, float] = field(default_factory=dict)

    def next_value(self) -> float | None:
        """The value to try; None where the search is over."""
        if not self.seen:
            return self.first
        if self.error() <= SEARCH_TOLERANCE or len(self.seen) >= MOST_RUNS:
            return None
        value = self._bounded(self._secant())
        return None if value in self.seen else value

    def tell(self, value: float, share: float) -> None:
        """Takes what a training with a value left, in [0, 1]; 0 for one that failed, as where nothing was left."""
        self.seen[value] = max(share, _NOTHING)

    @property
    def best(self) -> float:
        """The value whose outcome was nearest."""
        return min(self.seen, key=self._miss)

    def error(self) -> float:
        """How far the best is from the budget, as a share of it."""
        return abs(self.seen[self.best] / self.budget - 1.0)

    def _miss(self, value: float) -> float:
        return abs(self._height(value))

    def _height(self, value: float) -> float:
        return math.log(self.seen[value] / self.budget)

    def _secant(self) -> float:
        latest = list(self.seen)[::-1]  # of equals the latest counts, or a flat course is never left
        nearest = sorted(latest, key=self._miss)
        x, y = math.log(nearest[0]), self._height(nearest[0])
        beyond = next((each for each in nearest if self._height(each) * y < 0), None)
        if beyond is None:
            return self._further(nearest)
        if self.seen[beyond] == _NOTHING:  # which says nothing about how far to go back
            halfway, further = math.sqrt(nearest[0] * beyond), self._further(nearest)
            return min(halfway, further) if nearest[0] < beyond else max(halfway, further)
        # Between two values that meet the budget from both sides, however bent the course is outside of them.
        part = y / (y - max(-_TALLEST, min(_TALLEST, self._height(beyond))))
        return math.exp(x + (math.log(beyond) - x) * max(0.1, min(0.9, part)))

    def _further(self, nearest: list[float]) -> float:
        # On from the nearest value by the slope between it and the second nearest, or by what is expected of one.
        x, y = math.log(nearest[0]), self._height(nearest[0])
        slope = 0.0
        if len(nearest) > 1 and self.seen[nearest[1]] != _NOTHING:
            slope = (self._height(nearest[1]) - y) / (math.log(nearest[1]) - x)
        elif self.bounded:  # a share kept grows with what is left
            slope = 1.0
        if slope == 0.0:  # a threshold the other way round: the second try tells
            return math.exp(x + math.copysign(0.5, -y if self.bounded else y))
        longest = 1.5 if self.bounded else 1.0
        return math.exp(x - max(-longest, min(longest, y / slope)))

    def _bounded(self, value: float) -> float:
        return round(min(_HIGHEST, max(_LOWEST, value)), 6) if self.bounded else float(f"{value:.6g}")


def planned_share(recipe: Recipe, parts: Data) -> float | None:
    """The share of weights that a run will leave, known before it trains, in (0, 1]; None where it is an outcome.

    Where whole channels go, it is the share of weights on a live path: masks leave the inputs of a channel that is gone
    in the next layer, and a cut does not, so only what can still pass a spike compares.

    Raises:
        UsageError: the recipe does not go with this data.
    """
    made = assemble(recipe, parts)
    pruner = made.pruner
    if pruner is None:
        return 1.0
    counts = pruner.planned_counts()
    if not getattr(recipe.pruning, "structured", False):
        return pruner.target
    if not counts:
        return None
    total = sum(made.sizes.values())
    if recipe.pruning.type.startswith("torch_pruning."):
        return sum((made.sizes | counts).values()) / total
    masks = {}
    for name, layer in weight_layers(made.model).items():
        shape = layer.weight.shape
        each = layer.weight.numel() // shape[0]
        rows = torch.arange(shape[0]) < counts.get(name, layer.weight.numel()) / each
        masks[weight_name(name)] = rows.view(-1, *[1] * (len(shape) - 1)).expand(shape).to(layer.weight.device)
    example = next(batches(parts.validation, made.how.device))[0][:1, :1]
    return live_paths(made.model, example, masks).connections / total


def planned(key: str, budget: float, share: Callable[[float], float | None]) -> Strength | None:
    """The value at which the planned share is nearest to a budget; None where nobody can plan it.

    Args:
        key: of the pruning block.
        budget: the share wanted, in (0, 1).
        share: the planned share of a value; raises where no channel is left.

    Raises:
        SnnslError: what `share` raised, where it has no answer for any value.
    """
    low, high, value = _LOWEST, _HIGHEST, budget
    tried: dict[float, float] = {}
    refused: SnnslError | None = None
    for _ in range(_TRIES):
        try:
            reached = share(value)
        except SnnslError as error:  # so little that no channel is left
            refused, low = error, value
        else:
            if reached is None:
                return None
            tried[value] = reached
            if abs(reached / budget - 1.0) <= PLAN_TOLERANCE:
                break
            low, high = (value, high) if reached < budget else (low, value)
        following = round((low + high) / 2, 6)
        if following == value:
            break
        value = following
    if not tried and refused:
        raise refused
    best = min(tried, key=lambda each: (abs(tried[each] - budget), each))
    return Strength(key, best, "plan", missed=abs(tried[best] / budget - 1.0) > SEARCH_TOLERANCE)
