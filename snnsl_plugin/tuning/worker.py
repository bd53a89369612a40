"""A worker: an ordinary process that takes tickets until none waits. `python -m snnsl_plugin.tuning.worker`.

It is started by `crew`, which reads what it says from its standard output, one JSON line each. Its standard input is a
life line: when that closes, whoever started it is gone, and it ends at once.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

#: The database's address goes by the environment: it can hold a password, and everyone can read a command line.
STORAGE = "SNNSL_TUNE_STORAGE"


def main(arguments: list[str] | None = None) -> int:
    """The command line of a worker; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m snnsl_plugin.tuning.worker")
    parser.add_argument("study_dir", type=Path)
    parser.add_argument("--worker", required=True)
    parser.add_argument("--until", type=float, default=None, help="seconds since the epoch; no trial begins later")
    parser.add_argument("--permit", action="append", default=[], help="code that may be imported")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal interrupts all its processes; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    say = _voice(options.study_dir / "logs" / f"worker-{options.worker}.log")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    _work(options.study_dir, options.worker, options.until, options.permit, say)
    return 0


def _work(study_dir: Path, worker: str, until: float | None, permitted: list[str], say: TextIO) -> None:
    from snnsl_plugin.models._permission import permit
    from snnsl_plugin.training.events import Epoch
    from snnsl_plugin.tuning import study
    from snnsl_plugin.tuning.attempt import carry_out, patiently
    from snnsl_plugin.tuning.ledger import Holder

    def tell(word: str, **facts: Any) -> None:
        say.write(json.dumps({"event": word, **facts}) + "\n")
        say.flush()

    for target in permitted:
        permit(target)
    opened = patiently(lambda: study.reopen(study_dir, os.environ[STORAGE]))
    tune, holder = opened.tune, Holder(opened.place, worker)
    while until is None or time.time() < until:
        trial = patiently(lambda: opened.claim(holder))
        if trial is None:
            break
        number = trial.number
        tell("begun", trial=number)

        def on_epoch(event: Epoch, number: int = number) -> None:
            tell("epoch", trial=number, epoch=event.epoch, epochs=event.epochs, accuracy=event.validation_accuracy)

        with opened.ledger.alive(trial):
            broken = carry_out(opened.recipe, tune, opened.ledger, trial, study_dir, on_epoch)
        tell("ended", trial=number)
        if broken:  # such as an error of a GPU: the next trial gets a process that has met nothing
            break


def _end_with_parent() -> None:
    # os.read: a lock of Python's own stream would be held by this thread when the process ends.
    while os.read(0, 1024):
        pass
    os._exit(1)


def _voice(log: Path) -> TextIO:
    """The parent's ear; all that libraries print goes to a log of the worker's own."""
    log.parent.mkdir(parents=True, exist_ok=True)
    say = os.fdopen(os.dup(1), "w")
    own = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(own, stream)
    os.close(own)
    return say


if __name__ == "__main__":
    sys.exit(main())
