"""What of a run folder has reached MLflow: `RUN_DIR/tracking/sent.json`, replaced atomically."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import uuid
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Progress:
    """How far one run folder is sent.

    Attributes:
        uri: where MLflow is, without a password; another one starts from nothing.
        experiment: MLflow's experiment.
        mlflow_run_id: MLflow's name for the run, None before it was made.
        journal_bytes: bytes of the journal that were sent.
        tail: digest of the end of those bytes; it differs when the journal was rewound to a checkpoint since.
        parameters: whether the recipe's values were sent.
        dataset: whether the data set was sent.
        artifacts: size in bytes and modification time in nanoseconds of each file sent, by name in the run folder.
        status: the status MLflow was told last; of a study on several machines, by this one.
        trial: digest of what of `trial.json` was sent.
        waits_until: the time at which a folder that joined a study makes its MLflow run; 0 where it does not wait.
        complete: whether the run has ended and all of it was sent.
        missing: one sentence for each thing that MLflow has not got.
    """

    uri: str
    experiment: str
    mlflow_run_id: str | None = None
    journal_bytes: int = 0
    tail: str = ""
    parameters: bool = False
    dataset: bool = False
    artifacts: dict[str, list[int]] = field(default_factory=dict)
    status: str = ""
    trial: str = ""
    waits_until: float = 0.0
    complete: bool = False
    missing: list[str] = field(default_factory=list)

    def save(self, run_dir: Path) -> None:
        """Replaces `RUN_DIR/tracking/sent.json` atomically."""
        replace(_file(run_dir), json.dumps({"schema": 1, **dataclasses.asdict(self)}, indent=1))


def load(run_dir: Path) -> Progress | None:
    """The progress of a run folder; None where nothing was sent, or the file is from another schema or damaged.

    Starting from nothing is safe: MLflow is asked what it has before anything is sent.
    """
    try:
        content = json.loads(_file(run_dir).read_text(encoding="utf-8"))
        return Progress(**{name: value for name, value in content.items() if name != "schema"})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def without_password(text: str) -> str:
    """The text without the password of an address in it: folders and logs are shared more freely than passwords.

    >>> without_password("postgresql://me:secret@database/mlflow")
    'postgresql://me:***@database/mlflow'
    """
    return re.sub(r"(?<=://)([^/@:\s]*):[^/@\s]*(?:/[^/@\s]*)*?@", r"\1:***@", text)


def identity(run_dir: Path) -> str:
    """The folder's own name for its run, made and stored before MLflow hears of it.

    A sender that dies between making the run in MLflow and noting so finds the run again by this name.
    """
    path = run_dir / "tracking" / "id"
    if not path.exists():
        replace(path, uuid.uuid4().hex)
    return path.read_text(encoding="utf-8").strip()


def replace(path: Path, text: str) -> None:
    """Writes a file all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def _file(run_dir: Path) -> Path:
    return run_dir / "tracking" / "sent.json"
