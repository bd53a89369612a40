"""The runs that one folder shows: its own, that of its dense baseline, those of a comparison, a study or an evolution;
reads only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from snnsl_plugin.tracking import folder


class Member(NamedTuple):
    """A run folder and its place among those that are shown together.

    Attributes:
        path: the run folder.
        name: what MLflow calls it: `run`, `run/dense`, `comparison/run`.
        above: the folder of the run that it is shown below; None for the first.
        locked: the folder whose lock its training holds: a dense baseline is trained under the lock of its run.
    """

    path: Path
    name: str
    above: Path | None
    locked: Path


def members(run_dir: Path) -> list[Member]:
    """The run folder, its dense baseline, and those below: `runs/*` of a comparison or a study, `generation-*/*` of an
    evolution. A run stands before those below it.
    """
    top = Member(run_dir, run_dir.name, None, run_dir)
    paths = [run_dir / "runs" / name for name in _names(run_dir / "runs")]
    for generation in [name for name in _names(run_dir) if name.startswith("generation-")]:
        paths += [run_dir / generation / name for name in _names(run_dir / generation)]
    # The name of a run that lies in `runs` is enough; of several first candidates it is not.
    below = [
        Member(path, f"{top.name}/{path.relative_to(run_dir).as_posix().removeprefix('runs/')}", run_dir, path)
        for path in paths
    ]
    return [*_and_dense(top), *(member for each in below if _begun(each.path) for member in _and_dense(each))]


def is_training(member: Member, run_dir: Path, training: bool) -> bool:
    """Whether a run may still change.

    Of a comparison, one without a result counts as training until the comparison's process is gone: it may be between
    two workers. One with a result has been left, unless a worker holds it to go on with it or to draw its report.

    Args:
        member: one of `members(run_dir)`.
        run_dir: the run folder, or that of the comparison.
        training: whether a process holds the lock of `run_dir`.
    """
    if not training or member.locked == run_dir:
        return training
    return not (member.locked / "result.json").exists() or folder.is_training(member.locked)


def _and_dense(run: Member) -> list[Member]:
    dense = Member(run.path / "dense", f"{run.name}/dense", run.path, run.locked)
    return [run, dense] if _begun(dense.path) else [run]


def _names(folder_of_runs: Path) -> list[str]:
    try:
        with os.scandir(folder_of_runs) as entries:
            return sorted(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _begun(run_dir: Path) -> bool:
    return os.path.exists(f"{run_dir}/recipe.yaml")
