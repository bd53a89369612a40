"""One trial trained in this process: in a folder of its own, from where an earlier attempt stopped."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from optuna.exceptions import OptunaError
from optuna.trial import BaseTrial, FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from snnsl_plugin.errors import (
    BadCheckpoint,
    BadOption,
    Disconnected,
    Diverged,
    RankFailed,
    SnnslError,
    Stopped,
    UsageError,
)
from snnsl_plugin.recipe import folder
from snnsl_plugin.recipe.rungs import epochs_of
from snnsl_plugin.recipe.runner import run
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.recipe.space import changed
from snnsl_plugin.recipe.tune_types import Tune
from snnsl_plugin.training.events import Epoch, Event
from snnsl_plugin.training.ranks import ALONE, Ranks
from snnsl_plugin.tuning import measures, stopping
from snnsl_plugin.tuning.database import Unreachable
from snnsl_plugin.tuning.ledger import MEASURED, RETRY_OF, RUNG, TICKET, WHY, Ledger
from snnsl_plugin.tuning.proposals import values_of

_log = logging.getLogger(__name__)
#: The folder of trials, in that of the study.
RUNS = "runs"
TRIAL = "trial.json"
#: What belongs to a folder, or to the end of an attempt, and not to the training.
_STAYS = ("tracking", ".lock", TRIAL, folder.RESULT, folder.REPORT)
#: Errors that every rank raises where one does; after any other the ranks are out of step, and the job must end.
_MET_BY_ALL = (UsageError, Stopped, Diverged, Disconnected, RankFailed)
#: Seconds after which a database that does not answer is given up, and between two questions at first.
_PATIENCE, _FIRST = 600.0, 1.0


def name_of(number: int) -> str:
    """What a trial's folder is called."""
    return f"trial-{number:04d}"


def carry_out(
    recipe: Recipe,
    tune: Tune,
    ledger: Ledger | None,
    trial: Trial | None,
    study_dir: Path,
    on_epoch: Callable[[Epoch], None],
    *,
    shared: BaseTrial | None = None,
    ranks: Ranks = ALONE,
) -> bool:
    """Trains what a trial tries, and tells the study what came out.

    Args:
        recipe: that is searched.
        tune: its block.
        ledger: the study; None on all ranks but the first, which alone reads and writes it.
        trial: that was claimed; None there as well.
        study_dir: the study's folder on this machine.
        on_epoch: is told of each epoch.
        shared: the trial as every rank sees it; `trial` where omitted.
        ranks: the processes that train it together, each of which makes this call.

    Returns:
        Whether it met an error that is none of ours, after which a process may be broken. However it ended, the study
        knows it.

    Raises:
        OSError: a disk or network that fails is no fault of the trial's, which is left open: its ticket can be given
            back. So it is with
        LostRank: another rank is gone; and, with several ranks,
        Exception: what one of them alone may have met, as the others wait for it.
    """
    seen = shared or trial
    if seen is None:
        raise BadOption("carry_out needs a trial, or with several ranks a shared one")
    values, number, retry_of = values_of(tune.space, seen.params), seen.number, seen.user_attrs.get(RETRY_OF)
    run_dir = study_dir / RUNS / name_of(number)
    rungs: dict[int, dict[str, float]] = {}
    looked_at: Collection[int] = ()
    ticket = trial.user_attrs.get(TICKET) if trial else None
    objectives: list[str] = list(tune.objectives)

    def listen(phase: str, event: Event) -> None:
        if not isinstance(event, Epoch) or ledger is None or trial is None:
            return
        # A recipe with a budget counts after each epoch, but is looked at after some.
        if tune.stop and event.epoch in looked_at:
            reached = rungs[event.epoch] = _reached(event)
            if not patiently(lambda: ledger.note(trial, f"{RUNG}{event.epoch}", reached)):
                raise Stopped("it was taken for dead, and another worker has it")
            others = _others(patiently(ledger.trials), ticket, f"{RUNG}{event.epoch}")
            left = stopping.left_over(point.pruning, event.density)
            if why := stopping.verdict(tune.stop, reached, others, objectives, tune.constraints, left):
                raise Stopped(f"stopped after epoch {event.epoch}: {why}")
        on_epoch(event)

    measured: dict[str, float] = {}
    state, why, unexpected = TrialState.FAIL, "", False
    try:
        ranks.first(lambda: _take_over(study_dir, retry_of, run_dir))
        point = changed(recipe, values)
        looked_at = _looked_at(tune, point)
        result = run(
            point,
            run_dir=run_dir,
            resume=folder.identity(run_dir) is not None,
            on_event=listen,
            name=run_dir.name,
            judge="validation",
            counted=looked_at,
            ranks=ranks,
        )
        state, measured = TrialState.COMPLETE, measures.of_result(result)
    except Stopped as stopped:
        state, why = TrialState.PRUNED, str(stopped)
        measured = rungs[max(rungs)] if rungs else {}
    except SnnslError as error:  # what a training meets is that trial's failure, and no other's
        if ranks.world_size > 1 and not isinstance(error, _MET_BY_ALL):
            raise
        why = str(error)
        _log.warning("trial %d failed: %s", number, why)
    except OSError:
        raise
    except Exception as error:
        if ranks.world_size > 1:
            raise
        why, unexpected = f"{type(error).__name__}: {error}", True
        _log.warning("trial %d failed", number, exc_info=True)
    if ledger is None or trial is None:
        return unexpected
    constraints = measures.violations(tune.constraints, measured) if measured else {}
    known = patiently(
        lambda: ledger.tell(
            trial,
            state,
            values=[measured[name] for name in objectives] if state == TrialState.COMPLETE else None,
            constraints=constraints,
            notes={MEASURED: measured, WHY: why},
        )
    )
    # Where it had been taken for dead, and somebody else has its ticket, this attempt counts as failed.
    told = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "stopped"}.get(state, "failed") if known else "failed"
    write(run_dir, number, told, values, measured, constraints, why, retry_of)
    return unexpected


