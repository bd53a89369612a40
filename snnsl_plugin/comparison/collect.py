"""What a comparison found: one mapping of plain data, read from its run folders."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from snnsl_plugin.comparison import judgement
from snnsl_plugin.comparison.numbers import numbers
from snnsl_plugin.comparison.plan import Plan, Row, Task
from snnsl_plugin.comparison.store import RUNS, was_taken_over
from snnsl_plugin.comparison.strengths import SEARCH_TOLERANCE
from snnsl_plugin.comparison.terms import budgets
from snnsl_plugin.errors import SnnslError
from snnsl_plugin.recipe import folder
from snnsl_plugin.recipe.digest import digest
from snnsl_plugin.recipe.outcome import versions

COMPARISON = "comparison.json"
_CONFIDENCE, _ALPHA, _POWER = 0.95, 0.05, 0.8


def read(run_dir: Path) -> dict[str, Any] | None:
    """The `comparison.json` of a folder, or None before there is one.

    Raises:
        BadCheckpoint: it is damaged.
    """
    return folder.read_json(run_dir / COMPARISON, "rows")


def draw(found: Mapping[str, Any], run_dir: Path) -> Path:
    """Writes all that people read, the page, the sheets, the figures; returns the page."""
    from snnsl_plugin.comparison.publish import write

    return write(dict(found), run_dir)


def comparison(
    made: Plan,
    run_dir: Path,
    errors: Mapping[str, str],
    *,
    status: str,
    command: str,
    workers: int,
    wall_s: float,
    since: str,
) -> dict[str, Any]:
    """Reads every run, judges the tables, and writes `comparison.json`.

    Args:
        made: what was planned.
        run_dir: the comparison's folder.
        errors: the sentence of each run that failed, by its name.
        status: `finished` or `interrupted`.
        command: that repeats it.
        workers: runs at the same time.
        wall_s: seconds that it took, with those of interrupted processes that it went on from; not of killed ones.
        since: when it was begun, ISO 8601.
    """
    compare, rows = made.compare, [_row(row, run_dir, errors) for row in made.rows]
    kinds = {row["pruner"]: row["kind"] for row in rows}
    pruners = [
        {
            "name": each.name,
            "host": each.host,
            "kind": kinds.get(each.name, "unstructured"),
            "summary": each.summary,
            "pruning": dict(each.pruning),
            "distillation": dict(each.distillation) if each.distillation else None,
            "seeds": list(each.seeds) if each.seeds else None,
        }
        for each in made.entrants
    ]
    lengths = {task.recipe.train.epochs for task in made.tasks}
    terms = {
        "seeds": list(compare.seeds),
        "budgets": [asdict(budget) for budget in budgets(compare)],
        "epochs": made.recipe.train.epochs if len(lengths) == 1 and not compare.seconds else None,
        "seconds": compare.seconds,
        "every": compare.every,
        "until": compare.until,
        "workers": workers,
        "threads": 1,
        "confidence": _CONFIDENCE,
        "alpha": _ALPHA,
        "power": _POWER,
    }
    tasks = [_task(task) for task in made.tasks]
    resolution = {task["name"]: 1.0 / task["samples"][compare.judge] for task in tasks}
    tables = judgement.tables(rows, pruners, compare.references, terms, resolution)
    found = {
        "schema": 1,
        "name": made.name,
        "status": status,
        "digest": made.digest,
        "created": since,
        "wall_s": wall_s,
        "command": command,
        "commit": _commit(),
        "versions": versions(),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        },
        "judge": compare.judge,
        "terms": terms,
        "tasks": tasks,
        "pruners": pruners,
        "rows": rows,
        "tables": tables,
        "overall": judgement.overall(tables, rows, _ALPHA),
    }
    folder.write_json(run_dir / COMPARISON, found)
    return found


def _row(row: Row, run_dir: Path, errors: Mapping[str, str]) -> dict[str, Any]:
    # Interrupted before it is known how much a row keeps, its runs have no recipes yet.
    decided = row.error is None and (row.budget is None or row.strength is not None)
    runs = [_run(row, seed, run_dir, errors) for seed in row.seeds] if decided else []
    failed = [run["error"] for run in runs if run["error"]]
    waiting = not decided or any(run["status"] == "waiting" for run in runs)
    measures = judgement.measures(runs, _CONFIDENCE)
    return {
        "task": row.task.name,
        "pruner": row.entrant.name,
        "host": row.entrant.host,
        "kind": row.kind,
        "budget": asdict(row.budget) if row.budget else None,
        "status": "failed" if row.error or failed else "running" if waiting else "finished",
        "error": row.error or next(iter(failed), None),
        "strength": _strength(row, measures),
        "runs": runs,
        "measures": measures,
    }


def _strength(row: Row, measures: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a row was told to keep; missed, too, where its runs left something else than was planned."""
    if row.strength is None:
        return None
    told = asdict(row.strength)
    left = measures.get("connections" if row.kind == "structured" else "density")
    if left and row.budget and row.budget.kind == "density":
        told["missed"] |= abs(left["mean"] / row.budget.value - 1.0) > SEARCH_TOLERANCE
    if row.budget and row.budget.kind == "synops" and row.strength.found_by == "given":
        told["missed"] = True  # nothing sets what it fires
    return told


def _run(row: Row, seed: int, run_dir: Path, errors: Mapping[str, str]) -> dict[str, Any]:
    name = row.run_name(seed)
    path, own = run_dir / RUNS / name, digest(row.recipe(seed))
    found, error = None, errors.get(name)
    try:
        done = folder.result(path)
        if done and done["status"] == "finished" and done["digest"] == own:
            found, error = numbers(path, judge=row.compare.judge, macs=row.task.macs), None
    except (SnnslError, OSError, ValueError, KeyError) as damage:  # costs this run, and not the comparison
        error = f"its folder cannot be read ({damage}): remove {path} and --resume"
    return {
        "seed": seed,
        "status": "finished" if found else "failed" if error else "waiting",
        "error": error,
        "folder": f"{RUNS}/{name}",
        "digest": own,
        "reused": was_taken_over(path),
        "numbers": found,
    }


def _task(task: Task) -> dict[str, Any]:
    written = task.recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    splits = task.parts.splits
    return {
        "name": task.name,
        "data": written["data"],
        "model": written["model"],
        "train": written["train"],
        "samples": {
            "train": len(splits.train),
            "validation": len(splits.validation),
            "test": len(splits.test),
        },
        "classes": len(splits.classes),
        "weights": sum(task.weights.values()),
    }


def _commit() -> dict[str, Any] | None:
    """The commit of the checkout that this package lies in; None where it is installed from elsewhere."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        asked = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, timeout=10, check=True)
        return asked.stdout.strip()

    try:
        if not git("ls-files", Path(__file__).name):
            return None
        return {"hash": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(named), "") or platform.processor() or platform.machine()
