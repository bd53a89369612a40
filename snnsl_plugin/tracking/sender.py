"""Follows run folders and keeps their picture in MLflow up to date: `python -m snnsl_plugin.tracking.sender RUN_DIR`.

A process of its own, started by `launch`. It may be killed at any moment: the next sender goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout

from snnsl_plugin.errors import MissingExtra, SnnslError
from snnsl_plugin.tracking import folder, progress
from snnsl_plugin.tracking.family import members
from snnsl_plugin.tracking.launch import default_uri
from snnsl_plugin.tracking.patience import PROCESS_SETTINGS
from snnsl_plugin.tracking.sending import Sender

_logger = logging.getLogger(__name__)

_POLL_SECONDS = 2.0


def follow(run_dir: Path, uri: str, experiment: str, patience: float = 600.0) -> bool:
    """Follows a run until it is over and sent, then sends what other runs beside it are still missing.

    While another sender has the folder this one waits: a run that was killed and goes on may find the sender of its
    first life at work.

    Args:
        run_dir: the run folder.
        uri: where MLflow is.
        experiment: MLflow's experiment.
        patience: seconds to go on trying after the training has ended.

    Returns:
        Whether MLflow has all of this run; if not, `tracking/sent.json` says what is missing.

    Raises:
        BadOption: an address that MLflow cannot take.
        MissingExtra: mlflow cannot be imported.
    """
    sender = Sender(uri, experiment)
    with _sender_lock(run_dir, timeout=-1):
        sender.note_missing(run_dir, folder.is_training(run_dir))
        ended: float | None = None
        while True:
            training = folder.is_training(run_dir)
            arrived = sender.send(run_dir, training)
            ended = None if training else ended or time.monotonic()
            if arrived or (ended is not None and time.monotonic() - ended >= patience):
                break
            time.sleep(_POLL_SECONDS)
        sender.note_missing(run_dir, training)
    if arrived:
        backfill(run_dir, uri)
    return arrived


def sync(run_dir: Path, uri: str, experiment: str, patience: float = 0.0) -> bool:
    """Sends what a run folder holds by now, whether or not the run is over; True where MLflow then has it.

    It imports mlflow into the calling process, with MLflow's own patience for a server that is gone (minutes); in a
    process of its own, `python -m snnsl_plugin.tracking.sender RUN_DIR --once`, it takes seconds.

    Args:
        run_dir: the run folder.
        uri: where MLflow is.
        experiment: MLflow's experiment.
        patience: seconds to go on trying.

    Raises:
        BadOption: an address that MLflow cannot take.
        MissingExtra: mlflow cannot be imported.
    """
    sender, start = Sender(uri, experiment), time.monotonic()
    try:
        with _sender_lock(run_dir, timeout=patience):
            while True:
                training = folder.is_training(run_dir)
                arrived = sender.send(run_dir, training) or sender.went_through()
                if arrived or time.monotonic() - start >= patience:
                    break
                time.sleep(_POLL_SECONDS)
            sender.note_missing(run_dir, training)
    except Timeout:
        _logger.warning("tracking: another sender is at work on %s", run_dir)
        return False
    return arrived


def backfill(run_dir: Path, uri: str) -> None:
    """Sends the runs beside this one that are over, are not wholly in the same MLflow, and have no sender."""
    for path in sorted(run_dir.resolve().parent.iterdir()):
        sent = progress.load(path)
        if path == run_dir.resolve() or sent is None or sent.uri != progress.without_password(uri):
            continue
        below = (progress.load(each.path) for each in members(path))
        if all(each is not None and each.complete for each in below):
            continue
        with contextlib.suppress(Timeout), _sender_lock(path, timeout=0):
            if not folder.is_training(path):
                sender = Sender(uri, sent.experiment)
                sender.send(path, training=False)
                sender.note_missing(path, training=False)


def main(arguments: list[str] | None = None) -> int:
    """The command line of the sender; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m snnsl_plugin.tracking.sender", description=follow.__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    parser.add_argument("--uri", help="default: MLFLOW_TRACKING_URI, or the database beside the runs")
    parser.add_argument("--experiment", default="snnsl")
    parser.add_argument("--patience", type=float, default=None, metavar="SECONDS")
    parser.add_argument("--once", action="store_true", help="send what is there and stop; exit status 2 if it failed")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    os.environ.update(PROCESS_SETTINGS)
    run_dir = options.run_dir.resolve()
    uri = options.uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(run_dir.parent)
    try:
        if options.once:
            return 0 if sync(run_dir, uri, options.experiment, options.patience or 0.0) else 2
        if hasattr(os, "nice"):
            os.nice(10)  # training comes first
        follow(run_dir, uri, options.experiment, 600.0 if options.patience is None else options.patience)
    except MissingExtra as error:
        print(error, file=sys.stderr)
    except SnnslError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


def _sender_lock(run_dir: Path, timeout: float) -> FileLock:
    (run_dir / "tracking").mkdir(parents=True, exist_ok=True)
    return FileLock(str(run_dir / "tracking" / ".lock"), timeout=timeout)


if __name__ == "__main__":
    sys.exit(main())
