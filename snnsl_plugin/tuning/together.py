"""One trial over several ranks: the first holds the study, all of them train.

Optuna's `TorchDistributedTrial` shows a trial to every rank. What it gives back from `suggest_float` is rounded to 32
bits on its way, so its `params` are read instead, which are not.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from optuna.exceptions import ExperimentalWarning
from optuna.trial import BaseTrial, Trial

from snnsl_plugin.errors import MissingExtra
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.training.events import Epoch
from snnsl_plugin.training.ranks import Ranks
from snnsl_plugin.tuning import study
from snnsl_plugin.tuning.attempt import carry_out, patiently
from snnsl_plugin.tuning.ledger import Holder


def lead(opened: study.Opened, study_dir: Path, ranks: Ranks, on_epoch: Callable[[int, Epoch], None]) -> Iterator[int]:
    """Takes tickets and trains them with all ranks, until none waits; for rank 0.

    Yields:
        The number of each trial when it has ended.

    Raises:
        LostRank: another rank is gone.
    """
    tune, until = opened.tune, time.time() + 3600 * opened.tune.hours if opened.tune.hours else None
    ranks.first(lambda: str(study_dir))
    while True:
        trial: Trial | None = None
        if until is None or time.time() < until:
            patiently(opened.ledger.bury)
            trial = patiently(lambda: opened.claim(Holder(opened.place, "ranks")))
        if not ranks.first(lambda trial=trial: trial is not None):  # type: ignore[misc]
            return
        shared = _shared(trial)
        with opened.ledger.alive(trial):  # type: ignore[arg-type]
            carry_out(
                opened.recipe, tune, opened.ledger, trial, study_dir, partial(on_epoch, shared.number),
                shared=shared, ranks=ranks,
            )  # fmt: skip
        yield shared.number


def follow(recipe: Recipe, ranks: Ranks) -> None:
    """Trains whatever rank 0 has claimed; for all other ranks."""
    study_dir = Path(ranks.first(str))
    while ranks.first(bool):
        shared = _shared(None)
        carry_out(recipe, study.tune_of(recipe), None, None, study_dir, lambda event: None, shared=shared, ranks=ranks)


def check() -> None:
    """Says, before a ticket is taken, that Optuna's integration is absent.

    Raises:
        MissingExtra: it is.
    """
    try:
        import optuna_integration.pytorch_distributed  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            f"one trial over several processes needs optuna-integration ({error}): pip install optuna-integration"
        ) from error


def _shared(trial: Trial | None) -> BaseTrial:
    from optuna_integration.pytorch_distributed import TorchDistributedTrial

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        made: BaseTrial = TorchDistributedTrial(trial)
        return made
