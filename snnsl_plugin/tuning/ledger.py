"""Who does which trial: a fixed number of tickets, each handed out once and handed out again when its worker dies.

A ticket is a waiting trial of the study. Workers take tickets and never make trials of their own, so the study ends
with as many as were asked for, however many workers there are and whichever of them die.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from snnsl_plugin.errors import BadOption
from snnsl_plugin.for_nni.study import sampler_of
from snnsl_plugin.tuning.database import Database
from snnsl_plugin.tuning.measures import directions
from snnsl_plugin.tuning.proposals import Space, suggest

_log = logging.getLogger(__name__)
#: Attributes of a trial.
TICKET, HOLDER, RETRY_OF, ATTEMPT, WHY, MEASURED = "ticket", "holder", "retry_of", "attempt", "why", "measured"
#: On a trial whose worker is gone: the attempts that its ticket has used up.
LOST = "lost"
#: What begins the attributes that hold measures at a rung; an attempt inherits them from the one before.
RUNG = "rung/"
#: Workers that may die over one ticket before it is given up.
ATTEMPTS = 3
_LOST = "its worker died"


class Terms(NamedTuple):
    """What a study is: equal for everyone who takes part.

    Attributes:
        name: of the study in its database.
        digest: of the recipe, the space and all that decides what is tried.
        objectives: names of measures.
    """

    name: str
    digest: str
    objectives: list[str]


class Holder(NamedTuple):
    """Who works on a trial: the study's folder on a machine, and the worker in it."""

    place: str
    worker: str


