"""Moving the last density of a schedule until what is measured is what a budget allows."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from snnsl_plugin import registry
from snnsl_plugin.core.layer import Schedule
from snnsl_plugin.errors import BadOption, Disconnected
from snnsl_plugin.training.budget import Budget
from snnsl_plugin.training.rounds import Rounds
from snnsl_plugin.training.timetable import Timetable

#: After the ramp masks change again only where the budget is missed by more than this share.
_STILL = 0.005
#: What a cost grows with, as a power of the density: 1 until two updates tell another, and never out of these bounds.
_POWERS = (0.5, 4.0)
#: Two densities that are nearer than this tell nothing about the power.
_APART = 0.02


class Steering:
    """A density schedule whose end follows a budget, and a swap that rests once the ramp is over.

    At each update the cost `c` of the masks in force, at density d, is measured, and the density at which the budget B
    would be met is put at d ((B - fixed) / (c - fixed))^(1/power). The schedule keeps its shape: where it was to be
    s of the way from its first to its last density, it is s of the way to a new one, the geometric mean of the old
    last density and that estimate, weighted with the progress. Weights and rates move on after the last update, so
    there are more of them, as often as before, whenever the budget is missed by more than half a percent, with a swap
    of none. All of this is ours.

    Args:
        budget: what may be spent.
        density: the schedule as asked for; its last value is a first guess.
        when: its timetable.
        floor: the least density that leaves each layer a weight.
    """

    def __init__(self, budget: Budget, density: Schedule, when: Timetable, floor: float) -> None:
        self.budget, self._density, self._when, self._floor = budget, density, when, floor
        self.last = density(1.0)
        self._power, self._seen = 1.0, (0.0, 0.0)
        self._correcting = False
        #: what the masks in force at the last update cost; None before it
        self.spent: float | None = None

    def density(self, progress: float) -> float:
        """The density asked for; the same as the schedule's before anything was measured."""
        first, last = self._density(0.0), self._density(1.0)
        way = 1.0 if first == last else (self._density(progress) - first) / (last - first)
        return self.last if way == 1.0 else first + (self.last - first) * way

    def swap(self, wanted: Schedule) -> Schedule:
        """The share exchanged, none while corrections are made."""
        return lambda progress: 0.0 if self._correcting else wanted(progress)

    def due(self, step: int) -> bool:
        """Whether a correction is looked for after a step, once the ramp is over."""
        return step > self._when.until and (step - self._when.until) % self._when.every == 0

    def few(self, step: int) -> bool:
        """Whether a rough measurement is enough."""
        return step < self._when.until

    def look(self, spent: float, fixed: float, density: float, step: int) -> bool:
        """Takes in what the masks in force cost.

        Args:
            spent: measured now.
            fixed: how much of it no mask changes.
            density: of the masks in force.
            step: optimizer steps taken.

        Returns:
            Whether the masks are to be updated.
        """
        self.spent, self._correcting = spent, step > self._when.until
        if self._correcting and abs(spent / self.budget.amount - 1.0) <= _STILL:
            return False
        cost, wanted = max(spent - fixed, 1e-12), max(self.budget.amount - fixed, 1e-12)
        self._learn(cost, density)
        met = density * (wanted / cost) ** (1.0 / self._power)
        weight = self._when.progress(step)
        self.last = min(1.0, max(self._floor, self._density(1.0) ** (1.0 - weight) * met**weight))
        return True

    def _learn(self, cost: float, density: float) -> None:
        before, costed = self._seen
        if not before or abs(math.log(density / before)) > _APART:
            if before and costed:
                power = math.log(cost / costed) / math.log(density / before)
                self._power = min(_POWERS[1], max(_POWERS[0], power))
            self._seen = (density, cost)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """A block in which masks are made; that they leave no path is the budget's doing, and is said."""
        try:
            yield
        except Disconnected as error:
            raise Disconnected(
                f"a budget of {self.budget} cannot be met: it asks for density {self.last:.4g}, where {error}"
            ) from error

    def state_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"last": self.last, "power": self._power, "seen": list(self._seen), "spent": self.spent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state_dict`."""
        self.last, self._power, self.spent = state["last"], state["power"], state["spent"]
        self._seen = (state["seen"][0], state["seen"][1])


def least_density(sizes: Mapping[str, int], prunable: Collection[str]) -> float:
    """The density at which each prunable layer has one weight, and the others all of theirs.

    Args:
        sizes: weights by layer.
        prunable: names of the layers that may be pruned.
    """
    return sum(1 if name in prunable else size for name, size in sizes.items()) / sum(sizes.values())


def steering(budget: Budget, rule: str, options: dict[str, Any], when: Timetable, floor: float) -> Steering:
    """Steers a rule: its options `density` and `swap` are replaced, in place.

    Raises:
        BadOption: the density of the rule is an outcome, or it was given none, or the rule rewinds.
    """
    known = registry.options("rules", rule)
    if "density" not in known:
        raise BadOption(f"a budget of {budget} is met by moving the density, and that of rule {rule!r} is an outcome")
    if isinstance(when, Rounds):
        raise BadOption(
            f"a budget of {budget} is met by correcting masks after the last update, and rule {rule!r} rewinds the "
            "network at each: give it a density alone"
        )
    if not callable(options.get("density")):
        raise BadOption(
            f"a budget of {budget} needs a density schedule to start from, and density={options.get('density')!r} is "
            "none: its last value is a first guess"
        )
    made = Steering(budget, options["density"], when, floor)
    options["density"] = made.density
    if callable(options.get("swap")):
        options["swap"] = made.swap(options["swap"])
    return made
