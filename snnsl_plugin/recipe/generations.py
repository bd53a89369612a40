"""The recipes of an evolution: that of the first generation, and those of a parent's candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnsl_plugin.anatomy import matched
from snnsl_plugin.core.evolution import mutated
from snnsl_plugin.errors import BadOption, BadRecipe
from snnsl_plugin.recipe.evolution_types import Evolution
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.training.seeds import derived, generator

_STARTS = {"dense": "dense", "grown": "from its parent's mask, grown,", "same_mask": "from its parent's mask"}


@dataclass(frozen=True)
class Ancestor:
    """The network that a generation begins with.

    Attributes:
        run: its folder.
        kept: weights that it keeps, by layer.
        sizes: all weights of each layer.
        blocks: the layers of each of its residual blocks.
    """

    run: Path
    kept: Mapping[str, int]
    sizes: Mapping[str, int]
    blocks: Sequence[Sequence[str]]


def evolution_of(recipe: Recipe) -> Evolution:
    """The block `evolution` of a recipe.

    Raises:
        BadRecipe: there is none.
    """
    if recipe.evolution is None:
        raise BadRecipe(["evolution: the recipe has no such block: say how many generations, as digits_evolution does "
                         "(snnsl cat digits_evolution)"])  # fmt: skip
    return recipe.evolution


def folder_of(generation: int, candidate: int) -> str:
    """Where a candidate lies in the folder of its evolution."""
    return f"generation-{generation}/candidate-{candidate}"


def candidates(block: Evolution, generation: int) -> int:
    """How many networks a generation has: the first one has no parent to differ from, so it is alone."""
    return block.population if generation else 1


def last_density(recipe: Recipe, generation: int) -> float:
    """The density that a generation ends at, up to rounding to whole weights."""
    density: Any = recipe.pruning.density  # type: ignore[union-attr]
    first_generation = density.last if hasattr(density, "last") else density.value
    return float(first_generation * evolution_of(recipe).factor ** generation)


def first_recipe(recipe: Recipe) -> Recipe:
    """The recipe of the first generation: the evolution's own, without the blocks that are not its training."""
    return Recipe.model_validate(_plain(recipe))


def check_last(recipe: Recipe, pruner: Callable[[Recipe], object]) -> None:
    """Refuses, before anything is trained, generations that cannot get as sparse as they should.

    Args:
        recipe: of an evolution.
        pruner: makes the pruner of a recipe, or says why that cannot be.

    Raises:
        BadOption: with the density of the last generation.
    """
    number, data = evolution_of(recipe).generations - 1, _plain(recipe)
    last = last_density(recipe, number)
    data["pruning"]["density"] |= {"last" if "last" in data["pruning"]["density"] else "value": last}
    try:
        pruner(Recipe.model_validate(data))
    except (BadOption, ValueError) as error:
        raise BadOption(
            f"generation {number}, at density {last:.4g}, cannot be trained ({error}): raise evolution.factor, or let "
            "there be fewer generations"
        ) from error


def candidate_recipe(recipe: Recipe, generation: int, candidate: int, parent: Ancestor) -> Recipe:
    """The recipe of a candidate of a later generation: an ordinary one.

    It starts from the initial weights of the first generation, whose seed it has, so candidates differ in structure
    alone; the parent's weights live on in the guide. (From scratch, not inherited: our choice. With `same_mask` it is
    the rewinding to initial weights of the lottery ticket, Frankle and Carbin 2019.)

    Args:
        recipe: of the evolution.
        generation: from 1.
        candidate: from 0; the first one does not mutate.
        parent: the best network of the generation before.
    """
    block, data = evolution_of(recipe), _plain(recipe)
    total, kept = sum(parent.sizes.values()), dict(parent.kept)
    pruning: Any = recipe.pruning
    own = matched(list(parent.sizes), pruning.layers, pruning.exclude)
    mutation = block.mutation
    seed = derived(recipe.seed, "generation", generation, "candidate", candidate)
    if candidate:
        kept |= mutated(
            {name: kept[name] for name in own},
            {name: parent.sizes[name] for name in own},
            generator(seed, "densities"),
            spread=mutation.densities,
            blocks=[[name for name in layers if name in own] for layers in parent.blocks],
            loss=mutation.blocks,
        )
    last = round(last_density(recipe, generation) * total) / total
    ends = {"last": last} if hasattr(pruning.density, "last") else {"value": last}
    if "last" in ends:
        inherits = sum(kept.values()) / total
        ends["first"] = {"dense": 1.0, "grown": block.grow_to, "same_mask": inherits}[block.restart]
    data["pruning"] |= {
        "distribution": {"name": "given", "densities": {name: kept[name] / parent.sizes[name] for name in own}},
        "density": data["pruning"]["density"] | ends,
        "vanish": list(dict.fromkeys([*pruning.vanish, *(name for name in own if not kept[name])])),
    }
    data["distillation"] = (data["distillation"] or {}) | {"guide": {"name": "sparse", "run": str(parent.run)}}
    if block.restart != "dense":
        exchange = mutation.exchange if candidate else 0.0
        data["parent"] = {"run": str(parent.run), "exchange": exchange, "seed": seed}
    return Recipe.model_validate(data)


def planned(recipe: Recipe, total: int) -> list[dict[str, Any]]:
    """What each generation would be, for a dry run: candidates, densities, weights kept, guide.

    Args:
        recipe: of the evolution.
        total: weights of the network.
    """
    block = evolution_of(recipe)
    density: Any = recipe.pruning.density  # type: ignore[union-attr]
    own = getattr(density, "first", None)
    guide = recipe.distillation.guide.registered_name if recipe.distillation else "none"
    rows = []
    for generation in range(block.generations):
        last = last_density(recipe, generation)
        before = last_density(recipe, generation - 1) if generation else 1.0
        starts = {"dense": 1.0, "grown": block.grow_to, "same_mask": before}
        first = starts[block.restart] if generation else own
        rows.append(
            {
                "generation": generation,
                "candidates": candidates(block, generation),
                "epochs": recipe.train.epochs,
                "starts": _STARTS[block.restart] if generation else "as the recipe says",
                "first": last if own is None else first,
                "last": last,
                "kept": round(last * total),
                "guide": "the best of the generation before" if generation else guide,
            }
        )
    return rows


def _plain(recipe: Recipe) -> dict[str, Any]:
    data = recipe.model_dump(mode="json", by_alias=True)
    return data | {"evolution": None, "compare": None, "tune": None, "tracking": {"mlflow": False}}
