"""Sends run folders to one MLflow, through a breaker, and says what MLflow has not got."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from snnsl_plugin.errors import BadOption, MissingExtra
from snnsl_plugin.tracking import folder, journal, progress, trial
from snnsl_plugin.tracking.breaker import Breaker
from snnsl_plugin.tracking.family import Member, is_training, members
from snnsl_plugin.tracking.following import new_lines

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from snnsl_plugin.tracking.projection import Projection


_LONGEST_FAILING = 20.0


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
        self._whole: dict[Path, list[tuple[int, int]]] = {}  # the traces of folders that MLflow has whole
        self._failed: set[Path] = set()
        self._through = False

    def send(self, run_dir: Path, training: bool) -> bool:
        """Sends what is new of a run folder and of the runs below it: a dense baseline, those of a comparison.

        Folders that MLflow has whole, and in which nothing has happened since, cost a look at a few files.

        Returns:
            Whether all of them are over and MLflow has them whole.

        Raises:
            MissingExtra: mlflow cannot be imported.
        """
        touched = self.touched(run_dir, training)
        if not touched:
            return True
        try:
            from snnsl_plugin.tracking import connection, projection
        except ImportError as error:
            raise MissingExtra(f"tracking: mlflow cannot be imported here ({error}); pip install mlflow") from error

        def attempt() -> bool:
            complete, failures, lost = True, [], 0.0
            self._through = False
            try:
                self._connection = self._connection or connection.connect(self._uri, self._experiment)
                for each in touched:
                    begun = time.monotonic()
                    if each.path not in self._projections:
                        sent = self._progress(each.path)
                        self._projections[each.path] = projection.Projection(
                            *self._connection, each.path, each.name, sent
                        )
                    try:
                        complete &= self._send(each, is_training(each, run_dir, training))
                        self._failed.discard(each.path)
                    except Exception as error:
                        failures.append(error)
                        self._failed.add(each.path)
                        lost += time.monotonic() - begun
                        if not self._projections[each.path].opened or lost > _LONGEST_FAILING:
                            break  # MLflow itself is away or hangs, and each further run would wait for it in vain
                if failures:
                    raise failures[0]
            except BaseException:  # it is open what MLflow took before it failed: it is asked when it is back
                self._connection, self._projections = None, {}
                raise
            self._through = self._run_id(run_dir) is not None
            return complete

        return self._breaker.call(attempt)

    def touched(self, run_dir: Path, training: bool) -> list[Member]:
        """The runs of which MLflow may miss something, in the order in which they are sent.

        Last time's failures come last, so that a folder which cannot be sent does not keep the others waiting.
        """
        found = [
            each for each in members(run_dir) if (training and each.locked == run_dir) or not self._is_whole(each.path)
        ]
        return sorted(found, key=lambda each: (each.above is not None, each.path in self._failed))

    def note_missing(self, run_dir: Path, training: bool) -> None:
        """Writes into `sent.json` what MLflow has not got."""
        for each in members(run_dir):
            sent = self._progress(each.path)
            if not sent.complete:
                sent.missing = _missing(each.path, sent, is_training(each, run_dir, training))
                with contextlib.suppress(OSError):  # a full disk takes no note; the next sender finds out by itself
                    sent.save(each.path)

    def went_through(self) -> bool:
        """Whether the last `send` reached MLflow, so that it has what a run that is not over shows so far."""
        return self._through

    def _send(self, member: Member, training: bool) -> bool:
        above = self._run_id(member.above) if member.above else None
        if member.above and not above:
            return False  # what it belongs to could not be shown yet
        traces = folder.traces(member.path)
        shown = self._projections[member.path]
        if shown.send(training, above):
            self._whole[member.path] = traces
            del self._projections[member.path]  # it remembers each step of each metric
            return True
        self._whole.pop(member.path, None)
        return False

    def _run_id(self, run_dir: Path) -> str | None:
        shown = self._projections.get(run_dir)
        return (shown.sent if shown else self._progress(run_dir)).mlflow_run_id

    def _progress(self, run_dir: Path) -> progress.Progress:
        fresh = progress.Progress(progress.without_password(self._uri), self._experiment)
        sent = progress.load(run_dir) or fresh
        return sent if (sent.uri, sent.experiment) == (fresh.uri, fresh.experiment) else fresh

    def _is_whole(self, run_dir: Path) -> bool:
        """Whether MLflow has a run whole and nothing has happened to it since."""
        traces = folder.traces(run_dir)
        if run_dir not in self._whole:
            sent = self._progress(run_dir)
            if sent.complete and not _missing(run_dir, sent, training=False):
                self._whole[run_dir] = traces
        return self._whole.get(run_dir) == traces


def _missing(run_dir: Path, sent: progress.Progress, training: bool) -> list[str]:
    """A sentence for each thing that MLflow has not got."""
    if sent.mlflow_run_id is None:
        if sent.waits_until:
            return ["everything: the machine that began the study has not shown it yet; this one does so in 2 minutes"]
        return ["everything: MLflow has not answered yet"]
    lines = new_lines(run_dir / journal.FILE_NAME, sent.journal_bytes, sent.tail)
    stands = folder.outcome(run_dir, training)
    shown = folder.files(run_dir, ended=stands != "RUNNING")
    files = [name for name, state in shown.items() if sent.artifacts.get(name) != state]
    told = [
        (lines.rewound or any(lines.events()), f"metrics after byte {sent.journal_bytes} of {journal.FILE_NAME}"),
        (not sent.parameters and (run_dir / "recipe.yaml").exists(), "the recipe's values"),
        (not sent.trial and trial.read(run_dir), f"what {trial.FILE_NAME} says"),
        (not sent.dataset and folder.dataset(run_dir), "the data set"),
        (files, f"files: {', '.join(files)}"),
        (stands != sent.status, f"the status {stands}"),
    ]
    return [sentence for missing, sentence in told if missing]
