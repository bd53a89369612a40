"""The way to one MLflow. Imports mlflow, so only the sender's process imports this file."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient

from snnsl_plugin.errors import SnnslError


def connect(uri: str, experiment: str) -> tuple[MlflowClient, str]:
    """A client of the server or database, and the experiment's id, made if need be.

    A new sqlite database is made under a lock: of several processes that meet a fresh one, MLflow lets all but one
    crash. Its artifacts go beside it.

    Raises:
        SnnslError: somebody deleted the experiment in MLflow.
    """
    database = (
        Path(uri.removeprefix("sqlite:///").partition("?")[0]).resolve() if uri.startswith("sqlite:///") else None
    )
    if database:
        database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock", timeout=60) if database else contextlib.nullcontext():
        if database and not database.exists():
            _make(database)
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            beside = (database.parent / "mlartifacts").as_uri() if database else None
            return client, client.create_experiment(experiment, artifact_location=beside)
    if found.lifecycle_stage == "deleted":
        raise SnnslError(
            f"experiment {experiment!r} was deleted in MLflow; restore it there, or name another experiment"
        )
    return client, found.experiment_id


def _make(database: Path) -> None:
    """Makes the database aside and moves it to its place: MLflow never repairs one whose making was cut short."""
    if os.name == "nt":  # an open file cannot be moved there
        return
    draft = database.with_name(f"{database.name}.part")
    for left in (draft, draft.with_name(f"{draft.name}-journal")):
        left.unlink(missing_ok=True)
    MlflowClient(tracking_uri=f"sqlite:///{draft}").search_experiments(max_results=1)
    os.replace(draft, database)
