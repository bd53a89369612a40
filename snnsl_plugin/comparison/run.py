"""From a recipe with a `compare` block to a comparison folder: every run trained, judged, and shown."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from snnsl_plugin.comparison import collect
from snnsl_plugin.comparison.plan import Plan, plan
from snnsl_plugin.comparison.stages import Listener, Stages, Told
from snnsl_plugin.comparison.terms import Budget
from snnsl_plugin.errors import BadCheckpoint, RunFolderInUse
from snnsl_plugin.models._permission import permit
from snnsl_plugin.recipe import assemble, folder
from snnsl_plugin.recipe.load import dump
from snnsl_plugin.recipe.outcome import versions
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.tracking.journal import Journal
from snnsl_plugin.tracking.launch import launch
from snnsl_plugin.training.checkpoint import write_text


def compare(
    recipe: Recipe,
    *,
    name: str,
    run_dir: Path | None = None,
    resume: bool = False,
    workers: int | None = None,
    permitted: Sequence[str] = (),
    listen: Listener | None = None,
    on_start: Callable[[Path], None] | None = None,
    root: Path = Path("runs"),
    command: str = "",
) -> dict[str, Any]:
    """Trains every pruner of a recipe's `compare` block on equal terms and leaves a comparison folder.

    Runs that were finished before, in any folder below `root`, are taken over by their digest. A run that fails takes
    its row with its sentence and stops no other. In a script of one's own call this below `if __name__ == "__main__"`:
    workers are processes.

    Args:
        recipe: with a `compare` block.
        name: of the comparison, and of new folders.
        run_dir: the folder to use; a numbered one below `root` where omitted.
        resume: go on with the comparison that was killed or interrupted; runs that failed are tried again.
        workers: runs at the same time; the recipe's, or as many as cores, where omitted.
        permitted: code of the user's own that may be imported, `package.module:function`.
        listen: is told how far it is.
        on_start: is told the folder.
        root: where numbered folders are made and finished runs are looked for.
        command: that repeats this, for the report.

    Returns:
        The content of `comparison.json`.

    Raises:
        UsageError: recipe, data or call are wrong; nothing was trained.
    """
    began = time.perf_counter()
    for target in permitted:
        permit(target)
    made = plan(recipe, name)
    for task in made.tasks:
        _ = task.parts  # what is missing is said before a folder is made
    listen, workers = listen or _nobody, workers or made.compare.workers or _usable(made)
    run_dir = folder.choose(name, made.digest, run_dir=run_dir, resume=resume, root=root)
    with folder.held(run_dir):
        done = collect.read(run_dir)
        if done and done["status"] == "finished" and not _failed(done):
            if not resume:
                raise RunFolderInUse(f"{run_dir} was taken by another comparison: choose another --run-dir")
            if on_start:
                on_start(run_dir)
            collect.draw(done, run_dir)
            return done
        before = float(done["wall_s"]) if done else 0.0  # of the process before this one
        held, now = folder.identity(run_dir) or {}, versions()
        if held.get("versions", now) != now:
            changed = ", ".join(f"{word} {held['versions'].get(word)} -> {now[word]}" for word in now
                                if held["versions"].get(word) != now[word])  # fmt: skip
            raise BadCheckpoint(
                f"{run_dir} was begun with other versions ({changed}), and runs of both would not compare: start anew "
                "with another --run-dir, or install what it was begun with"
            )
        since = str(held.get("created") or datetime.now(UTC).isoformat(timespec="seconds"))
        identity = {"name": name, "digest": made.digest, "seed": recipe.seed, "versions": now, "created": since}
        folder.write_json(run_dir / folder.IDENTITY, identity)
        write_text(run_dir / folder.RECIPE, dump(recipe))
        with suppress(FileNotFoundError):  # of an earlier try
            (run_dir / folder.RESULT).unlink()
        if on_start:
            on_start(run_dir)
        if recipe.tracking.mlflow:
            launch(run_dir, uri=recipe.tracking.uri, experiment=recipe.tracking.experiment or name)
        stages = Stages(made, run_dir, root, workers, tuple(permitted), listen)
        status = "interrupted"
        try:
            stages.plan()
            stages.train()
            status = "finished"
        finally:
            found = collect.comparison(
                made, run_dir, stages.errors,
                status=status, command=command, workers=workers, wall_s=before + time.perf_counter() - began,
                since=since,
            )  # fmt: skip
            _write_journal(found, run_dir)
            collect.draw(found, run_dir)
            folder.write_json(run_dir / folder.RESULT, {"schema": 1, **identity, "status": status})
    return found


def preview(
    recipe: Recipe, *, name: str, permitted: Sequence[str] = (), listen: Listener | None = None
) -> dict[str, Any]:
    """Who would take part, how much each would keep, and how many epochs would be trained; nothing is trained.

    Args:
        recipe: with a `compare` block.
        name: of the comparison.
        permitted: code of the user's own that may be imported, `package.module:function`.
        listen: is told how far it is.

    Returns:
        `digest`, and `rows`: task, pruner, kind, budget, strength, seeds, epochs of each training, error.

    Raises:
        UsageError: as `compare`, before anything is trained.
    """
    for target in permitted:
        permit(target)
    made = plan(recipe, name)
    Stages(made, Path(), Path(), 1, (), listen or _nobody).plan()
    return {
        "digest": made.digest,
        "rows": [
            {
                "task": row.task.name,
                "pruner": row.entrant.name,
                "kind": row.kind,
                "budget": asdict(row.budget) if row.budget else None,
                "strength": asdict(row.strength) if row.strength else None,
                "searched": row.search is not None,
                "seeds": list(row.seeds),
                "epochs": None if made.compare.seconds else row.task.recipe.train.epochs,
                "error": row.error,
            }
            for row in made.rows
        ],
    }


def _write_journal(found: dict[str, Any], run_dir: Path) -> None:
    """What MLflow shows of the comparison itself: the judged accuracy of every row, by the number of its seed."""
    with Journal(run_dir / folder.JOURNAL, offset=0) as journal:
        journal.write("started", 0, recipe=found["name"], digest=found["digest"], dataset=found["tasks"][0]["name"])
        most = max(len(row["runs"]) for row in found["rows"]) if found["rows"] else 0
        for number in range(most):
            runs = [(row, row["runs"][number]) for row in found["rows"] if number < len(row["runs"])]
            metrics = {_metric(row): run["numbers"]["accuracy"] for row, run in runs if run["numbers"]}
            journal.write("seed", number + 1, metrics)


def _metric(row: dict[str, Any]) -> str:
    budget = str(Budget(**row["budget"])) if row["budget"] else ""
    return "/".join(filter(None, ["accuracy", row["task"], row["pruner"], budget]))


def _usable(made: Plan) -> int:
    """Runs at the same time where nobody says: a core each, or one where they would share a GPU."""
    if any(assemble.device(task.recipe) != "cpu" for task in made.tasks):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _failed(done: dict[str, Any]) -> bool:
    return any(row["status"] != "finished" for row in done["rows"])


def _nobody(told: Told) -> None:
    """Nobody listens."""
