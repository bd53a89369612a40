"""From a recipe to a finished run folder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import torch

from snnsl_plugin.anatomy import weight_layers
from snnsl_plugin.errors import RunFolderInUse, Stopped
from snnsl_plugin.recipe import assemble, data_parallel, folder, phase
from snnsl_plugin.recipe.digest import digest
from snnsl_plugin.recipe.generations import check_last, planned
from snnsl_plugin.recipe.load import dump, load
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.tracking.launch import launch
from snnsl_plugin.tracking.status import mlflow_run_id
from snnsl_plugin.training.checkpoint import write_text
from snnsl_plugin.training.events import Event
from snnsl_plugin.training.ranks import ALONE, Ranks

OnEvent = Callable[[str, Event], None]
Judge = Literal["test", "validation"]


def run(
    recipe: Recipe | str | Path,
    *,
    run_dir: Path | None = None,
    resume: bool = False,
    on_event: OnEvent | None = None,
    on_start: Callable[[Path], None] | None = None,
    name: str | None = None,
    root: Path = Path("runs"),
    judge: Judge = "test",
    counted: Collection[int] = (),
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Trains what a recipe says and leaves a run folder: recipe, journal, checkpoint, result, figures, report.

    The data, the network and the patterns are checked before anything is trained. With `dense_baseline` the dense
    network is trained first, in `dense/`, on the same data from the same initial weights. With `evolution` each
    candidate is a run in a folder of its own, and the result is that of the best network of the last generation.

    Args:
        recipe: a recipe, or the path or shipped name of one.
        run_dir: the folder to use; a numbered one below `root` where omitted.
        resume: go on with the run that was killed or interrupted; a finished one is returned as it is.
        on_event: is told of each event, with the phase (`dense` or `sparse`).
        on_start: is told the run folder, once recipe and data have passed their checks.
        name: what new folders are called.
        root: where numbered folders are made.
        judge: the part that the trained network is measured on. With `validation` the test set is not read, and its
            accuracies are None: for whoever chooses among many runs.
        counted: numbers of the epochs of the sparse network whose events also tell connections and operations.
        ranks: the processes that train it together, each of which makes this call with the same recipe. Rank 0 alone
            chooses, reads and writes the folder; `on_event` and `on_start` are told on every rank. An error that `run`
            raises on one rank alone leaves the group unusable: let the process end.

    Returns:
        The content of `result.json`, the dense baseline's under "dense".

    Raises:
        UsageError: recipe, data or call are wrong; nothing was trained.
        SnnslError: the run failed; `result.json` says so and the run can be resumed. On the ranks that are left, a
            `LostRank` where another has ended.
        Stopped: raised by `on_event`, to end the run early: its status is `stopped`.
    """
    if not isinstance(recipe, Recipe):
        name = name or Path(recipe).stem
        recipe = load(recipe)
    name, tell = name or "run", on_event or _ignore
    with _settings(recipe):
        data_parallel.check(recipe, ranks)
        with ranks.agreed():
            parts = assemble.data(recipe)
            assemble.assemble(recipe, parts)  # a rehearsal: what cannot work is said before the dense one is trained
        asked = run_dir
        run_dir = ranks.first(lambda: folder.choose(name, digest(recipe), run_dir=asked, resume=resume, root=root))
        with data_parallel.held(run_dir, ranks):
            done = ranks.first(lambda: folder.result(run_dir))
            if done and done["status"] == "finished":
                if not resume:
                    raise RunFolderInUse(f"{run_dir} was taken by another run in this moment: choose another --run-dir")
                if on_start:
                    on_start(run_dir)
                if ranks.leads and not (run_dir / folder.REPORT).is_file():  # killed while it was drawn
                    _draw(run_dir)
                return done
            if ranks.leads:
                folder.write_json(run_dir / folder.IDENTITY, _identity(recipe, name))
            history: list[dict[str, Any]] = []
            if on_start:
                on_start(run_dir)
            if recipe.tracking.mlflow and ranks.leads:
                launch(run_dir, uri=recipe.tracking.uri, experiment=recipe.tracking.experiment or name)

            def ended(error: BaseException) -> None:
                if ranks.leads and isinstance(error, Exception | KeyboardInterrupt):
                    told: dict[str, Any] = {"status": _status(error), "error": str(error)}
                    if recipe.evolution:
                        told["evolution"] = {"restart": recipe.evolution.restart, "best": None, "generations": history}
                    with suppress(OSError):  # a disk too full for this is why the run failed: the first error says so
                        folder.write_json(run_dir / folder.RESULT, {"schema": 1, **_identity(recipe, name), **told})

            with ranks.running(f"start the same command again with --run-dir {run_dir} --resume", ended):
                if recipe.evolution:
                    result = _generations(recipe, run_dir, parts, tell, name, judge, ranks, history)
                else:
                    result = _phases(recipe, run_dir, parts, tell, name, judge, counted, ranks)
            if ranks.leads:
                folder.write_json(run_dir / folder.RESULT, result)
                _draw(run_dir)
            return ranks.first(lambda: result)  # every rank has what rank 0 has written


