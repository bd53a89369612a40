"""An evolution: ordinary runs, generation by generation, each with the best of the one before as guide and parent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from snnsl_plugin.core.evolution import Fitness, fittest
from snnsl_plugin.errors import Disconnected, Diverged
from snnsl_plugin.metrics.depth import depth, identities, residual_blocks
from snnsl_plugin.metrics.measure import measure
from snnsl_plugin.recipe import assemble, data_parallel, folder, outcome
from snnsl_plugin.recipe.generations import (
    Ancestor,
    candidate_recipe,
    candidates,
    evolution_of,
    first_recipe,
    folder_of,
    last_density,
)
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.training import checkpoint
from snnsl_plugin.training.events import Event
from snnsl_plugin.training.loop import batches
from snnsl_plugin.training.ranks import Ranks

#: Trains one candidate in a folder, or goes on with it, or returns what it has become.
Train = Callable[[Recipe, Path, Callable[[str, Event], None]], dict[str, Any]]
Row = dict[str, Any]


def evolve(
    recipe: Recipe,
    run_dir: Path,
    parts: assemble.Data,
    tell: Callable[[str, Event], None],
    train: Train,
    *,
    name: str,
    digest: str,
    judge: Literal["test", "validation"],
    ranks: Ranks,
    history: list[Row],
) -> dict[str, Any]:
    """Trains all generations of a recipe, each candidate in a folder of its own.

    A candidate that is finished is kept, one that was interrupted goes on from its checkpoint, and one whose network
    has come apart or diverged stands as failed, and is not chosen.

    Args:
        recipe: with an `evolution` block.
        run_dir: the folder of the evolution, held by this process.
        parts: the loaded data.
        tell: is told of each event, with the candidate as the phase: `g1c0`.
        train: trains a candidate, judged by the validation part.
        name: the recipe's name.
        digest: the recipe's.
        judge: the part that the best network of the last generation is measured on, and no other network.
        ranks: the processes that train together; rank 0 alone writes.
        history: takes the row of each generation that is over, also where a later one fails.

    Returns:
        The result of the best network of the last generation, with the rows under `evolution`.

    Raises:
        SnnslError: every candidate of a generation failed, with the first one's reason.
    """
    block = evolution_of(recipe)
    parent: Ancestor | None = None
    results: dict[str, dict[str, Any]] = {}
    with data_parallel.journal(run_dir / folder.JOURNAL, 0, ranks) as journal:
        journal.write("started", 0, recipe=name, digest=digest, dataset=parts.splits.source)
        for generation in range(block.generations):
            rows = []
            for number in range(candidates(block, generation)):
                own = first_recipe(recipe) if parent is None else candidate_recipe(recipe, generation, number, parent)
                place = folder_of(generation, number)
                row, result = _candidate(own, run_dir / place, parts, _as(tell, generation, number), train)
                rows.append({"folder": place} | row)
                results[place] = result
            best = _best(rows)
            chosen = rows[best]
            history.append(
                {
                    "generation": generation,
                    "density": last_density(recipe, generation),
                    "best": best,
                    "candidates": rows,
                }
            )
            journal.write("generation", generation, _metrics(chosen), best=chosen["folder"])
            parent = _ancestor(run_dir / chosen["folder"], results[chosen["folder"]], parts)
        last = history[-1]["candidates"][history[-1]["best"]]["folder"]
        result = dict(results[last])
        if judge == "test":
            result = _tested(recipe, run_dir / last, parts, result)
        read = {"accuracy/test": result["accuracy"]["test"]} if judge == "test" else {}
        journal.write("finished", block.generations - 1, read)
    if ranks.leads:
        tree = checkpoint.load(run_dir / last / folder.CHECKPOINT)
        checkpoint.save(run_dir / folder.CHECKPOINT, tree | {"digest": digest})
    return result | {
        "recipe": name,
        "digest": digest,
        "wall_s": sum(each["wall_s"] for each in results.values() if each),
        "evolution": {"restart": block.restart, "best": last, "generations": history},
    }


def _candidate(
    recipe: Recipe, run_dir: Path, parts: assemble.Data, tell: Callable[[str, Event], None], train: Train
) -> tuple[Row, dict[str, Any]]:
    """Trains a candidate, and what its generation's table says of it; an empty result where it failed."""
    try:
        result = train(recipe, run_dir, tell)
    except (Disconnected, Diverged) as error:  # what mutation has made does not live: its parent's other children may
        return {"status": "failed", "error": str(error)}, {}
    example, _ = next(batches(parts.validation, "cpu"))
    model = assemble.load_network(run_dir, parts)
    found = depth(model, example[:, :1], _masks(run_dir))
    row = {
        "status": "finished",
        "error": "",
        "accuracy": result["accuracy"]["validation"],
        "density": result["density"]["weights"]["achieved"],
        "kept": result["density"]["weights"]["kept"],
        "connections": result["density"]["connections"]["live"],
        "synops_per_sample": result["validation"]["synops_per_sample"],
        "energy_pj_per_sample": result["validation"]["energy_pj_per_sample"]["total"],
        "depth": found.layers,
        "blocks": len(found.blocks),
        "dead_blocks": identities(model, example, found.dead),
        "layers": {name: layer["achieved"] for name, layer in result["density"]["layers"].items()},
    }
    return row, result


def _best(rows: list[Row]) -> int:
    alive = {number: row for number, row in enumerate(rows) if row["status"] == "finished"}
    if not alive:
        raise Disconnected(
            f"every candidate of {Path(rows[0]['folder']).parent} failed; {rows[0]['folder']}: {rows[0]['error']}"
        )
    return fittest({number: Fitness(row["accuracy"], row["synops_per_sample"]) for number, row in alive.items()})


def _ancestor(run_dir: Path, result: Mapping[str, Any], parts: assemble.Data) -> Ancestor:
    layers = result["density"]["layers"]
    example, _ = next(batches(parts.validation, "cpu"))
    blocks = residual_blocks(assemble.load_network(run_dir, parts), example[:, :1])
    return Ancestor(
        run_dir,
        {name: layer["kept"] for name, layer in layers.items()},
        {name: layer["total"] for name, layer in layers.items()},
        list(blocks.values()),
    )


def _tested(recipe: Recipe, run_dir: Path, parts: assemble.Data, result: dict[str, Any]) -> dict[str, Any]:
    """The result of a candidate, measured on the test part as that of an ordinary run is."""
    device = assemble.device(recipe)
    model = assemble.load_network(run_dir, parts).to(device)
    masks = {name: mask.to(device) for name, mask in _masks(run_dir).items()}
    measured = measure(model, batches(parts.test, device), masks=masks)
    return result | {"accuracy": result["accuracy"] | {"test": measured.accuracy}} | outcome.as_result(measured)


def _masks(run_dir: Path) -> dict[str, Tensor]:
    masks: dict[str, Tensor] = checkpoint.load(run_dir / folder.CHECKPOINT)["masks"]
    return masks


def _metrics(row: Row) -> dict[str, float]:
    words = ("density", "connections", "synops_per_sample", "depth")
    told = {"accuracy/validation": row["accuracy"]} | {word: float(row[word]) for word in words}
    return told | {f"density/{name}": density for name, density in row["layers"].items()}


def _as(tell: Callable[[str, Event], None], generation: int, number: int) -> Callable[[str, Event], None]:
    return lambda phase, event: tell(f"g{generation}c{number}", event)
