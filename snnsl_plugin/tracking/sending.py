"""Sends run folders to one MLflow, through a breaker, and says what MLflow has not got."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from snnsl_plugin.errors import BadOption, MissingExtra
from snnsl_plugin.tracking import folder, journal, progress
from snnsl_plugin.tracking.breaker import Breaker
from snnsl_plugin.tracking.following import new_lines

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from snnsl_plugin.tracking.projection import Projection


class Sender:
    """Sends run folders to one MLflow; holds the connection, the breaker and how far each folder is."""

    def __init__(self, uri: str, experiment: str) -> None:
        """Checks the address; connects at the first `send`.

        Raises:
            BadOption: the address is a folder of files, which MLflow 3 no longer takes.
        """
        if urlsplit(uri).scheme in ("", "file") and uri != "databricks":
            raise BadOption(
                f"tracking: {uri!r} is a folder of files, a store MLflow no longer takes; name a database such as"
                " sqlite:///runs/mlflow.db (`mlflow migrate-filestore` carries old runs over) or a server, http://..."
            )
        self._uri, self._experiment = uri, experiment
        self._breaker = Breaker()
        self._connection: tuple[MlflowClient, str] | None = None
        self._projections: dict[Path, Projection] = {}

    def send(self, run_dir: Path, training: bool) -> bool:
        """Sends what is new of a run folder and its dense baseline; True when both are over and MLflow has them whole.

        Raises:
            MissingExtra: mlflow cannot be imported.
        """
        folders = _folders(run_dir)
        if not training and all(map(self._nothing_new, folders)):
            return True
        try:
            from snnsl_plugin.tracking import connection, projection
        except ImportError as error:
            raise MissingExtra(f"tracking: mlflow cannot be imported here ({error}); pip install mlflow") from error

        def attempt() -> bool:
            complete, parent = True, None
            try:
                self._connection = self._connection or connection.connect(self._uri, self._experiment)
                for path in folders:
                    if path not in self._projections:
                        self._projections[path] = projection.Projection(*self._connection, path, self._progress(path))
                    complete &= self._projections[path].send(training, parent)
                    parent = self._projections[path].sent.mlflow_run_id
            except BaseException:  # it is open what MLflow took before it failed: it is asked when it is back
                self._connection, self._projections = None, {}
                raise
            return complete

        return self._breaker.call(attempt)

    def note_missing(self, run_dir: Path, training: bool) -> None:
        """Writes into `sent.json` what MLflow has not got."""
        for path in _folders(run_dir):
            sent = self._progress(path)
            sent.missing = sent.missing if sent.complete else _missing(path, sent, training)
            sent.save(path)

    def went_through(self, run_dir: Path) -> bool:
        """Whether the last `send` reached MLflow, so that it has what a run that is not over shows so far."""
        return all(path in self._projections for path in _folders(run_dir))

    def _progress(self, run_dir: Path) -> progress.Progress:
        fresh = progress.Progress(progress.without_password(self._uri), self._experiment)
        sent = progress.load(run_dir) or fresh
        return sent if (sent.uri, sent.experiment) == (fresh.uri, fresh.experiment) else fresh

    def _nothing_new(self, run_dir: Path) -> bool:
        sent = self._progress(run_dir)
        return sent.complete and not _missing(run_dir, sent, training=False)


def _folders(run_dir: Path) -> list[Path]:
    """The run folder, and that of its dense baseline where there is one."""
    return [run_dir, *(path for path in [run_dir / "dense"] if (path / "recipe.yaml").exists())]


def _missing(run_dir: Path, sent: progress.Progress, training: bool) -> list[str]:
    """A sentence for each thing that MLflow has not got."""
    if sent.mlflow_run_id is None:
        return ["everything: MLflow has not answered yet"]
    lines = new_lines(run_dir / journal.FILE_NAME, sent.journal_bytes, sent.tail)
    stands = folder.outcome(run_dir, training)
    shown = folder.files(run_dir, ended=stands != "RUNNING")
    files = [name for name, state in shown.items() if sent.artifacts.get(name) != state]
    told = [
        (lines.rewound or any(lines.events()), f"metrics after byte {sent.journal_bytes} of {journal.FILE_NAME}"),
        (not sent.parameters and (run_dir / "recipe.yaml").exists(), "the recipe's values"),
        (not sent.dataset and folder.dataset(run_dir), "the data set"),
        (files, f"files: {', '.join(files)}"),
        (stands != sent.status, f"the status {stands}"),
    ]
    return [sentence for missing, sentence in told if missing]
