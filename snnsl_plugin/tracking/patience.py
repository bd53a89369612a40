"""How long MLflow's client waits for its server; knows nothing else of MLflow."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_UPLOAD_SECONDS = "120"

#: The environment of a process that talks to MLflow; set before mlflow is imported.
PROCESS_SETTINGS = {
    # MLflow's defaults wait minutes for a server that is gone; whoever asks does the waiting.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    _TIMEOUT: "5",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    # A research run reports to nobody but the server its owner named.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


@contextlib.contextmanager
def patient_upload() -> Iterator[None]:
    """A store may take its time over a checkpoint; a request for a few numbers is answered in seconds or not at all."""
    before = os.environ.get(_TIMEOUT)
    os.environ[_TIMEOUT] = _UPLOAD_SECONDS
    try:
        yield
    finally:
        os.environ.pop(_TIMEOUT)
        if before is not None:
            os.environ[_TIMEOUT] = before
