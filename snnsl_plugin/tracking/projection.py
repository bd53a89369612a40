"""One run folder as one MLflow run. Imports mlflow, so only the sender's process imports this file."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import random
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from snnsl_plugin.tracking import folder, journal, names, patience, progress, sharing, trial
from snnsl_plugin.tracking.following import new_lines

_METRICS_A_BATCH = 1000
_PARAMETERS_A_BATCH = 100
#: A study's report is drawn anew after each trial, and need not be sent as often.
_SECONDS_BETWEEN_DRAFTS = 60.0
#: How long who joined a study leaves it to who began it to make its run: the breaker of a sender pauses for at most 60
#: seconds, and a request takes up to 10. Those who joined at once do not make it at once.
_SECONDS_FOR_WHO_BEGAN, _SECONDS_APART = 90.0, 30.0


class Projection:
    """One run folder and the MLflow run that shows it."""

    def __init__(
        self, client: MlflowClient, experiment_id: str, run_dir: Path, name: str, sent: progress.Progress
    ) -> None:
        """Takes up where `sent` ends; nothing is sent yet.

        Args:
            client: from `connection.connect`.
            experiment_id: from `connection.connect`.
            run_dir: the run folder.
            name: what MLflow calls the run.
            sent: how far it was sent; changed and saved as more is.
        """
        self.sent = sent
        self._client = client
        self._experiment_id = experiment_id
        self._run_dir = run_dir
        self._name = name
        self._arrived: defaultdict[str, set[int]] = defaultdict(set)
        self._parameters: set[str] = set()
        self._shared = sharing.is_shared(run_dir)
        self._opened = False

    @property
    def opened(self) -> bool:
        """Whether MLflow has answered for this run."""
        return self._opened

    def send(self, training: bool, parent: str | None = None) -> bool:
        """Sends what is new. Sending again what MLflow has is harmless, so any step of it may fail and be repeated.

        Args:
            training: whether a process holds the run's lock; asked before this call, so that no line is missed.
            parent: MLflow's id of the run that this one belongs to.

        Returns:
            Whether the run is over and MLflow has all of it.

        Raises:
            Exception: whatever MLflow's client raises when it cannot reach its server or is refused.
        """
        stands = folder.outcome(self._run_dir, training)
        self._opened = self._opened or self._open(parent)
        if not self._opened:
            return self.sent.complete
        self._send_status(stands if stands == "RUNNING" else self.sent.status)
        self._send_metrics(stands)
        try:
            self._send_parameters()
            self._send_trial(ended=stands != "RUNNING")
            self._send_files(stands)
            self._send_dataset()
        finally:  # a file store that is out of order, or a server too old for data sets, must not hide how it ended
            self._send_status(stands)
        self.sent.complete = stands != "RUNNING" and not training
        self.sent.missing = []
        self.sent.save(self._run_dir)
        return self.sent.complete

    @property
    def _run_id(self) -> str:
        return str(self.sent.mlflow_run_id)

    def _open(self, parent: str | None) -> bool:
        """Finds or makes the MLflow run and learns what it has.

        Returns:
            False where somebody deleted it there, and where it is for another machine to make it.
        """
        run = self._find()
        if run is None and self._is_for_another_to_make():
            return False
        run = run or self._create(parent)
        if self.sent.mlflow_run_id != run.info.run_id:
            self.sent = progress.Progress(self.sent.uri, self.sent.experiment, run.info.run_id)
        if not self._shared:
            self.sent.status = run.info.status
        deleted = run.info.lifecycle_stage == "deleted"
        if deleted:
            self.sent.complete = True
            self.sent.missing = ["what is new: the run was deleted in MLflow; restore it there to have the rest sent"]
        else:
            self._learn(run)
        self.sent.save(self._run_dir)
        return not deleted

    def _find(self) -> Run | None:
        if self.sent.mlflow_run_id:
            try:
                return self._client.get_run(self.sent.mlflow_run_id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        tag = progress.identity(self._run_dir)
        found = self._client.search_runs([self._experiment_id], f"tags.`snnsl.run_dir_id` = '{tag}'", max_results=1)
        return found[0] if found else None

    def _create(self, parent: str | None) -> Run:
        tags = {"snnsl.run_dir_id": progress.identity(self._run_dir), "mlflow.source.name": "snnsl_plugin"}
        with contextlib.suppress(OSError, KeyError):  # a container may run as a user without a name
            tags["mlflow.user"] = getpass.getuser()
        if parent:
            tags["mlflow.parentRunId"] = parent
        path = self._run_dir / journal.FILE_NAME
        first = next(journal.read(path), None) if path.exists() else None
        start = int(first["time"] * 1000) if first else None
        return self._client.create_run(self._experiment_id, start_time=start, tags=tags, run_name=self._name)

    def _is_for_another_to_make(self) -> bool:
        """Whether who began the study may still make its run; the wait begins when MLflow first answers."""
        if not sharing.has_joined(self._run_dir):
            return False
        if not self.sent.waits_until:
            self.sent.waits_until = time.time() + _SECONDS_FOR_WHO_BEGAN + _SECONDS_APART * random.random()
            self.sent.save(self._run_dir)
        return time.time() < self.sent.waits_until

    def _learn(self, run: Run) -> None:
        """Asks MLflow which parameters it has, and which steps of each metric.

        After a resume the same steps come again at another time, and another machine may send some of them.
        """
        self._parameters = set(run.data.params)
        history = self._client.get_metric_history
        arrived = {name: {m.step for m in history(run.info.run_id, name)} for name in run.data.metrics}
        self._arrived = defaultdict(set, arrived)

    def _send_status(self, status: str) -> None:
        """Tells MLflow how the run stands.

        A study on several machines is finished when one of them says so, and only that one may take it back.
        """
        if status in ("", self.sent.status):
            return
        end = None if status == "RUNNING" else self._end()
        if not (self._finished_by_another() and status != "FINISHED"):
            if status == "RUNNING":
                self._client.update_run(self._run_id, status)
            else:
                self._client.set_terminated(self._run_id, status, end)
        self.sent.status = status
        self.sent.save(self._run_dir)

    def _end(self) -> int | None:
        """When the run ended, in milliseconds since the epoch."""
        result, path = self._run_dir / "result.json", self._run_dir / journal.FILE_NAME
        last = next((file.stat().st_mtime for file in (result, path) if file.exists()), None)
        return int(last * 1000) if last else None

    def _finished_by_another(self) -> bool:
        if not self._shared or self.sent.status == "FINISHED":
            return False
        return str(self._client.get_run(self._run_id).info.status) == "FINISHED"

    def _send_parameters(self) -> None:
        recipe = {} if self.sent.parameters else folder.recipe(self._run_dir)
        if recipe:
            self._log_parameters(names.flattened(recipe))
            self.sent.parameters = True

    def _log_parameters(self, parameters: Mapping[str, str]) -> None:
        """Sends those that MLflow has not got: it refuses another value, as another machine's recipe may have it."""
        new = [Param(name, value) for name, value in parameters.items() if name not in self._parameters]
        for start in range(0, len(new), _PARAMETERS_A_BATCH):
            self._client.log_batch(self._run_id, params=new[start : start + _PARAMETERS_A_BATCH])
        self._parameters.update(parameters)

    def _send_trial(self, ended: bool) -> None:
        """Sends what the study says of this run; its metrics at the run's last step, once the run is over."""
        found = trial.read(self._run_dir)
        if found is None or self.sent.trial == (digest := _digest(found, ended)):
            return
        self._client.log_batch(self._run_id, tags=[RunTag(name, value) for name, value in found.tags.items()])
        self._log_parameters(found.parameters)
        if ended:
            last = max((step for steps in self._arrived.values() for step in steps), default=0)
            milliseconds = self._end() or 0
            new = {name: value for name, value in found.metrics.items() if not self._arrived[name]}
            metrics = [Metric(name, value, milliseconds, last) for name, value in new.items()]
            self._client.log_batch(self._run_id, metrics=metrics)
            for name in new:
                self._arrived[name].add(last)
        self.sent.trial = digest
        self.sent.save(self._run_dir)

    def _send_dataset(self) -> None:
        found = None if self.sent.dataset else folder.dataset(self._run_dir)
        if not found:
            return
        profile = json.dumps(found, default=str)
        source = json.dumps({"tags": {"mlflow.source.name": f"snnsl_plugin.datasets.{found['name']}"}})
        entity = Dataset(str(found["name"])[:500], found["digest"], "code", source, profile=profile)
        tag = InputTag("mlflow.data.context", "training")
        self._client.log_inputs(self._run_id, datasets=[DatasetInput(entity, [tag])])
        self.sent.dataset = True

    def _send_metrics(self, stands: str) -> None:
        """Sends the journal's new lines; of each name and step the first value stays."""
        lines = new_lines(self._run_dir / journal.FILE_NAME, self.sent.journal_bytes, self.sent.tail)
        if lines.rewound or (self._shared and any(lines.events())):
            run = self._client.get_run(self._run_id)
            self._learn(run)
            if self._shared and stands == "RUNNING" and run.info.status in ("FAILED", "KILLED"):
                self._client.update_run(self._run_id, "RUNNING")  # another machine gave up, this one goes on
        batch: list[Metric] = []
        end = 0
        for end, event in lines.events():
            batch += self._not_arrived(event)
            if len(batch) >= _METRICS_A_BATCH:
                self._send_batch(batch, end, lines.tail(end))
                batch = []
        if end:
            self._send_batch(batch, end, lines.tail(end))

    def _not_arrived(self, event: dict[str, Any]) -> list[Metric]:
        step, milliseconds = event["step"], int(event["time"] * 1000)
        values = {names.allowed(name): value for name, value in event["metrics"].items()}
        new = {name: value for name, value in values.items() if step not in self._arrived[name]}
        for name in new:
            self._arrived[name].add(step)
        return [Metric(name, value, milliseconds, step) for name, value in new.items()]

    def _send_batch(self, batch: list[Metric], end: int, tail: str) -> None:
        for start in range(0, len(batch), _METRICS_A_BATCH):
            self._client.log_batch(self._run_id, metrics=batch[start : start + _METRICS_A_BATCH])
        self.sent.journal_bytes, self.sent.tail = end, tail
        self.sent.save(self._run_dir)

    def _send_files(self, stands: str) -> None:
        ended = stands != "RUNNING"
        for name, state in folder.files(self._run_dir, ended).items():
            before = self.sent.artifacts.get(name)
            if before == state or (before and not ended and time.time() - before[1] / 1e9 < _SECONDS_BETWEEN_DRAFTS):
                continue
            if ended and stands != "FINISHED" and self._finished_by_another():
                # What it shows is the study's end; this machine's part of it ended otherwise.
                self.sent.artifacts[name] = state
                self.sent.save(self._run_dir)
                continue
            with patience.patient_upload():
                parent = Path(name).parent.as_posix()
                self._client.log_artifact(self._run_id, str(self._run_dir / name), None if parent == "." else parent)
            self.sent.artifacts[name] = state
            self.sent.save(self._run_dir)


def _digest(found: trial.Trial, ended: bool) -> str:
    return hashlib.sha256(repr((found, ended)).encode()).hexdigest()[:16]
