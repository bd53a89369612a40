"""What a recipe may say of a budget: live connections, SynOps per sample, or energy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field

from snnsl_plugin.recipe.options import Block, union


class Connections(Block):
    """Weights on a live path from the input to an output."""

    name: Literal["connections"]
    live: Annotated[int, Field(ge=1)]
    """How many there may be in the end."""

    @property
    def amount(self) -> float:
        """The number asked for."""
        return float(self.live)


class SynOps(Block):
    """Synaptic operations per sample of the validation part, over all time steps."""

    name: Literal["synops"]
    per_sample: Annotated[float, Field(gt=0)]
    """How many there may be in the end."""

    @property
    def amount(self) -> float:
        """The number asked for."""
        return self.per_sample


class Energy(Block):
    """The total of the energy model per sample of the validation part."""

    name: Literal["energy"]
    pj_per_sample: Annotated[float, Field(gt=0)]
    """How much there may be in the end, in pJ."""

    @property
    def amount(self) -> float:
        """The number asked for."""
        return self.pj_per_sample


if TYPE_CHECKING:
    AnyBudget: TypeAlias = Connections | SynOps | Energy
else:
    AnyBudget: Any = union("budget", [Connections, SynOps, Energy])
