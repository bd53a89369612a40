"""Runs side by side: each in a process of its own on one thread, so that none can stop, slow or colour another."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from snnsl_plugin.comparison.failures import sentence

#: What every run imports, loaded once by the process that all others are forked from.
_PRELOADED = (
    "snnsl_plugin.recipe.runner",
    "snnsl_plugin.recipe.report",
    "snnsl_plugin.for_nni.driven_builtin",
    "snnsl_plugin.for_nni.driven_dynamic",
    "snnsl_plugin.for_torch_pruning.driven_cuts",
    "snnsl_plugin.for_torch_pruning.driven_dynamic",
)


@dataclass(frozen=True)
class Job:
    """One run to train.

    Attributes:
        name: of the run.
        recipe: as plain data.
        folder: its run folder.
        log: the file that takes what it prints.
        epochs: that it trains.
        permitted: code of the user's own that it may import, `package.module:function`.
    """

    name: str
    recipe: dict[str, Any]
    folder: Path
    log: Path
    epochs: int
    permitted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """What is told of a job: its state, epochs done, and the sentence of a failure."""

    job: Job
    state: Literal["epoch", "finished", "failed"]
    epoch: int = 0
    error: str | None = None


@dataclass
class _Worker:
    job: Job
    process: BaseProcess
    channel: Connection


def train(next_job: Callable[[], Job | None], *, workers: int, tell: Callable[[Progress], None]) -> None:
    """Trains jobs, so many at a time; a run folder that was begun goes on from its checkpoint.

    A job that fails, or whose process dies, stops no other. If this process dies, however it does, its workers end at
    once, and every run can be resumed; so it is after an interrupt, which is passed on.

    Args:
        next_job: gives the next one; None where there is none, until the end of another brings more.
        workers: how many at the same time, >= 1.
        tell: is told of every step, in this process; it may bring more jobs.
    """
    running: list[_Worker] = []
    context = _context()
    with _interruptible(running):
        while True:
            while len(running) < workers and (job := next_job()):
                running.append(_start(context, job))
            if not running:
                return
            ready = wait([each for worker in running for each in (worker.channel, worker.process.sentinel)])
            for worker in [each for each in running if each.channel in ready or each.process.sentinel in ready]:
                for progress in _heard(worker):
                    if progress.state != "epoch":
                        worker.process.join()
                        worker.channel.close()
                        running.remove(worker)
                    tell(progress)


def _heard(worker: _Worker) -> Iterator[Progress]:
    """What a worker has said since, and its end if it died without a word."""
    try:
        while worker.channel.poll():
            word, value = worker.channel.recv()
            if word == "epoch":
                yield Progress(worker.job, "epoch", epoch=value)
            else:
                yield Progress(worker.job, word, error=value)
                return
    except (EOFError, OSError):
        worker.process.join()
        yield Progress(worker.job, "failed", error=_death(worker))
        return
    if not worker.process.is_alive() and not worker.channel.poll():
        yield Progress(worker.job, "failed", error=_death(worker))


def _death(worker: _Worker) -> str:
    code = worker.process.exitcode
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = " (was the memory full?)" if -code == getattr(signal, "SIGKILL", 9) else ""
        return f"its process was ended by {name}{hint}; --resume trains it again"
    return f"its process ended with status {code} and said nothing; {worker.job.log} may say more"


def _context() -> BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    return context


def _start(context: BaseContext, job: Job) -> _Worker:
    ours, theirs = context.Pipe()
    process: BaseProcess = context.Process(target=_work, args=(job, theirs), daemon=True)  # type: ignore[attr-defined]
    process.start()
    theirs.close()
    return _Worker(job, process, ours)


@contextmanager
def _interruptible(running: list[_Worker]) -> Iterator[None]:
    try:
        yield
    finally:
        for worker in running:  # empty but after an interrupt or an error
            worker.process.terminate()
        for worker in running:
            worker.process.join()
            worker.channel.close()


# ------------------------------------------------------------------------------------------------------- in a worker


def _work(job: Job, channel: Connection) -> None:
    # The terminal interrupts all its processes; the one that started this one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(channel,), daemon=True).start()
    _write_output_to(job.log)
    try:
        _train(job, channel)
    except Exception as error:
        traceback.print_exc()
        channel.send(("failed", sentence(error)))
    except SystemExit as error:
        channel.send(("failed", sentence(error)))
    else:
        channel.send(("finished", None))
    channel.close()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # All is written. A thread that a pruner has left behind would keep the process, and the comparison, for ever.
    os._exit(0)


def _train(job: Job, channel: Connection) -> None:
    from snnsl_plugin.recipe import folder
    from snnsl_plugin.recipe.runner import run
    from snnsl_plugin.recipe.schema import Recipe
    from snnsl_plugin.training.events import Epoch, Event

    def tell(phase: str, event: Event) -> None:
        if isinstance(event, Epoch):
            channel.send(("epoch", event.epoch))

    if job.permitted:
        from snnsl_plugin.models._permission import permit

        for target in job.permitted:
            permit(target)
    run(
        Recipe.model_validate(job.recipe),
        run_dir=job.folder,
        resume=folder.identity(job.folder) is not None,
        on_event=tell,
        name=job.name,
    )


def _end_with_parent(channel: Connection) -> None:
    """Ends this process with the one that started it: its end of the channel closes, whatever has killed it."""
    try:
        channel.recv()
    except (EOFError, OSError):
        os._exit(1)


def _write_output_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
