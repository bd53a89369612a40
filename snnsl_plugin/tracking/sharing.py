"""One study on several machines: each has a folder of its own, and all of them are one MLflow run."""

from __future__ import annotations

import re
from pathlib import Path

from snnsl_plugin.errors import BadOption
from snnsl_plugin.tracking import progress

_LONGEST = 200


def adopt_identity(run_dir: Path, identity: str, *, joined: bool) -> None:
    """Gives a study's folder the name that the study has on all machines; call it before `launch`.

    The folders of a study that have one name are shown as one MLflow run, with the runs in each of them below it. Who
    began the study makes that run. Who joined it looks for it, and makes it only where it is still missing after a
    while: MLflow cannot make a run that must be the only one of its name, so two that make it at once would make two.

    A folder stays what it was at the first call: a study that is resumed where it began has not joined.

    Args:
        run_dir: the study's folder on this machine.
        identity: the study's name for itself, the same on each machine: letters, digits, `_`, `.` and `-`.
        joined: whether another machine began the study.

    Raises:
        BadOption: a name that MLflow cannot look for, or a folder that was shown under another name.
    """
    if not re.fullmatch(r"[\w.-]+", identity) or len(identity) > _LONGEST:
        raise BadOption(
            f"tracking: {identity!r} cannot name a study: use at most {_LONGEST} letters, digits, `_`, `.` and `-`"
        )
    path = run_dir / "tracking" / "id"
    if path.exists() and progress.identity(run_dir) != identity:
        raise BadOption(
            f"{run_dir} is in MLflow as {progress.identity(run_dir)}, not as {identity}: it belongs to another study;"
            " choose another --run-dir"
        )
    marker = _marker(run_dir)
    if not marker.exists():  # before the name, which is what the sender looks at first
        progress.replace(marker, "joined" if joined else "began")
    progress.replace(path, identity)


def is_shared(run_dir: Path) -> bool:
    """Whether other folders may be shown as the same MLflow run."""
    return _marker(run_dir).exists()


def has_joined(run_dir: Path) -> bool:
    """Whether the folder belongs to a study that another one began."""
    marker = _marker(run_dir)
    return marker.exists() and marker.read_text(encoding="utf-8").strip() == "joined"


def _marker(run_dir: Path) -> Path:
    return run_dir / "tracking" / "shared"
