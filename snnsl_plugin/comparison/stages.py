"""Lets the courses of all rows run side by side, each run trained once, whoever asks for it."""

from __future__ import annotations

import heapq
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from snnsl_plugin.comparison import store
from snnsl_plugin.comparison.courses import Course, Run, course
from snnsl_plugin.comparison.failures import sentence
from snnsl_plugin.comparison.plan import Plan, Row, prepare
from snnsl_plugin.comparison.workers import Job, Progress, train
from snnsl_plugin.errors import BadCheckpoint
from snnsl_plugin.recipe import folder
from snnsl_plugin.recipe.digest import digest

_log = logging.getLogger(__name__)
LOGS = "logs"


@dataclass(frozen=True)
class Told:
    """What a listener hears.

    Attributes:
        stage: `plan` or `train`.
        done: rows planned, or epochs trained.
        total: how many there are; more may come while budgets are searched for.
        what: the row or the run that has come to its end; empty where one only moved on.
        error: the sentence of its failure, where it is one.
    """

    stage: str
    done: int
    total: int
    what: str = ""
    error: str | None = None


Listener = Callable[[Told], None]


@dataclass
class _Going:
    """A row's course, and the runs that it waits for."""

    row: Row
    course: Course
    asked: Sequence[Run] = ()


class Stages:
    """A comparison at work.

    Args:
        made: what is to be trained.
        run_dir: its folder, held by this process.
        root: where finished runs are looked for besides.
        workers: runs at the same time.
        permitted: code of the user's own that runs may import.
        listen: is told how far it is.
    """

    def __init__(
        self, made: Plan, run_dir: Path, root: Path, workers: int, permitted: tuple[str, ...], listen: Listener
    ) -> None:
        self._made, self._run_dir, self._workers = made, run_dir, workers
        #: the sentence of each run that failed, by its name
        self.errors: dict[str, str] = {}
        self._root, self._permitted, self._listen = root, permitted, listen
        self._own = (run_dir / store.RUNS).resolve()
        self._courses: list[_Going] = []
        self._queue: list[tuple[int, int, Run]] = []
        #: folders of finished runs, by digest; those of this comparison join when they end
        self._known: dict[str, Path] = {}
        self._digests: dict[str, str] = {}
        #: epochs of the runs that were asked for, all and those done, by the run's name
        self._epochs: dict[str, int] = {}
        self._done: dict[str, int] = {}

    def plan(self) -> None:
        """Finds out who can take part, and how much each has to keep, as far as that shows before training."""
        rows = self._made.rows
        for number, row in enumerate(rows):
            with redirect_stdout(sys.stderr):  # where a host's pruner may print, and stdout may be read as JSON
                prepare(row)
            self._listen(Told("plan", number + 1, len(rows), row.name if row.error else "", row.error))

    def train(self) -> None:
        """Trains all that is not finished; an interrupt leaves what can be resumed."""
        self._known = store.finished(self._root, self._run_dir.parent)
        dense = {row.task.name: row for row in self._made.rows if row.kind == "dense"}
        self._courses = [
            _Going(row, course(row, dense[row.task.name], self.place)) for row in self._made.rows if row.error is None
        ]
        self._go_on()
        train(self._next_job, workers=self._workers, tell=self._hear)

    def place(self, name: str) -> Path:
        """The folder of a run."""
        return self._run_dir / store.RUNS / name

    # ------------------------------------------------------------------------------------------------------- inside

    def _go_on(self) -> None:
        """Lets every course go on whose runs have ended, until all wait or are over."""
        moving = True
        while moving:
            moving = False
            for going in list(self._courses):
                # Every run is looked at, not those up to the first that trains: all of them are queued at once.
                ended = [self._has_ended(run) for run in going.asked]
                if all(ended):
                    moving = True
                    self._advance(going)

    def _advance(self, going: _Going) -> None:
        failures = {run.name: self.errors[run.name] for run in going.asked if run.name in self.errors}
        try:
            going.asked = going.course.send(failures if going.asked else None)
        except StopIteration:
            self._courses.remove(going)
        except (Exception, SystemExit) as error:  # what measuring a row's runs meets is that row's failure alone
            _log.info("%s failed", going.row.name, exc_info=True)
            going.row.error = sentence(error)
            self._courses.remove(going)

    def _has_ended(self, run: Run) -> bool:
        """Whether a run is over; one that nobody has asked for before is queued, or taken over from an earlier one."""
        if run.name not in self._epochs:
            self._epochs[run.name], self._done[run.name] = run.recipe.train.epochs, 0
            own, path = digest(run.recipe), self.place(run.name)
            finished = _is_finished(path, own)
            self._digests[run.name] = own
            source = None if run.measures_time else self._known.get(own)
            if not finished and source and store.may_be_taken_over(run.recipe, source, self._own):
                finished = self._took_over(run.name, source)
            if finished:
                self._end(run.name)
            else:
                heapq.heappush(self._queue, (run.turn, len(self._epochs), run))
        return self._done[run.name] == self._epochs[run.name]

    def _took_over(self, name: str, source: Path) -> bool:
        from_elsewhere = not source.is_relative_to(self._own)
        try:
            store.take_over(source, self.place(name), note=from_elsewhere)
        except OSError as error:  # gone since it was found, or no room: there is still the training
            _log.warning("%s cannot be taken over from %s (%s), so it is trained", name, source, error)
            return False
        return True

    def _next_job(self) -> Job | None:
        if not self._queue:
            return None
        _, _, run = heapq.heappop(self._queue)
        data, log = run.recipe.model_dump(mode="json", by_alias=True), self._run_dir / LOGS / f"{run.name}.log"
        return Job(run.name, data, self.place(run.name), log, run.recipe.train.epochs, self._permitted)

    def _hear(self, progress: Progress) -> None:
        if progress.state == "epoch":
            # The last epoch is not yet the end: the run is measured after it.
            self._done[progress.job.name] = min(progress.epoch, progress.job.epochs - 1)
            self._tell()
        elif progress.state in ("finished", "failed"):
            self._end(progress.job.name, progress.error)
            self._go_on()

    def _end(self, name: str, error: str | None = None) -> None:
        self._done[name] = self._epochs[name]
        if error is not None:
            self.errors[name] = error
        else:
            self._known.setdefault(self._digests[name], self.place(name).resolve())
        self._tell(name, error)

    def _tell(self, what: str = "", error: str | None = None) -> None:
        # Rows that still search have not asked for the runs that count.
        to_come = sum(
            len(going.row.seeds) * (going.row.epochs or going.row.task.recipe.train.epochs)
            for going in self._courses
            if not any(run.turn for run in going.asked)
        )
        self._listen(Told("train", sum(self._done.values()), sum(self._epochs.values()) + to_come, what, error))


def _is_finished(path: Path, own: str) -> bool:
    try:
        done = folder.result(path)
    except BadCheckpoint:  # damaged: trained anew
        return False
    return bool(done and done["status"] == "finished" and done["digest"] == own and store.is_whole(path))
