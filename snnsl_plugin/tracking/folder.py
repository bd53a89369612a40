"""What a run folder says about its run; reads only, and knows nothing of MLflow."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from ruamel.yaml import YAML

from snnsl_plugin.tracking import journal, sharing

Outcome = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

_OUTCOMES: dict[str, Outcome] = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
    "stopped": "KILLED",
}
_AT_THE_END = (
    "result.json",
    "report.html",
    "checkpoint.safetensors",
    "state.json",
    "compact.safetensors",
    "compact.json",
    "comparison.json",
    "comparison.csv",
    "comparison.md",
    "comparison.html",
    "trial.json",
    "study.json",
)
#: What a study draws anew while it goes on; nothing else has files of these names before it is over.
_OF_A_STUDY = ("study.json", "report.html")
#: Whatever happens to a run changes one of these; `figures` as a folder, when a file in it is made or replaced.
_TRACES = (journal.FILE_NAME, "run.json", "result.json", "report.html", "figures", "trial.json", "study.json")


def is_training(run_dir: Path) -> bool:
    """Whether a process holds the run's lock `RUN_DIR/.lock`.

    The lock dies with its process, also under SIGKILL, where a process id written to a file would live on. It is held
    for an instant to find out, so a process that wants to train waits a few seconds for it before it gives up.
    """
    path = run_dir / ".lock"
    if not path.exists():
        return False
    try:
        with FileLock(str(path), timeout=0):
            return False
    except Timeout:
        return True
    except NotImplementedError:  # a disk without locks: only the result tells that the run is over
        return not (run_dir / "result.json").exists()


def outcome(run_dir: Path, training: bool) -> Outcome:
    """How the run stands.

    "finished" in `result.json` holds even while the process goes on (it may still draw the report, or train the sparse
    network after the dense one). Any other result may be from before a resume, so it waits until nobody trains. A run
    without a result that nobody trains was killed.

    Args:
        run_dir: the run folder.
        training: whether a process holds the run's lock, asked before the journal was read.
    """
    found = status(run_dir)
    if training and found != "FINISHED":
        return "RUNNING"
    return found or "KILLED"


def status(run_dir: Path) -> Outcome | None:
    """The status in `result.json`, None where there is no result; a result nobody can read is that of a failure."""
    try:
        return _OUTCOMES.get(json.loads((run_dir / "result.json").read_text(encoding="utf-8"))["status"], "FAILED")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return "FAILED"


def recipe(run_dir: Path) -> dict[str, Any]:
    """The resolved recipe of the run; empty where there is none yet."""
    path = run_dir / "recipe.yaml"
    return dict(YAML(typ="safe").load(path) or {}) if path.exists() else {}


def dataset(run_dir: Path) -> dict[str, Any] | None:
    """The data set: the recipe's `data` block, and the fact `dataset` of the journal's first "started" line over it.

    The fact is a mapping, or a text that says where the data came from.

    Returns:
        A mapping with at least `name` and `digest` (at most 36 characters); None while the run has not started, or
        where neither recipe nor journal names any data.
    """
    path = run_dir / journal.FILE_NAME
    first = itertools.islice(journal.read(path), 10) if path.exists() else iter(())
    started = next((event for event in first if event["event"] == "started"), None)
    if started is None:
        return None
    planned, read = recipe(run_dir).get("data"), started.get("dataset")
    if not planned and not read:
        return None
    found = dict(planned) if isinstance(planned, Mapping) else {"name": str(planned or "unnamed")}
    found |= read if isinstance(read, Mapping) else {"source": read} if read else {}
    text = json.dumps(found, sort_keys=True, default=str)
    digest = str(found.get("digest") or hashlib.sha256(text.encode()).hexdigest()[:16])
    return {**found, "digest": digest[:36]}


def files(run_dir: Path, ended: bool) -> dict[str, list[int]]:
    """Size in bytes and modification time in nanoseconds of each file to show, by its name in the run folder.

    Args:
        run_dir: the run folder.
        ended: whether the run is over; before, only the recipe is shown: a checkpoint is written many times, and only
            the last one matters. A study, which goes on for days, shows `study.json` and its report too. A folder that
            joined a study shows nothing before the end: who began the study does.
    """
    paths = [] if sharing.has_joined(run_dir) and not ended else [run_dir / "recipe.yaml"]
    if not ended and paths and (run_dir / "study.json").exists():
        paths += [run_dir / name for name in _OF_A_STUDY]
    if ended:
        paths += [run_dir / name for name in _AT_THE_END]
        paths += sorted(path for path in (run_dir / "figures").rglob("*"))
    stats = {path.relative_to(run_dir).as_posix(): path.stat() for path in paths if path.is_file()}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def traces(run_dir: Path) -> list[tuple[int, int]]:
    """Size and modification time of a few files; equal ones mean that nothing has happened to the run in between.

    Cheaper by far than `files`: a comparison asks hundreds of folders every few seconds.
    """
    return [_trace(f"{run_dir}/{name}") for name in _TRACES]


def _trace(path: str) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError:
        return (-1, -1)
    return (stat.st_size, stat.st_mtime_ns)
