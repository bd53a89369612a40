"""A run's folder: one run each, held by one process at a time, and nothing of an earlier run overwritten."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from snnsl_plugin.errors import BadCheckpoint, BadOption, RunFolderInUse
from snnsl_plugin.training.checkpoint import write_text

CHECKPOINT = "checkpoint.safetensors"
COMPACT = "compact.safetensors"
RECIPE = "recipe.yaml"
RESULT = "result.json"
JOURNAL = "metrics.jsonl"
REPORT = "report.html"
IDENTITY = "run.json"
#: All that is in a folder whose run was killed before it began.
_NOT_YET = {".lock", f"{IDENTITY}.partial"}


def choose(name: str, digest: str, *, run_dir: Path | None, resume: bool, root: Path = Path("runs")) -> Path:
    """The folder of a run, new or to be resumed.

    Args:
        name: the recipe's name, for a new folder `root/name-001`, `-002`, ...
        digest: the recipe's digest.
        run_dir: the folder to use instead.
        resume: whether to go on with a run.
        root: where numbered folders are made.

    Raises:
        RunFolderInUse: a new run in a folder that already holds one.
        BadCheckpoint: a folder to resume that holds a run of another recipe, or none.
        BadOption: nothing to resume.
    """
    if run_dir is None:
        return _newest_unfinished(name, digest, root) if resume else _made(name, root)
    if not resume:
        if run_dir.exists() and (not run_dir.is_dir() or {path.name for path in run_dir.iterdir()} - _NOT_YET):
            raise RunFolderInUse(
                f"{run_dir} is not empty: add --resume to go on with the run it holds, or choose another --run-dir"
            )
        return run_dir
    held = identity(run_dir)
    if held is None:
        raise BadCheckpoint(f"{run_dir} holds no run to resume: leave out --resume to start one there")
    if held["digest"] != digest:
        raise BadCheckpoint(
            f"{run_dir} holds a run of another recipe (digest {held['digest']}, this recipe has {digest}): resume with "
            f"{run_dir / RECIPE}, or choose another --run-dir"
        )
    return run_dir


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Holds a folder for this process; the operating system frees it however the process ends.

    Raises:
        RunFolderInUse: another process holds it.
        BadOption: it cannot be written.
    """
    lock = FileLock(run_dir / ".lock")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        # The MLflow sender looks every 2 seconds whether the run is still held, by holding it for an instant itself.
        lock.acquire(timeout=2, poll_interval=0.02)
    except Timeout:
        raise RunFolderInUse(
            f"{run_dir} is in use by another process: wait for it, or choose another --run-dir"
        ) from None
    except OSError as error:
        raise BadOption(f"{run_dir} cannot be written ({error.strerror}): choose another --run-dir") from error
    try:
        yield
    finally:
        lock.release()


def identity(run_dir: Path) -> dict[str, Any] | None:
    """Which recipe a folder belongs to: {"name", "digest", "seed"}; None where there is no run."""
    return read_json(run_dir / IDENTITY, "digest")


def result(run_dir: Path) -> dict[str, Any] | None:
    """The result of a run, or None before there is one."""
    return read_json(run_dir / RESULT, "status")


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Writes JSON, all or nothing."""
    write_text(path, json.dumps(data, indent=1, allow_nan=False))


def read_json(path: Path, key: str) -> dict[str, Any] | None:
    """Reads a mapping that has a key; None where there is no file.

    Raises:
        BadCheckpoint: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or key not in data:
            raise ValueError(f"it does not say {key!r}")
    except ValueError as error:
        raise BadCheckpoint(f"{path} is damaged ({error}): start the run anew with another --run-dir") from error
    return data


def _made(name: str, root: Path) -> Path:
    while True:
        path = _next(name, root)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue  # another run took this number between the look and the making
        return path


def _next(name: str, root: Path) -> Path:
    return root / f"{name}-{max(_taken(name, root), default=0) + 1:03d}"


def _taken(name: str, root: Path) -> list[int]:
    return [
        int(match[1])
        for path in root.glob(f"{name}-*")
        if (match := re.fullmatch(rf"{re.escape(name)}-(\d+)", path.name))
    ]


def _newest_unfinished(name: str, digest: str, root: Path) -> Path:
    done: list[Path] = []
    for number in sorted(_taken(name, root), reverse=True):
        path = root / f"{name}-{number:03d}"
        held = identity(path)
        if held and held["digest"] == digest:
            if (result(path) or {}).get("status") != "finished":
                return path
            done.append(path)
    others = [
        f"{root / f'{name}-{number:03d}'}"
        for number in _taken(name, root)
        if identity(root / f"{name}-{number:03d}")
        and (result(root / f"{name}-{number:03d}") or {}).get("status") != "finished"
    ]
    near = f"; unfinished with other settings: {', '.join(others)} (resume its recipe.yaml)" if others else ""
    near += (
        f"; {done[0]} is finished: name it with --run-dir to see it again, or to add trials to a study" if done else ""
    )
    raise BadOption(f"no unfinished run of this recipe in {root}/{name}-*: leave out --resume to start one{near}")
