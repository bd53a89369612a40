"""What is known of a run's picture in MLflow, without importing mlflow."""

from __future__ import annotations

from pathlib import Path

from snnsl_plugin.tracking import progress


def mlflow_run_id(run_dir: Path) -> str | None:
    """MLflow's id of a run, or None where MLflow has not answered yet."""
    sent = progress.load(run_dir)
    return sent.mlflow_run_id if sent else None
