"""The blocks `evolution` and `parent`: generations of networks, and the one that a sparse start inherits from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from snnsl_plugin.recipe.options import Block, problem

Chance = Annotated[float, Field(ge=0, le=1)]


class Mutation(Block):
    """How candidates after the first differ from their parent; what is drawn comes from the recipe's seed."""

    densities: Annotated[float, Field(ge=0)] = 0.2
    """Standard deviation of the logarithm of the odds of a layer's density; the total stays."""
    exchange: Chance = 0.1
    """Share of the parent's connections that others, drawn at random, replace in the mask that training starts from."""
    blocks: Chance = 0.1
    """Chance of each residual block to lose all it has: it is an identity then, and the others share its weights."""


class Evolution(Block):
    """Generations: each learns from the sparse network that validation chose in the one before, its guide."""

    generations: Annotated[int, Field(ge=2)]
    """How many, the first one included, which learns from scratch."""
    population: Annotated[int, Field(ge=1)] = 1
    """Candidates of each generation after the first; the first of them is its parent without mutation."""
    restart: Literal["dense", "grown", "same_mask"] = "grown"
    """What a generation starts from: all connections, the parent's mask grown at random, or the parent's mask."""
    grow_to: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Density that a mask is grown to; of `restart: grown` alone."""
    factor: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Last density of a generation over that of the one before."""
    mutation: Mutation = Mutation()


class Parent(Block):
    """A finished run whose connections a sparse start takes first, the largest weight before all others."""

    run: str
    """The folder of the finished run."""
    exchange: Chance = 0.0
    """Share of its connections that others, drawn at random, replace."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of what is drawn."""


def check_parent(pruning: Any) -> None:
    """Refuses a parent for a pruning that does not start from a sparse mask of its own.

    Raises:
        PydanticCustomError: with the key.
    """
    needed = _budget(pruning, "parent")
    first = getattr(needed, "first", getattr(needed, "value", 1.0))
    if first >= 1:
        raise problem("has no effect where training starts dense: give pruning.density a first below 1", "parent")
    _at_the_start(pruning, "parent")


def check_evolution(recipe: Any) -> None:
    """Refuses what cannot evolve.

    Raises:
        PydanticCustomError: with the key.
    """
    block: Evolution = recipe.evolution
    density = _budget(recipe.pruning, "evolution")
    if recipe.dense_baseline:
        raise problem(
            "an evolution trains no dense baseline: leave it out, and run the recipe with evolution=null for one",
            "dense_baseline",
        )
    if recipe.pruning.budget:
        raise problem(
            "the generations of an evolution have densities, which factor lowers: leave it out", "pruning.budget"
        )
    if recipe.parent:
        raise problem("an evolution gives each network its parent: leave it out", "parent")
    if block.restart != "same_mask":
        if not hasattr(density, "first"):
            raise problem(
                f"restart {block.restart!r} needs a density that falls from first to last: choose another schedule, or "
                "restart: same_mask",
                "evolution",
            )
        if block.restart == "grown" and block.grow_to <= density.last:
            raise problem(
                f"grow_to {block.grow_to:g} must be above the last density of the pruning, {density.last:g}",
                "evolution",
            )
    if block.restart != "dense":
        _at_the_start(recipe.pruning, "evolution")


def _budget(pruning: Any, key: str) -> Any:
    """The density of a pruning whose budget is shared among layers."""
    own = getattr(pruning, "registered_kind", None) == "rules" and not pruning.structured
    if not own or not hasattr(pruning, "distribution") or getattr(pruning, "density", None) is None:
        raise problem(
            f"needs a pruning with a density and a distribution, such as snnsl.drop_grow or snnsl.dpf, not "
            f"{pruning.type}",
            key,
        )
    if pruning.rewinds:
        raise problem(f"has generations, and {pruning.type} rounds of its own: choose another pruning", key)
    return pruning.density


def _at_the_start(pruning: Any, key: str) -> None:
    if pruning.start != "0it":
        raise problem(f"masks are inherited as training starts, so pruning.start must be 0it, not {pruning.start}", key)
