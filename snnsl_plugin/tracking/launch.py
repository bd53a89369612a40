"""Starts the sender as a process of its own, so that MLflow can neither slow nor stop a training run."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path

_logger = logging.getLogger(__name__)

# A sender outlives its run on purpose; Python warns of a running process that nobody holds on to.
_started: list[subprocess.Popen[bytes]] = []


def default_uri(runs_root: Path) -> str:
    """The MLflow database beside the runs, `sqlite:///<runs_root>/mlflow.db`; artifacts are in `mlartifacts` there.

    Args:
        runs_root: the folder that holds the run folders.
    """
    return f"sqlite:///{runs_root.resolve().as_posix()}/mlflow.db"


def launch(run_dir: Path, *, uri: str | None, experiment: str) -> subprocess.Popen[bytes] | None:
    """Starts a sender for one run folder and returns at once; call it with the run's lock `RUN_DIR/.lock` held.

    The sender takes a session of its own, so a Ctrl-C in the terminal or the end of the training process does not stop
    it, and the lowest sensible priority, so training keeps the processor. It writes to `RUN_DIR/tracking/sender.log`.

    Args:
        run_dir: the run folder.
        uri: where MLflow is; None for the environment's MLFLOW_TRACKING_URI, and without that the database beside the
            runs (`default_uri`).
        experiment: MLflow's experiment, made if it does not exist.

    Returns:
        The process; None where it could not be started, which is logged and never raised: a run without its picture
        in MLflow is still a run.
    """
    run_dir = run_dir.resolve()
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(run_dir.parent)
    command = [sys.executable, "-m", "snnsl_plugin.tracking.sender", str(run_dir), "--experiment", experiment]
    try:
        (run_dir / "tracking").mkdir(parents=True, exist_ok=True)
        with (run_dir / "tracking" / "sender.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
                # The address goes by the environment: it can hold a password, and everyone can read a command line.
                # Numeric libraries would each start a thread per processor, beside the ones that train.
                env={**os.environ, "MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1"},
            )
    except (OSError, ValueError) as error:
        _logger.warning("tracking: no sender for %s (%s); send it later with: %s", run_dir, error, shlex.join(command))
        return None
    _started[:] = [earlier for earlier in _started if earlier.poll() is None] + [process]
    return process
