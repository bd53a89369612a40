"""A process with MLflow in it, for the tests: one JSON command a line on stdin, one JSON answer a line on stdout."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_HTTP_REQUEST_MAX_RETRIES="1", MLFLOW_HTTP_REQUEST_TIMEOUT="5")

from mlflow import MlflowClient
from mlflow.entities import ViewType

from snnsl_plugin.tracking import progress, sender


class Killed(BaseException):
    """Stands for a SIGKILL of the sender."""


def answer(request: dict[str, Any]) -> Any:
    uri, run_dir, experiment = request["uri"], Path(request["run_dir"]), request["experiment"]
    if request["command"] == "sync":
        return sender.sync(run_dir, uri, experiment)
    if request["command"] == "follow":
        return sender.follow(run_dir, uri, experiment, patience=request.get("patience", 0.0))
    if request["command"] == "sync without a file store":
        with patch.object(MlflowClient, "log_artifact", side_effect=OSError("the file store is gone")):
            return sender.sync(run_dir, uri, experiment)
    if request["command"] == "die after create_run":
        with patch.object(progress.Progress, "save", side_effect=Killed):
            try:
                sender.sync(run_dir, uri, experiment)
            except Killed:
                return True
        return False
    if request["command"] == "die during":
        return died(run_dir, uri, experiment, request["method"], request["calls"])
    if request["command"] == "sync without":
        return sync_without(run_dir, uri, experiment, request["method"], request["name"])
    client = MlflowClient(uri)
    experiments = [client.get_experiment_by_name(experiment).experiment_id]
    if request["command"] == "delete":
        return client.delete_run(request["run_id"])
    filter_ = f"tags.`snnsl.run_dir_id` = '{request['tag']}'"
    return [described(client, run) for run in client.search_runs(experiments, filter_, ViewType.ALL)]


def died(run_dir: Path, uri: str, experiment: str, method: str, calls: int) -> bool:
    """Sends until MLflow has taken so many calls of a method; the sender dies before it hears so."""
    real, left = getattr(MlflowClient, method), [calls]

    def last_words(self: MlflowClient, *arguments: Any, **options: Any) -> Any:
        taken = real(self, *arguments, **options)
        left[0] -= 1
        if not left[0]:
            raise Killed
        return taken

    with patch.object(MlflowClient, method, last_words):
        try:
            sender.sync(run_dir, uri, experiment)
        except Killed:
            return True
    return False


def sync_without(run_dir: Path, uri: str, experiment: str, method: str, name: str) -> bool:
    """Sends while MLflow refuses a method for the one run of a name."""
    real = getattr(MlflowClient, method)

    def refused(self: MlflowClient, run_id: str, *arguments: Any, **options: Any) -> Any:
        if self.get_run(run_id).info.run_name == name:
            raise OSError("refused")
        return real(self, run_id, *arguments, **options)

    with patch.object(MlflowClient, method, refused):
        return sender.sync(run_dir, uri, experiment)


def described(client: MlflowClient, run: Any) -> dict[str, Any]:
    run_id = run.info.run_id
    history = {name: client.get_metric_history(run_id, name) for name in run.data.metrics}
    folders = ["", "figures"]
    return {
        "id": run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "parameters": run.data.params,
        "tags": run.data.tags,
        "steps": {name: sorted(m.step for m in metrics) for name, metrics in history.items()},
        "values": {name: [str(m.value) for m in metrics] for name, metrics in history.items()},
        "files": sorted(f.path for folder in folders for f in client.list_artifacts(run_id, folder) if not f.is_dir),
        "datasets": [(i.dataset.name, i.dataset.digest) for i in run.inputs.dataset_inputs],
        "seconds": (run.info.end_time - run.info.start_time) / 1000 if run.info.end_time else None,
    }


for line in sys.stdin:
    try:
        reply = {"value": answer(json.loads(line))}
    except Exception as error:
        reply = {"error": f"{type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()
