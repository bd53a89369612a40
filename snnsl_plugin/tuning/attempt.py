"""One trial trained in this process: in a folder of its own, from where an earlier attempt stopped."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.exceptions import OptunaError
from optuna.trial import BaseTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from snnsl_plugin.errors import BadCheckpoint, BadOption, LostRank, SnnslError, Stopped
from snnsl_plugin.recipe import folder
from snnsl_plugin.recipe.runner import run
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.recipe.space import changed
from snnsl_plugin.recipe.tune_types import Tune
from snnsl_plugin.training.events import Epoch, Event
from snnsl_plugin.training.ranks import ALONE, Ranks
from snnsl_plugin.tuning import measures, stopping
from snnsl_plugin.tuning.ledger import MEASURED, RETRY_OF, WHY, Ledger
from snnsl_plugin.tuning.proposals import values_of

_log = logging.getLogger(__name__)
#: The folder of trials, in that of the study.
RUNS = "runs"
TRIAL = "trial.json"
#: What belongs to a folder, or to the end of an attempt, and not to the training.
_STAYS = ("tracking", ".lock", TRIAL, folder.RESULT, folder.REPORT)
#: Seconds after which a database that does not answer is given up, and between two questions at first.
_PATIENCE, _FIRST = 600.0, 1.0


@dataclass(frozen=True)
class Ended:
    """How an attempt ended: `complete`, `stopped`, `failed`, or `late` where somebody else had taken it over."""

    number: int
    state: str
    why: str = ""


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
) -> Ended:
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
        How it ended; whatever it was, the study knows it.

    Raises:
        LostRank: another rank is gone; the trial is left open, and its ticket can be given back.
    """
    began = time.perf_counter()
    seen = shared or trial
    if seen is None:
        raise BadOption("carry_out needs a trial, or with several ranks a shared one")
    values, number, retry_of = values_of(tune.space, seen.params), seen.number, seen.user_attrs.get(RETRY_OF)
    run_dir = study_dir / RUNS / name_of(number)
    rungs: dict[int, dict[str, float]] = {}
    objectives: list[str] = list(tune.objectives)

    def listen(phase: str, event: Event) -> None:
        if not isinstance(event, Epoch) or ledger is None or trial is None:
            return
        if tune.stop and event.connections is not None:
            reached = rungs[event.epoch] = _reached(event, time.perf_counter() - began)
            if not patiently(lambda: ledger.note(trial, f"rung/{event.epoch}", reached)):
                raise Stopped("it was taken for dead, and another worker has it")
            others = [
                other.user_attrs[f"rung/{event.epoch}"]
                for other in patiently(ledger.trials)
                if other.number != number and f"rung/{event.epoch}" in other.user_attrs
            ]
            left = stopping.left_over(point.pruning, event.density)
            if why := stopping.verdict(tune.stop, reached, others, objectives, left):
                raise Stopped(f"stopped after epoch {event.epoch}: {why}")
        on_epoch(event)

    measured: dict[str, float] = {}
    state, why = TrialState.FAIL, ""
    try:
        if ranks.leads:
            _take_over(study_dir, retry_of, run_dir)
        point = changed(recipe, values)
        result = run(
            point,
            run_dir=run_dir,
            resume=folder.identity(run_dir) is not None,
            on_event=listen,
            name=run_dir.name,
            judge="validation",
            counted=_looked_at(tune, point),
            ranks=ranks,
        )
        state, measured = TrialState.COMPLETE, measures.of_result(result)
    except Stopped as stopped:
        state, why = TrialState.PRUNED, str(stopped)
        measured = rungs[max(rungs)] if rungs else {}
    except LostRank:
        raise
    except Exception as error:  # what a training meets is that trial's failure, and no other's
        _log.warning("trial %d failed", number, exc_info=True)
        why = str(error) if isinstance(error, SnnslError) else f"{type(error).__name__}: {error}"
    if ledger is None or trial is None:
        return Ended(number, "told by the first rank")
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
    word = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "stopped"}.get(state, "failed") if known else "late"
    told = "failed" if word == "late" else word
    write(run_dir, number, told, values, measured, constraints, why, retry_of)
    return Ended(number, word, why)


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
        except (SQLAlchemyError, OptunaError) as error:
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
    return stopping.epochs_of(tune.stop, point.train.epochs) if tune.stop else []


def _reached(event: Epoch, seconds: float) -> dict[str, float]:
    return {
        "accuracy": event.validation_accuracy,
        "connections": float(event.connections or 0),
        "synops": float(event.synops_per_sample or 0.0),
        "energy": float(event.energy_pj_per_sample or 0.0),
        "wall_time": seconds,
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
