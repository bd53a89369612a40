"""From a recipe with a `tune` block to a study folder: trials trained by workers, side by side, and what they found."""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from snnsl_plugin.errors import BadOption, RunFolderInUse, SnnslError
from snnsl_plugin.for_nni.study import check_sampler
from snnsl_plugin.models._permission import permit
from snnsl_plugin.recipe import assemble, data_parallel, folder
from snnsl_plugin.recipe.load import dump
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.tracking.journal import Journal
from snnsl_plugin.tracking.launch import launch
from snnsl_plugin.tracking.sharing import adopt_identity
from snnsl_plugin.training.checkpoint import write_text
from snnsl_plugin.training.events import Epoch
from snnsl_plugin.training.ranks import ALONE, Ranks, undisturbed
from snnsl_plugin.tuning import collect, study, together
from snnsl_plugin.tuning.attempt import RUNS, mark_lost, patiently
from snnsl_plugin.tuning.crew import Crew, Heard
from snnsl_plugin.tuning.database import Database
from snnsl_plugin.tuning.ledger import Holder
from snnsl_plugin.tuning.proposals import own_point

#: Seconds between two looks at the study, which others may change as well.
_LOOK = 1.0
#: Workers that may die, one after the other, before they have begun a trial.
_STILLBORN = 3


