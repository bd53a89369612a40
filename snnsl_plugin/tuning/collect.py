"""What a study found, as one mapping of plain data: `study.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from snnsl_plugin.errors import BadCheckpoint
from snnsl_plugin.recipe import folder
from snnsl_plugin.recipe.load import load
from snnsl_plugin.tuning import study
from snnsl_plugin.tuning.attempt import RUNS, TRIAL, name_of
from snnsl_plugin.tuning.ledger import HOLDER, MEASURED, RETRY_OF, WHY
from snnsl_plugin.tuning.measures import front
from snnsl_plugin.tuning.proposals import values_of

STUDY = "study.json"
#: Optuna's states -> our words.
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def collect(opened: study.Opened, run_dir: Path, **facts: Any) -> dict[str, Any]:
    """Reads a study from its database: the content of `study.json`.

    Args:
        opened: the study.
        run_dir: its folder on this machine.
        **facts: what else the file says: `status`, `command`, `wall_s`.
    """
    rows = [_row(opened, trial) for trial in opened.ledger.trials()]
    found = {"schema": 1, **_identity(run_dir), **facts, **_terms(opened), "trials": rows}
    found["front"] = best(found)
    return found


def rebuild(run_dir: Path) -> dict[str, Any]:
    """The content of `study.json`, or where it is gone, what the trials' own folders say.

    Raises:
        BadCheckpoint: the folder holds no study, or a file in it is damaged.
    """
    found = folder.read_json(run_dir / STUDY, "trials")
    if found is not None:
        return found
    identity = folder.identity(run_dir)
    if identity is None:
        raise BadCheckpoint(f"{run_dir} holds no study")
    recipe = load(run_dir / folder.RECIPE)
    rows = []
    for path in sorted((run_dir / RUNS).glob(f"*/{TRIAL}")):
        said = folder.read_json(path, "number") or {}
        row = {key: said[key] for key in ("number", "state", "params", "constraints", "retry_of", "why")}
        done = folder.result(path.parent) or {}
        rows.append(row | {"measures": said["values"], "seconds": done.get("wall_s"), "here": True})
    found = {
        "schema": 1, **_identity(run_dir), "status": (folder.result(run_dir) or {}).get("status", "unfinished"),
        **_block(study.tune_of(recipe)), "trials": sorted(rows, key=lambda row: row["number"]),
    }  # fmt: skip
    found["front"] = best(found)
    folder.write_json(run_dir / STUDY, found)
    return found


def best(found: Mapping[str, Any]) -> list[int]:
    """Numbers of the complete trials that keep all limits and that no other such trial dominates."""
    points = {
        row["number"]: row["measures"]
        for row in found["trials"]
        if row["state"] == "complete" and max(row["constraints"].values(), default=0.0) <= 0
    }
    return front(points, list(found["objectives"]))


def trial_folder(run_dir: Path, row: Mapping[str, Any]) -> Path | None:
    """Where a trial was trained; None where that was on another machine."""
    path = run_dir / RUNS / name_of(row["number"])
    return path if row["here"] and path.is_dir() else None


def _row(opened: study.Opened, trial: FrozenTrial) -> dict[str, Any]:
    seconds = trial.duration.total_seconds() if trial.duration else None
    noted = trial.user_attrs
    return {
        "number": trial.number,
        "state": STATES[trial.state],
        "params": values_of(opened.tune.space, trial.params),
        "measures": noted.get(MEASURED, {}),
        "constraints": dict(trial.constraints),
        "retry_of": noted.get(RETRY_OF),
        "why": noted.get(WHY, ""),
        "seconds": seconds,
        "here": bool(noted.get(HOLDER)) and noted[HOLDER][0] == opened.place,
    }


def _terms(opened: study.Opened) -> dict[str, Any]:
    return _block(opened.tune) | {"study": opened.ledger.study.study_name, "joined": opened.ledger.joined}


def _block(tune: Any) -> dict[str, Any]:
    said = tune.model_dump(mode="json")
    return {key: said[key] for key in ("space", "objectives", "constraints", "sampler", "stop")} | {
        "trials_wanted": said["trials"]
    }


def _identity(run_dir: Path) -> dict[str, Any]:
    held = folder.identity(run_dir) or {}
    return {key: held[key] for key in ("name", "digest", "seed", "created") if key in held}
