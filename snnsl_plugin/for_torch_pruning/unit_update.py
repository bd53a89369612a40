"""What one update of the units changed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UnitUpdate:
    """Counts of units, by name of the layer that their group starts at.

    Attributes:
        step: optimizer steps taken.
        update: its number, from 1.
        updates: how many there will be.
        ratio: masked / all units, in [0, 1].
        density: weights that will be left by the cut / all weights of convolutions and linear layers, in (0, 1].
        units: all of them.
        kept: those that live now.
        born: those that were masked before and live now.
        dropped: those that lived before and are masked now.
        left_out: groups that the importance returned None for; they stay as they are.
    """

    step: int
    update: int
    updates: int
    ratio: float
    density: float
    units: dict[str, int]
    kept: dict[str, int]
    born: dict[str, int]
    dropped: dict[str, int]
    left_out: tuple[str, ...] = ()

    @property
    def regrown(self) -> int:
        """Units that came back, over all groups."""
        return sum(self.born.values())
