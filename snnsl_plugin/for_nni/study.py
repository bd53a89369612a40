"""The Optuna study behind the tuner: its samplers by name, and the way to it in memory or in a database."""

from __future__ import annotations

import importlib.util
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna import samplers
from optuna.study import StudyDirection

from snnsl_plugin.errors import BadOption, MissingExtra, UnknownName

#: What class arguments may name. A name that is not here is refused, never looked up in a library.
SAMPLERS: dict[str, Callable[..., samplers.BaseSampler]] = {
    "cmaes": samplers.CmaEsSampler,
    "gp": samplers.GPSampler,
    "nsgaii": samplers.NSGAIISampler,
    "qmc": samplers.QMCSampler,
    "random": samplers.RandomSampler,
    "tpe": samplers.TPESampler,
}
DIRECTIONS = ("maximize", "minimize")


def check_sampler(name: Any, seed: Any) -> None:
    """Checks what `sow` takes.

    Raises:
        UnknownName: a sampler that is not in `SAMPLERS`.
        BadOption: a seed that is not a whole number in [0, 2**32).
        MissingExtra: a sampler whose package is absent.
    """
    if not isinstance(name, str) or name not in SAMPLERS:
        raise UnknownName("sampler", str(name), SAMPLERS)
    if name == "cmaes" and importlib.util.find_spec("cmaes") is None:  # Optuna would notice at the second trial
        raise MissingExtra("the sampler 'cmaes' needs the package cmaes, which is not installed: pip install cmaes")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32):
        raise BadOption(f"seed is {seed!r}; it must be a whole number in [0, 2**32)")


def sampler_of(name: str, seed: int | None, stream: str) -> samplers.BaseSampler:
    """A sampler whose numbers depend on the seed and a stream.

    The same numbers again would make a study that goes on ask the same questions again. `qmc` counts in the study, and
    must keep its seed; its first trial, which tells it the space, is drawn from the stream.

    Args:
        name: one of `SAMPLERS`.
        seed: any whole number; None for numbers that differ each time.
        stream: what tells this use of the seed from others.
    """
    if seed is None:
        return SAMPLERS[name]()
    drawn = zlib.crc32(f"{seed}/{stream}".encode())
    if name == "qmc":
        return SAMPLERS[name](
            seed=seed % 2**32,
            independent_sampler=samplers.RandomSampler(seed=drawn),
            warn_independent_sampling=False,
        )
    return SAMPLERS[name](seed=drawn)


def sow(study: optuna.Study, name: str, seed: int | None) -> None:
    """Gives the study a sampler of a seed that depends on how many trials it holds."""
    held = len(study.get_trials(deepcopy=False))
    study.sampler = sampler_of(name, seed, str(held)) if held or name == "qmc" else SAMPLERS[name](seed=seed)


def open_study(optimize_mode: Any, storage: Any, study_name: Any) -> optuna.Study:
    """A study in memory, or the one of that name in the database, made if need be.

    Args:
        optimize_mode: `maximize` or `minimize`.
        storage: an RDB URL; of sqlite, with an absolute path.
        study_name: given if and only if `storage` is.

    Raises:
        BadOption: an option is wrong, the database does not open, or its study optimizes the other way.
        MissingExtra: the driver of the database is absent.
    """
    if optimize_mode not in DIRECTIONS:
        raise BadOption(f"optimize_mode is {optimize_mode!r}; it must be 'maximize' or 'minimize'")
    if storage is None:
        if study_name is not None:
            raise BadOption(f"study_name is {study_name!r} without a storage: give the URL of a database as storage")
        return optuna.create_study(direction=optimize_mode)
    if not isinstance(study_name, str) or not study_name:
        raise BadOption("storage needs a study_name, or no later experiment could go on with the study: give one")
    return _in_database(optimize_mode, storage, study_name)


def _in_database(optimize_mode: str, storage: Any, study_name: str) -> optuna.Study:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    try:
        url = make_url(storage)
    except SQLAlchemyError:  # not repeated: it may hold a password
        raise BadOption("storage is not the URL of a database, e.g. sqlite:////home/me/study.db") from None
    shown = url.render_as_string(hide_password=True)
    if url.drivername.startswith("sqlite") and not Path(url.database or "").is_absolute():
        # NNI starts the tuner in a folder of the experiment's log.
        raise BadOption(f"storage {shown!r} must have an absolute path, e.g. sqlite:////home/me/study.db")
    direction = StudyDirection[optimize_mode.upper()]
    try:
        # Nobody closes a study, so its connections are not kept open between two questions.
        opened = optuna.storages.RDBStorage(storage, engine_kwargs={"poolclass": NullPool})
        study = optuna.create_study(direction=direction, storage=opened, study_name=study_name, load_if_exists=True)
    except ImportError as error:
        raise MissingExtra(f"storage {shown!r}: the driver of this database is absent ({error}); install it") from error
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BadOption(f"storage {shown!r} cannot be opened ({reason}): check the folder, or the server") from error
    if study.directions != [direction]:
        raise BadOption(
            f"the study {study_name!r} in {shown!r} was made to {study.directions[0].name.lower()}, and optimize_mode "
            f"is {optimize_mode!r}: give another study_name"
        )
    return study