def write(
    run_dir: Path,
    number: int,
    state: str,
    values: Mapping[str, Any],
    measured: Mapping[str, float],
    constraints: Mapping[str, float],
    why: str,
    retry_of: int | None,
) -> None:
    """Writes `trial.json`: what the study knows of a trial, beside what its training has left."""
    run_dir.mkdir(parents=True, exist_ok=True)
    folder.write_json(
        run_dir / TRIAL,
        {
            "schema": 1, "number": number, "state": state, "params": dict(values), "values": dict(measured),
            "constraints": dict(constraints), "why": why, "retry_of": retry_of,
        },
    )  # fmt: skip


def mark_lost(study_dir: Path, numbers: list[int], why: str, status: str) -> None:
    """Writes into the folders of trials whose worker is gone how they ended."""
    for number in numbers:
        run_dir = study_dir / RUNS / name_of(number)
        try:
            held, done = folder.identity(run_dir), folder.result(run_dir)
        except BadCheckpoint:  # damaged by what killed it
            held, done = None, None
        if held and not done:
            folder.write_json(run_dir / folder.RESULT, {"schema": 1, **held, "status": status, "error": why})


def patiently(ask: Callable[[], Any]) -> Any:
    """The answer of a database that may be away for a while: what was trained must not be lost by that.

    Raises:
        SnnslError: it has not answered for ten minutes.
    """
    pause, until = _FIRST, time.monotonic() + _PATIENCE
    while True:
        try:
            return ask()
        except (SQLAlchemyError, OptunaError, Unreachable) as error:
            if time.monotonic() > until:
                reason = str(error.__cause__ or error).splitlines()[0]
                raise SnnslError(
                    f"the study's database has not answered for {_PATIENCE / 60:.0f} minutes ({reason}): what was "
                    "trained is in the run folders; start again with --resume when it is back"
                ) from error
            _log.warning("the study's database did not answer, and is asked again in %.0f s: %s", pause, error)
            time.sleep(pause)
            pause = min(2 * pause, 30.0)


def _looked_at(tune: Tune, point: Recipe) -> list[int]:
    return epochs_of(tune.stop, point.train.epochs) if tune.stop else []


def _others(trials: list[FrozenTrial], ticket: int | None, rung: str) -> list[dict[str, float]]:
    """What the latest attempt at each other ticket has reached at a rung."""
    reached = {each.user_attrs.get(TICKET): each.user_attrs.get(rung) for each in trials}
    return [measured for other, measured in reached.items() if other != ticket and measured]


def _reached(event: Epoch) -> dict[str, float]:
    return {
        "accuracy": event.validation_accuracy,
        "connections": float(event.connections or 0),
        "synops": float(event.synops_per_sample or 0.0),
        "energy": float(event.energy_pj_per_sample or 0.0),
        "wall_time": event.elapsed,
    }


def _take_over(study_dir: Path, earlier: int | None, run_dir: Path) -> None:
    """Goes on from the checkpoint of an earlier attempt, where that was on this machine."""
    source = study_dir / RUNS / name_of(earlier) if earlier is not None else None
    if source is None or not (source / folder.CHECKPOINT).is_file() or run_dir.exists():
        return
    partial = run_dir.with_name(f".{run_dir.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, ignore=shutil.ignore_patterns(*_STAYS))
    partial.rename(run_dir)
