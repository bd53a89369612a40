"""The one process of a machine that looks after a study: starts workers, hears them, writes down what they found."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from snnsl_plugin.errors import SnnslError
from snnsl_plugin.recipe import folder
from snnsl_plugin.tracking.journal import Journal
from snnsl_plugin.training.events import Epoch
from snnsl_plugin.training.ranks import Ranks
from snnsl_plugin.tuning import collect, study, together
from snnsl_plugin.tuning.attempt import mark_lost, patiently
from snnsl_plugin.tuning.crew import Crew, Heard
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


class Head:
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


def _sentence(row: dict[str, Any]) -> str:
    measures = ", ".join(f"{name} {value:,.4g}" for name, value in row["measures"].items())
    return f"trial {row['number']} {row['state']}" + (f": {row['why'] or measures}" if row["why"] or measures else "")