class Ledger:
    """A study and its tickets.

    Args:
        database: where it lives.
        terms: what it is.
        heartbeat: seconds between two signs of life of a trial; that of the study where it is there already, as one
            machine must not bury what another still holds to be alive.
        identity: the study's name for itself on all machines, given to a study that is made here.

    Raises:
        BadOption: the database cannot be used, or holds a study of that name for another recipe.
    """

    def __init__(self, database: Database, terms: Terms, *, heartbeat: int, identity: str) -> None:
        self._database = database
        #: where it lives, without a password
        self.shown = database.shown
        self._storage = database.storage(heartbeat)
        with database.explained(), database.alone(), quiet():
            names = optuna.get_all_study_names(self._storage)
            if terms.name in names:
                self.study = optuna.load_study(study_name=terms.name, storage=self._storage)
                self._check(terms)
            else:
                self.study = optuna.create_study(
                    study_name=terms.name, storage=self._storage, directions=directions(terms.objectives)
                )
                self.study.set_metric_names(terms.objectives)
                self.study.set_user_attr("digest", terms.digest)
                self.study.set_user_attr("identity", identity)
                self.study.set_user_attr("heartbeat", heartbeat)
            #: whether somebody else had made the study
            self.joined = self.identity != identity
            #: seconds between two signs of life of a trial
            self.heartbeat = int(self.study.user_attrs.get("heartbeat", heartbeat))
            database.expect_(self._storage, self.heartbeat)

    @property
    def identity(self) -> str:
        """The study's name for itself, the same on every machine."""
        return str(self.study.user_attrs["identity"])

    def fill(self, total: int | None, first: Mapping[str, Any]) -> None:
        """Makes tickets until there are so many in all.

        Args:
            total: tickets of the whole study; None for one at least.
            first: what the first one tries; a sampler decides what is left open.

        Raises:
            BadOption: more tickets wait than `total` leaves room for.
        """
        with self._database.explained(), self._database.alone(), quiet():
            trials = self._put_back()
            held = {trial.user_attrs.get(TICKET) for trial in trials}
            waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
            if total is not None and any(trial.user_attrs.get(TICKET, 0) >= total for trial in waiting):
                raise BadOption(
                    f"study {self.study.study_name!r} in {self.shown} is to have {len(held)} trials, and "
                    f"{len(waiting)} of them wait: trials can be added, not taken away; ask for {len(held)} or more"
                )
            for number in range(total or 1):
                if number not in held:
                    self.study.enqueue_trial(dict(first) if number == 0 else {}, user_attrs={TICKET: number})

    def claim(self, holder: Holder, space: Space, sampler: str, seed: int, *, endless: bool = False) -> Trial | None:
        """Takes a ticket; its values are chosen before anybody else can take one.

        Args:
            holder: who works on it.
            space: what is searched.
            sampler: one of `for_nni.study.SAMPLERS`.
            seed: of the sampler; each worker and each trial has a stream of its own.
            endless: make a ticket where none waits.

        Returns:
            A trial that runs; None where no ticket waits.
        """
        with self._database.alone(), quiet():
            self._bury_unsigned()
            held = self._put_back()
            if all(trial.state != TrialState.WAITING for trial in held):
                if not endless:
                    return None
                self.fill(1 + len({trial.user_attrs.get(TICKET) for trial in held}), {})
            begun = sum(trial.state != TrialState.WAITING for trial in held)
            self.study.sampler = sampler_of(sampler, seed, f"{holder.worker}/{begun}")
            taken = self.study.ask()
            # A trial without a sign of life is never called dead, so that comes before the signature.
            self._storage.record_heartbeat(taken._trial_id)
            taken.set_user_attr(HOLDER, list(holder))
            suggest(taken, space)
        return taken

    @contextlib.contextmanager
    def alive(self, trial: Trial) -> Iterator[None]:
        """Gives signs of life of a trial while the block runs; a database that does not answer is asked again."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(self.heartbeat):
                try:
                    self._storage.record_heartbeat(trial._trial_id)
                except (SQLAlchemyError, OptunaError) as error:
                    _log.warning("no sign of life of trial %d: %s", trial.number, error)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def note(self, trial: Trial, key: str, value: Any) -> bool:
        """Writes down something of a trial that runs, as `tell`."""
        try:
            trial.set_user_attr(key, value)
        except UpdateFinishedTrialError:
            return False
        return True

    def tell(
        self,
        trial: Trial,
        state: TrialState,
        *,
        values: list[float] | None = None,
        constraints: Mapping[str, float] | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> bool:
        """Ends a trial.

        Args:
            trial: that was claimed.
            state: `COMPLETE`, `PRUNED` where it was stopped early, or `FAIL`.
            values: of the objectives, where it is complete.
            constraints: kept at 0 and below.
            notes: what else is known of it.

        Returns:
            False where it had been called dead and was given to somebody else: its result counts for nothing.
        """
        with self._database.alone(), quiet():
            if self._storage.get_trial(trial._trial_id).state != TrialState.RUNNING:
                return False
            for name, value in (constraints or {}).items():
                trial.set_constraint(name, value)
            for key, note in (notes or {}).items():
                trial.set_user_attr(key, note)
            self.study.tell(trial, values, state=state)
        return True

    def lose(self, holder: Holder | None, why: str, *, place: str = "", counts: bool = True) -> dict[int, bool]:
        """Gives back the tickets of a worker that is gone, or of all workers of a place.

        Args:
            holder: the worker; None for all of `place`.
            why: what happened to it.
            place: a study's folder whose workers are all gone.
            counts: whether it counts as an attempt: one that was interrupted on purpose does not.

        Returns:
            The numbers of the trials that were lost, each with whether somebody else will try again.
        """
        lost: dict[int, bool] = {}
        self._storage.remove_session()  # an interrupt may have left a transaction open
        with self._database.alone(), quiet():
            for trial in self.trials(TrialState.RUNNING):
                by = Holder(*trial.user_attrs.get(HOLDER, ("", "")))
                if by == holder or (holder is None and by.place == place):
                    lost[trial.number] = self._lose(trial, why, counts=counts)
            self._put_back()
        return lost

    def bury(self) -> None:
        """Gives back the tickets of workers anywhere that have given no sign of life."""
        with self._database.alone(), quiet():
            self._bury_unsigned()
            stale = set(self._storage._get_stale_trial_ids(self.study._study_id))
            for trial in self.trials(TrialState.RUNNING):
                if trial._trial_id in stale:
                    self._lose(trial, "it has given no sign of life", counts=True)
            self._put_back()

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """All trials, or those in some states, in the order of their numbers."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def _bury_unsigned(self) -> None:
        # Who takes a ticket signs it before the lock is free again.
        for trial in self.trials(TrialState.RUNNING):
            if HOLDER not in trial.user_attrs:
                self._lose(trial, _LOST, counts=True)

    def _lose(self, trial: FrozenTrial, why: str, *, counts: bool) -> bool:
        """Fails a trial; whether its ticket can go back, which `_put_back` then does."""
        attempt = int(trial.user_attrs.get(ATTEMPT, 0)) + counts
        for key, value in ((WHY, why), (LOST, attempt)):
            self._storage.set_trial_user_attr(trial._trial_id, key, value)
        self._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
        return attempt < ATTEMPTS

    def _put_back(self) -> list[FrozenTrial]:
        """Makes a waiting trial for each ticket that was lost: whoever lost it may have died before he could.

        Returns:
            All trials, the new ones too.
        """
        trials, put = self.trials(), False
        tried_again = {trial.user_attrs.get(RETRY_OF) for trial in trials}
        for trial in trials:
            attempt = trial.user_attrs.get(LOST, ATTEMPTS)
            if trial.state != TrialState.FAIL or attempt >= ATTEMPTS or trial.number in tried_again:
                continue
            inherited = {key: value for key, value in trial.user_attrs.items() if key.startswith(RUNG)}
            # One that died before it had chosen has only what it was told to try.
            self.study.enqueue_trial(
                trial.system_attrs.get("fixed_params", {}) | trial.params,
                user_attrs={
                    **inherited, TICKET: trial.user_attrs[TICKET], RETRY_OF: trial.number, ATTEMPT: attempt,
                },
            )  # fmt: skip
            put = True
        return self.trials() if put else trials

    def _check(self, terms: Terms) -> None:
        held = self.study.user_attrs.get("digest")
        if held is None:
            raise BadOption(
                f"study {terms.name!r} in {self._database.shown} was not made by snnsl tune: name another with "
                "tune.study"
            )
        if held != terms.digest:
            raise BadOption(
                f"study {terms.name!r} in {self._database.shown} belongs to another recipe or space (digest {held}, "
                f"this one has {terms.digest}): name another with tune.study, or use another --storage"
            )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Optuna warns that its storage gives signs of life in its own loop alone; here we give them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Heartbeat of storage")
        warnings.simplefilter("ignore", ExperimentalWarning)
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)