@dataclass
class State:
    """How far a study is, for whoever shows it.

    Attributes:
        found: the content of `study.json` at the last look.
        at_work: what each trial of this machine is at: `epoch`, `epochs`, `accuracy`.
        said: sentences about what has happened since the last time.
    """

    found: dict[str, Any] = field(default_factory=dict)
    at_work: dict[int, dict[str, Any]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


Listener = Callable[[State], None]


def tune(
    recipe: Recipe,
    *,
    name: str,
    run_dir: Path | None = None,
    resume: bool = False,
    storage: str | None = None,
    workers: int | None = None,
    permitted: Sequence[str] = (),
    listen: Listener | None = None,
    on_start: Callable[[Path], None] | None = None,
    root: Path = Path("runs"),
    command: str = "",
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Searches what the recipe's `tune` block says, and leaves a study folder.

    The study lives in a database. Whoever opens the same one, on this machine or another, takes part in it. A trial
    that fails stops no other; one whose worker dies is given to another worker, and goes on from its checkpoint where
    that is on the same machine.

    Args:
        recipe: with a `tune` block.
        name: of the recipe, of the study, and of new folders.
        run_dir: the folder to use; a numbered one below `root` where omitted.
        resume: go on with a study that was killed or interrupted.
        storage: URL of the database; the recipe's, or a sqlite file in the folder, where omitted.
        workers: trials at the same time; the recipe's where omitted. 0 trains nothing, and only collects.
        permitted: code of the user's own that may be imported, `package.module:function`.
        listen: is told how far it is.
        on_start: is told the folder.
        root: where numbered folders are made.
        command: that repeats this, for the report.
        ranks: processes that train every trial together, one trial after the other, for networks too large for one
            device; each of them makes this call. `workers` does not count then.

    Returns:
        The content of `study.json`.

    Raises:
        UsageError: recipe, data, database or call are wrong; nothing was trained, and nothing overwritten.
        SnnslError: workers that die before they begin, or a database that is gone for good.
    """
    began = time.perf_counter()
    for target in permitted:
        permit(target)
    _rehearse(recipe, ranks)
    if not ranks.leads:
        together.follow(recipe, ranks)
        return {}
    own, opened, place = study.digest(recipe), None, uuid.uuid4().hex
    block = study.tune_of(recipe)
    title, url = block.study or name, storage or block.storage
    if url and not resume:
        opened = study.open_study(recipe, title, url, place)  # what is wrong is said before a folder is made
    run_dir = folder.choose(name, own, run_dir=run_dir, resume=resume, root=root)
    with folder.held(run_dir):
        held = folder.identity(run_dir)
        if held and not resume:
            raise RunFolderInUse(f"{run_dir} was taken by another study: choose another --run-dir")
        if held:
            place, title = str(held["place"]), str(held["study"])
            url = _same_study(run_dir, held, block.study, storage)
        opened = opened or study.open_study(recipe, title, url or study.default_storage(run_dir), place)
        if held and not opened.ledger.trials() and any((run_dir / RUNS).glob("*")):
            raise BadOption(
                f"{run_dir} has trials that its database {opened.ledger.shown} does not know, as if it was emptied: "
                "start the study anew with another --run-dir"
            )
        shown = opened.ledger.shown if url else None
        url = url or study.default_storage(run_dir)
        created = (held or {}).get("created") or datetime.now(UTC).isoformat(timespec="seconds")
        identity = {"name": name, "digest": own, "seed": recipe.seed, "study": title, "place": place,
                    "created": created, "storage": shown}  # fmt: skip
        folder.write_json(run_dir / folder.IDENTITY, identity)
        write_text(run_dir / folder.RECIPE, dump(recipe))
        (run_dir / folder.RESULT).unlink(missing_ok=True)
        if on_start:
            on_start(run_dir)
        if recipe.tracking.mlflow:
            if shown:
                adopt_identity(run_dir, opened.ledger.identity, joined=opened.ledger.joined)
            launch(run_dir, uri=recipe.tracking.uri, experiment=recipe.tracking.experiment or name)
        head = _Head(opened, run_dir, url, tuple(permitted), listen or _nobody, command, began)
        status = "failed"
        try:
            head.begin()
            if ranks.world_size > 1:
                head.work_together(ranks)
            else:
                with _interrupts() as asked:
                    head.work(opened.tune.workers if workers is None else workers, asked)
            status = "unfinished" if head.waiting() else "finished"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            with undisturbed() if ranks.world_size > 1 else nullcontext():
                head.end(status)
                result = {"schema": 1, **identity, "status": status}
                folder.write_json(run_dir / folder.RESULT, result)
    return head.state.found


class _Head:
    """The one process of a machine that starts workers, looks after their trials, and writes down what they found."""

    def __init__(
        self,
        opened: study.Opened,
        run_dir: Path,
        url: str,
        permitted: tuple[str, ...],
        listen: Listener,
        command: str,
        began: float,
    ) -> None:
        self._opened, self._ledger, self._run_dir = opened, opened.ledger, run_dir
        self._url, self._permitted, self._listen = url, permitted, listen
        self._command, self._began = command, began
        self._crew: Crew | None = None
        self._journal = Journal(run_dir / folder.JOURNAL, offset=0)
        self._written: set[int] = set()
        self._stillborn = 0
        self.state = State()

    def begin(self) -> None:
        """Takes up what an earlier process of this folder has left, and makes the tickets."""
        self._journal.write("started", 0, recipe=self._opened.ledger.study.study_name)
        # The folder's lock is ours, so whoever worked in it is gone.
        self._lost(self._ledger.lose(None, "its worker died", place=self._opened.place, counts=False), "failed")
        self._ledger.bury()
        # Where hours are the budget, workers make tickets as they need them, all but the first.
        self._ledger.fill(self._opened.tune.trials, own_point(self._opened.recipe))

    def work(self, workers: int, interrupted: Callable[[], bool]) -> None:
        """Keeps so many workers at it until no trial waits or runs anywhere, or the time is over."""
        tune, hours = self._opened.tune, self._opened.tune.hours
        until = time.time() + 3600 * hours if hours else None
        # Of two machines with workers of one name the samplers would draw the same numbers.
        prefix = f"{self._opened.place[:8]}-" if self._ledger.joined else ""
        crew = self._crew = Crew(
            self._run_dir, self._url, [f"{prefix}{number}" for number in range(workers)], until, self._permitted
        )
        buried = time.monotonic()
        while True:
            if interrupted():
                raise KeyboardInterrupt
            trials = patiently(self._ledger.trials)
            open_ = {state: sum(trial.state == state for trial in trials) for state in TrialState}
            over = until is not None and time.time() >= until
            wanted = 0 if over else len(crew.idle) if tune.trials is None else open_[TrialState.WAITING]
            for name in crew.idle[: max(0, wanted)]:
                crew.start(name)
            self._look()
            rest = 0 if over or not workers else open_[TrialState.RUNNING] + open_[TrialState.WAITING]
            if not crew.at_work and not rest and not (tune.trials is None and not over):
                return
            for heard in crew.hear(_LOOK):
                self._hear(heard)
            if time.monotonic() - buried > self._ledger.heartbeat:
                buried = time.monotonic()
                patiently(self._ledger.bury)

    def work_together(self, ranks: Ranks) -> None:
        """Takes one ticket after the other, and trains it with all ranks."""

        def on_epoch(number: int, event: Epoch) -> None:
            at = {"epoch": event.epoch, "epochs": event.epochs, "accuracy": event.validation_accuracy}
            self.state.at_work = {number: at}
            self._listen(self.state)

        for number in together.lead(self._opened, self._run_dir, ranks, on_epoch):
            self.state.at_work.pop(number, None)
            self._look()

    def waiting(self) -> bool:
        """Whether there are trials left that nobody has begun."""
        return bool(patiently(lambda: self._ledger.trials(TrialState.WAITING)))

    def end(self, status: str) -> None:
        """Ends the workers, gives their tickets back, and writes down what there is."""
        if self._crew:
            self._crew.stop()
        if status in ("interrupted", "failed"):
            why = "interrupted" if status == "interrupted" else "the study ended by an error"
            self._lost(self._ledger.lose(None, why, place=self._opened.place, counts=False), "interrupted", why)
        self.state.at_work = {}
        self._look(status)
        self._journal.close()
        from snnsl_plugin.tuning import report

        report.write(self._run_dir)

    # ------------------------------------------------------------------------------------------------------- inside

    def _hear(self, heard: Heard) -> None:
        said = heard.said
        if said is None:
            if heard.death:
                holder, why = Holder(self._opened.place, heard.worker), heard.death
                lost = patiently(lambda: self._ledger.lose(holder, why))
                self._lost(lost, "failed", why)
                self._stillborn = 0 if lost else self._stillborn + 1
                if self._stillborn >= _STILLBORN:
                    raise SnnslError(f"{_STILLBORN} workers died before they began a trial: {heard.death}")
            return
        if said["event"] == "begun":
            self._stillborn = 0
            self.state.at_work[said["trial"]] = {"epoch": 0, "epochs": None, "accuracy": None}
        elif said["event"] == "epoch":
            self.state.at_work[said["trial"]] = {key: said[key] for key in ("epoch", "epochs", "accuracy")}
        elif said["event"] == "ended":
            self.state.at_work.pop(said["trial"], None)
        self._listen(self.state)

    def _lost(self, lost: dict[int, bool], status: str, why: str = "its worker died") -> None:
        mark_lost(self._run_dir, list(lost), why, status)
        for number, again in lost.items():
            self.state.at_work.pop(number, None)
            what = "its ticket goes to another worker" if again else "given up, as after the attempts before"
            self.state.said.append(f"trial {number}: {why}; {what}")

    def _look(self, status: str = "unfinished") -> None:
        """Reads the study, and writes down what is new of it."""
        found = patiently(
            lambda: collect.collect(
                self._opened, self._run_dir, status=status, command=self._command,
                wall_s=time.perf_counter() - self._began,
            )
        )  # fmt: skip
        if found | {"wall_s": 0} != self.state.found | {"wall_s": 0}:
            folder.write_json(self._run_dir / collect.STUDY, found)
        for row in found["trials"]:
            if row["state"] in ("complete", "stopped", "failed") and row["number"] not in self._written:
                self._written.add(row["number"])
                self._journal.write("trial", row["number"], row["measures"], state=row["state"])
                self.state.said.append(_sentence(row))
        self.state.found = found
        self._listen(self.state)
        self.state.said = []


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Asks whether Ctrl-C was pressed, instead of being stopped by it anywhere: also in the middle of a transaction,
    whose lock would then stand in the way of giving the tickets back. A second Ctrl-C does stop it.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    signal.signal(signal.SIGINT, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _sentence(row: dict[str, Any]) -> str:
    measures = ", ".join(f"{name} {value:,.4g}" for name, value in row["measures"].items())
    return f"trial {row['number']} {row['state']}" + (f": {row['why'] or measures}" if row["why"] or measures else "")


def _rehearse(recipe: Recipe, ranks: Ranks) -> None:
    """Says what cannot work before anything is made: the data, the network, the patterns, the rungs."""
    check_sampler(study.tune_of(recipe).sampler, 0)
    if ranks.world_size > 1:
        together.check()
    data_parallel.check(recipe, ranks)
    with ranks.agreed():
        assemble.assemble(recipe, assemble.data(recipe))


def _same_study(run_dir: Path, held: dict[str, Any], title: str | None, storage: str | None) -> str | None:
    """The URL of the database in which the study of a folder lives; None for the file in that folder.

    Args:
        run_dir: the folder.
        held: what it says of itself.
        title: the study's name as the recipe gives it.
        storage: the URL as the call gives it.

    Raises:
        BadOption: recipe or call mean another study; or the URL had a password, which is kept nowhere.
    """
    if title and title != held["study"]:
        raise BadOption(
            f"{run_dir} belongs to study {held['study']!r}, not to {title!r}: leave out tune.study, or choose another "
            "--run-dir"
        )
    url = held["storage"]
    if storage:
        known, given = (Database(each).shown.replace(":***@", "@") for each in (
            url or study.default_storage(run_dir), storage
        ))  # fmt: skip
        if known != given:
            raise BadOption(
                f"{run_dir} has its study in {known}, not in {given}: leave out --storage, or choose another --run-dir"
            )
        return storage if url else None
    if url and ":***@" in url:
        raise BadOption(f"the study is in {url}, and its password is kept nowhere: give --storage again")
    return str(url) if url else None


def _nobody(state: State) -> None:
    """Nobody listens."""
