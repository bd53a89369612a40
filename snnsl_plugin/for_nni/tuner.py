"""An NNI tuner that asks and tells an Optuna study.

Imports no torch: NNI gives a tuner ten seconds to start, in a process of its own.
"""

from __future__ import annotations

import inspect
import logging
import math
import os
import threading
from collections.abc import Iterable
from typing import Any

import optuna
from optuna.trial import TrialState

from snnsl_plugin.errors import BadOption, MissingExtra, UnknownName
from snnsl_plugin.for_nni import search_space as spaces
from snnsl_plugin.for_nni.finished import Finished, reward_of
from snnsl_plugin.for_nni.space_format import parse
from snnsl_plugin.for_nni.study import check_sampler, open_study, sow

try:
    from nni.tuner import Tuner
    from nni.utils import ClassArgsValidator
except ImportError as cause:
    raise MissingExtra(
        f"NNI's tuners need nni, which cannot be imported here ({cause}): pip install 'nni>=3,<4' on x86_64"
    ) from cause

# Below NNI's own logger, so that the sentences are in the experiment's log/dispatcher.log.
_logger = logging.getLogger("nni.tuner.snnsl")


class OptunaTuner(Tuner):
    """Chooses the parameters of NNI's trials with one of Optuna's samplers.

    Every type of NNI's search spaces is understood, nested choices too. A trial that fails, is stopped, or reports a
    number that is not finite counts as failed; intermediate results are NNI's assessors' business. In the study each
    trial has the user attributes `parameters`, what NNI's trial was given, and `nni_trial`, NNI's name for it.

    With a database the study outlives the experiment: an experiment that is resumed, or another one with the same
    `study_name`, goes on from all finished trials.

    Args:
        optimize_mode: `maximize` or `minimize` the final result.
        sampler: `tpe`, `random`, `nsgaii`, `gp`, `qmc`, or `cmaes`, which needs the package of that name.
        seed: of the sampler, in [0, 2**32); another one every time where omitted.
        storage: an RDB URL of Optuna's, e.g. `sqlite:////home/me/study.db`; in memory where omitted. NNI keeps
            it in its database and shows it to anyone who reaches its port, so it must not hold a password.
        study_name: of the study in the storage; both or none.

    Raises:
        BadOption: an option outside its range, or a study that optimizes the other way.
        MissingExtra: the sampler or the database needs a package that is absent.

    Example:
        >>> tuner = OptunaTuner(sampler="random", seed=0)
        >>> tuner.update_search_space({"density": {"_type": "choice", "_value": [0.1, 0.2]}})
        >>> tuner.generate_parameters(0)["density"] in (0.1, 0.2)
        True
        >>> tuner.receive_trial_result(0, {}, 0.9)
        >>> tuner.study.best_value
        0.9
    """

    def __init__(
        self,
        optimize_mode: str = "maximize",
        sampler: str = "tpe",
        seed: int | None = None,
        storage: str | None = None,
        study_name: str | None = None,
    ) -> None:
        super().__init__()
        check_sampler(sampler, seed)
        #: The study that is asked and told.
        self.study = open_study(optimize_mode, storage, study_name)
        self._sampler, self._seed = sampler, seed
        self._space: spaces.Space = ()
        # NNI tells of ended trials in another thread than of results.
        self._lock = threading.Lock()
        self._running: dict[int, optuna.Trial] = {}
        self._experiment = os.environ.get("NNI_LOG_DIRECTORY", "")
        self._bury()
        sow(self.study, sampler, seed)

    def update_search_space(self, search_space: Any) -> None:
        """Takes a search space; a later one may change ranges, and not the options of a choice.

        Raises:
            BadOption: see `snnsl_plugin.for_nni.space_format.parse`.
        """
        space = parse(search_space)
        spaces.must_fit(space, self.study.get_trials(deepcopy=False))
        self._space = space

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        """Parameters for one more trial."""
        if not self._space:
            raise BadOption("the tuner has no search space yet: call update_search_space first")
        with self._lock:
            trial = self.study.ask()
            parameters = spaces.suggest(trial, self._space)
            trial.set_user_attr("parameters", parameters)
            if self._experiment:
                trial.set_user_attr("nni_experiment", self._experiment)
            self._running[parameter_id] = trial
        return parameters

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any, **kwargs: Any) -> None:
        """Tells the study the final result of a trial.

        Raises:
            BadOption: the result is neither a number nor a dict with one under "default".
        """
        reward = reward_of(value)
        with self._lock:
            trial = self._running.pop(parameter_id, None)
            if trial is None:
                _logger.warning("the result %r of trial %s came after its failure and is dropped", value, parameter_id)
                return
            if kwargs.get("trial_job_id"):
                trial.set_user_attr("nni_trial", kwargs["trial_job_id"])
            if not math.isfinite(reward):
                _logger.warning("trial %s reported %r and counts as failed", parameter_id, value)
                self.study.tell(trial, state=TrialState.FAIL)
            else:
                self.study.tell(trial, reward)

    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        """Tells the study of a trial that failed or was stopped before it had a result.

        Of one that succeeded NNI may send the result after its end, so that one stays open.
        """
        if not success:
            with self._lock:
                self._fail([parameter_id])

    def import_data(self, data: Any) -> None:
        """Adds finished trials of NNI's to the study: `[{"parameter": {...}, "value": ...}]`.

        NNI sends these when an experiment is resumed or told to import. What the study knows already is left out.
        NNI mixes up the parameters of trials that run at the same time, so where a result carries `parameters` of
        its own, these are believed. A trial outside the search space, or a record that is none, is left out, and the
        log says so.

        Raises:
            BadOption: this is no list.
        """
        if not isinstance(data, list | tuple):
            raise BadOption(f'the finished trials are {data!r}; give a list of {{"parameter": {{...}}, "value": ...}}')
        with self._lock:
            held = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            known = [Finished.of(trial) for trial in held]
            for record in data:
                try:
                    finished = Finished.read(record)
                    if not any(map(finished.is_same, known)):
                        self._add(finished)
                        known.append(finished)
                except (BadOption, OverflowError) as error:  # the latter: a whole number beyond all floats
                    _logger.warning("a finished trial is not imported: %s (%r)", error, record)
            _logger.info("imported %d of %d finished trials", len(known) - len(held), len(data))
            sow(self.study, self._sampler, self._seed)

    def _add(self, finished: Finished) -> None:
        params, distributions = spaces.encode(finished.parameters, self._space)
        attributes = {"parameters": finished.parameters} | ({"nni_trial": finished.job} if finished.job else {})
        trial = optuna.create_trial(
            value=finished.value, params=params, distributions=distributions, user_attrs=attributes
        )
        self.study.add_trial(trial)

    def _on_exit(self) -> None:
        with self._lock:
            self._fail(tuple(self._running))

    _on_error = _on_exit

    def _fail(self, parameter_ids: Iterable[int]) -> None:
        for trial in filter(None, (self._running.pop(each, None) for each in parameter_ids)):
            self.study.tell(trial, state=TrialState.FAIL)

    def _bury(self) -> None:
        """Fails what this experiment left running when its tuner was killed: nobody else ever will."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._experiment and trial.user_attrs.get("nni_experiment") == self._experiment:
                self.study.tell(trial.number, state=TrialState.FAIL)


class OptunaClassArgsValidator(ClassArgsValidator):
    """What NNI may ask before it starts the tuner; today's `Experiment` does not, so call `check_options` yourself."""

    def validate_class_args(self, **kwargs: Any) -> None:
        """Checks the class arguments.

        Raises:
            UsageError: see `check_options`.
        """
        check_options(**kwargs)


def check_options(search_space: Any = None, **class_args: Any) -> None:
    """Checks what would otherwise end, in another process, as "Tuner did not connect in 10 seconds".

    The storage is opened as the tuner will open it, so the study is made if it is not there.

    Args:
        search_space: NNI's, checked against the study as well; not checked where omitted.
        **class_args: as `OptunaTuner`.

    Raises:
        UnknownName: an option the tuner does not have, or an unknown sampler.
        BadOption: see `OptunaTuner` and `snnsl_plugin.for_nni.space_format.parse`.
        MissingExtra: see `OptunaTuner`.

    Example:
        >>> check_options(optimize_mode="maximise")
        Traceback (most recent call last):
        snnsl_plugin.errors.BadOption: optimize_mode is 'maximise'; it must be 'maximize' or 'minimize'
    """
    known = inspect.signature(OptunaTuner).parameters
    for name in class_args:
        if name not in known:
            raise UnknownName("option of the tuner SnnslOptuna", name, known)
    tuner = OptunaTuner(**class_args)
    if search_space is not None:
        tuner.update_search_space(search_space)