def preview(recipe: Recipe) -> dict[str, Any]:
    """What a recipe would do: the resolved recipe, the layers matched, the density per epoch, the counts per layer,
    and the generations of an evolution, of which all others are those of the first.

    Raises:
        UsageError: as `run`, before anything is trained.
    """
    with _settings(recipe):
        parts = assemble.data(recipe)
        made = assemble.assemble(recipe, parts)
        if recipe.evolution:
            check_last(recipe, lambda last: assemble.assemble(last, parts))
    per_epoch, pruner = len(parts.train), made.pruner
    chosen = set(pruner.prunable) if pruner else set()
    return {
        "recipe": recipe.model_dump(mode="json"),
        "layers": [
            {
                "name": name,
                "shape": list(layer.weight.shape),
                "weights": layer.weight.numel(),
                "prunable": name in chosen,
            }
            for name, layer in weight_layers(made.model).items()
        ],
        "samples": {
            "train": len(parts.splits.train),
            "validation": len(parts.splits.validation),
            "test": len(parts.splits.test),
        },
        "steps_per_epoch": per_epoch,
        "density_per_epoch": [
            pruner.planned_density(epoch * per_epoch) if pruner else 1.0 for epoch in range(1, recipe.train.epochs + 1)
        ],
        "counts": pruner.planned_counts() if pruner else {},
        "generations": planned(recipe, sum(made.sizes.values())) if recipe.evolution else [],
        "dataset": parts.splits.source,
    }


def _phases(
    recipe: Recipe,
    run_dir: Path,
    parts: assemble.Data,
    tell: OnEvent,
    name: str,
    judge: Judge,
    counted: Collection[int],
    ranks: Ranks,
) -> dict[str, Any]:
    dense = None
    if recipe.dense_baseline:
        dense_dir = run_dir / "dense"
        dense = ranks.first(lambda: folder.result(dense_dir))
        if dense is None or dense["status"] != "finished":
            if ranks.leads:
                dense_dir.mkdir(exist_ok=True)
            baseline = dense_recipe(recipe)
            dense = phase.train(
                baseline, dense_dir, parts, lambda event: tell("dense", event), name=f"{name}-dense", judge=judge,
                ranks=ranks,
            )  # fmt: skip
            if ranks.leads:
                folder.write_json(dense_dir / folder.RESULT, dense)
    result = phase.train(
        recipe, run_dir, parts, lambda event: tell("sparse", event), name=name, judge=judge, counted=counted,
        ranks=ranks,
    )  # fmt: skip
    result["wall_s"] += dense["wall_s"] if dense else 0.0
    result["mlflow_run_id"] = mlflow_run_id(run_dir) if ranks.leads else None
    result["dense"] = dense
    result["accuracy"]["dense_test"] = dense["accuracy"]["test"] if dense else None
    return result


def _generations(
    recipe: Recipe,
    run_dir: Path,
    parts: assemble.Data,
    tell: OnEvent,
    name: str,
    judge: Judge,
    ranks: Ranks,
    history: list[dict[str, Any]],
) -> dict[str, Any]:
    from snnsl_plugin.recipe.evolving import evolve

    def train(own: Recipe, place: Path, listen: OnEvent) -> dict[str, Any]:
        begun = ranks.first(lambda: folder.identity(place) is not None)
        return run(own, run_dir=place, resume=begun, on_event=listen, name=place.name, judge="validation", ranks=ranks)

    check_last(recipe, lambda last: assemble.assemble(last, parts))
    if ranks.leads:
        write_text(run_dir / folder.RECIPE, dump(recipe))
    result = evolve(
        recipe, run_dir, parts, tell, train,
        name=name, digest=digest(recipe), judge=judge, ranks=ranks, history=history,
    )  # fmt: skip
    return result | {"mlflow_run_id": mlflow_run_id(run_dir) if ranks.leads else None}


def dense_recipe(recipe: Recipe) -> Recipe:
    """The dense baseline of a recipe: the same data, network and training, without pruning and distillation."""
    plain = recipe.model_dump(mode="json", by_alias=True)
    plain |= {"pruning": {"type": "dense"}, "distillation": None, "health": [], "dense_baseline": False,
              "tune": None, "evolution": None, "parent": None}  # fmt: skip
    return Recipe.model_validate(plain)


def _status(error: BaseException) -> str:
    if isinstance(error, Stopped):
        return "stopped"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"


def _draw(run_dir: Path) -> None:
    from snnsl_plugin.recipe.report import write

    write(run_dir)


def _identity(recipe: Recipe, name: str) -> dict[str, Any]:
    return {"name": name, "digest": digest(recipe), "seed": recipe.seed}


@contextmanager
def _settings(recipe: Recipe) -> Iterator[None]:
    """Threads and determinism for the time of a run, and the caller's random numbers back after it."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    generators = torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    torch.set_num_threads(recipe.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_rng_state(generators[0])
        for number, state in enumerate(generators[1]):
            torch.cuda.set_rng_state(state, number)


def _ignore(phase: str, event: Event) -> None:
    """Nobody listens."""
