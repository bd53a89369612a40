"""What a study is made of, for whoever opens it: the recipe, its folder on this machine, its tickets."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import Trial

from snnsl_plugin.errors import BadCheckpoint, BadRecipe
from snnsl_plugin.recipe import folder
from snnsl_plugin.recipe.digest import digest as digest_of_run
from snnsl_plugin.recipe.load import load
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.recipe.tune_types import Tune
from snnsl_plugin.tuning.database import Database
from snnsl_plugin.tuning.ledger import Holder, Ledger, Terms

#: What may differ between two machines, or two calls, that work on one study.
_MAY_DIFFER = {"trials", "hours", "workers", "storage", "heartbeat", "study"}
DATABASE = "study.db"


@dataclass(frozen=True)
class Opened:
    """A study as one process sees it.

    Attributes:
        recipe: that is searched.
        tune: its block.
        ledger: the study and its tickets.
        place: the name of its folder on this machine, which no other has.
    """

    recipe: Recipe
    tune: Tune
    ledger: Ledger
    place: str

    def claim(self, holder: Holder) -> Trial | None:
        """Takes a ticket, as `Ledger.claim`."""
        tune = self.tune
        return self.ledger.claim(holder, tune.space, tune.sampler, self.recipe.seed, endless=tune.trials is None)


def tune_of(recipe: Recipe) -> Tune:
    """The block `tune` of a recipe.

    Raises:
        BadRecipe: there is none.
    """
    if recipe.tune is None:
        raise BadRecipe(["tune: the recipe has no such block: say which keys are searched in tune.space, as "
                         "tune_digits does (snnsl cat tune_digits)"])  # fmt: skip
    return recipe.tune


def digest(recipe: Recipe) -> str:
    """Sixteen digits that are equal for equal searches; who searches, where and for how long does not count."""
    said = tune_of(recipe).model_dump(mode="json", exclude=_MAY_DIFFER)
    text = json.dumps([digest_of_run(recipe), said], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def default_storage(study_dir: Path) -> str:
    """The URL of the database in a study's own folder."""
    return f"sqlite:///{(study_dir / DATABASE).resolve().as_posix()}"


def open_study(recipe: Recipe, name: str, storage: str, place: str) -> Opened:
    """Opens a study, or makes it.

    Args:
        recipe: that is searched.
        name: of the study.
        storage: URL of the database.
        place: name of the study's folder on this machine.

    Raises:
        BadOption: the database cannot be used, or holds another study of that name.
    """
    tune = tune_of(recipe)
    terms = Terms(name, digest(recipe), list(tune.objectives))
    ledger = Ledger(Database(storage), terms, heartbeat=tune.heartbeat, identity=place)
    return Opened(recipe, tune, ledger, place)


def reopen(study_dir: Path, storage: str) -> Opened:
    """Opens the study of a folder that `tune` has made.

    Raises:
        BadCheckpoint: the folder holds no study.
    """
    held = folder.identity(study_dir)
    if held is None or "place" not in held:
        raise BadCheckpoint(f"{study_dir} holds no study: start one with snnsl tune")
    return open_study(load(study_dir / folder.RECIPE), held["study"], storage, held["place"])
