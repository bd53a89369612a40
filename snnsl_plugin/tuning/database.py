"""The database in which a study lives, and the one lock that keeps its workers out of each other's way."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import ExperimentalWarning
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from snnsl_plugin.errors import BadOption, MissingExtra, SnnslError

#: How long one worker waits for the others, each of which holds the lock for as long as a sampler thinks.
_PATIENCE = 600.0
#: After this long the server takes the lock from a session that does nothing, such as that of a machine that is gone.
_IDLE = "300s"
#: A missed sign of life may be a slow disk; so many in a row are a dead worker.
_MISSED = 4
_TO_A_SERVER = {"connect_timeout": 10}


class Unreachable(BadOption):
    """A database cannot be reached or written: wrong from the beginning, or away for a while."""


class Database:
    """One Optuna RDB URL: sqlite on one machine, PostgreSQL for several.

    Optuna's own storages let two workers take one waiting trial, where the database does not lock rows, and count
    trials before they make one more. So what must happen once happens under a lock of ours, which dies with its holder.

    Args:
        url: `sqlite:///study.db`, `postgresql://user:password@host/name`.

    Raises:
        BadOption: not such a URL.
        MissingExtra: the driver of the database is absent.
    """

    def __init__(self, url: str) -> None:
        self._url = _checked(url)
        #: the URL with an absolute path and its driver; it may hold a password
        self.url = self._url.render_as_string(hide_password=False)
        #: the URL without a password
        self.shown = self._url.render_as_string(hide_password=True)
        self._held = 0
        lock = f"{self._url.database}.lock" if self._sqlite else ""
        self._file = FileLock(lock, timeout=_PATIENCE) if lock else None
        self._engine = None if self._sqlite else create_engine(self._url, poolclass=NullPool, connect_args=_TO_A_SERVER)

    @property
    def _sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    def storage(self, heartbeat: int) -> optuna.storages.RDBStorage:
        """Optuna's storage, its tables made if need be.

        Args:
            heartbeat: seconds between two signs of life of a trial; one without any for four times as long is dead.

        Raises:
            BadOption: the database cannot be reached or written.
        """
        with self.explained(), self.alone(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats are
            return optuna.storages.RDBStorage(
                self.url,
                # A lock on the file is held for milliseconds; a database on a network may be slow.
                engine_kwargs={
                    "poolclass": NullPool,
                    "connect_args": {"timeout": 60} if self._sqlite else _TO_A_SERVER,
                },
                heartbeat_interval=heartbeat,
                grace_period=_MISSED * heartbeat,
            )

    def expect_(self, storage: optuna.storages.RDBStorage, heartbeat: int) -> None:
        """Sets another time between two signs of life."""
        storage.heartbeat_interval, storage.grace_period = heartbeat, _MISSED * heartbeat

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """A block that no other process, here or on another machine, is in at the same time; it may be nested."""
        if self._held:
            yield
            return
        with contextlib.ExitStack() as stack:
            if self._file:
                Path(str(self._url.database)).parent.mkdir(parents=True, exist_ok=True)
                try:
                    stack.enter_context(self._file.acquire(poll_interval=0.01))
                except Timeout:
                    raise SnnslError(
                        f"{self._file.lock_file} was held by another process for {_PATIENCE:.0f} s: is one frozen? End "
                        "it, and start again with --resume"
                    ) from None
            elif self._engine:
                connection = stack.enter_context(self._engine.begin())
                connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{_IDLE}'"))
                connection.execute(text(f"SET LOCAL lock_timeout = '{_PATIENCE:.0f}s'"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": zlib.crc32(b"snnsl_plugin")})
            self._held += 1
            stack.callback(self._release)
            yield

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turns what the database raises into one sentence, without its password.

        Raises:
            Unreachable: the database cannot be reached or written.
        """
        try:
            yield
        except ImportError as error:
            raise MissingExtra(f"storage {self.shown}: {error}; install the database's driver") from error
        except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError, OSError) as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            reason = str(getattr(cause, "orig", None) or cause).strip().splitlines()
            where = (
                "the folder and its rights" if self._sqlite else "that the server runs, its address, and your rights"
            )
            raise Unreachable(
                f"storage {self.shown}: {reason[0] if reason else type(error).__name__}: check {where}"
            ) from error

    def _release(self) -> None:
        self._held -= 1


def _checked(url: str) -> URL:
    try:
        found = make_url(url)
    except SQLAlchemyError:  # not repeated: it may hold a password
        raise BadOption(
            "storage is not the URL of a database, e.g. sqlite:///study.db or postgresql://user@host/name"
        ) from None
    if "password" in found.query:  # where nothing would hide it
        rest = {key: value for key, value in found.query.items() if key not in ("user", "password")}
        user = found.username or str(found.query.get("user", ""))
        found = found.set(username=user, password=str(found.query["password"]), query=rest)
    if "sslpassword" in found.query:
        raise BadOption("storage must not hold an sslpassword, which is shown with the rest: use a key without one")
    kind = found.get_backend_name()
    if kind == "sqlite":
        if not found.database or found.database == ":memory:":
            raise BadOption("storage: a study needs a file, e.g. sqlite:///study.db")
        return found.set(database=os.path.abspath(found.database))
    if kind != "postgresql":
        raise BadOption(f"storage: {kind} is not supported: use sqlite on one machine, PostgreSQL on several")
    if found.drivername == "postgresql":
        found = found.set(drivername="postgresql+psycopg")
    driver = found.get_driver_name()
    if importlib.util.find_spec(driver) is None:
        raise MissingExtra(f"storage: PostgreSQL needs {driver}, which is not installed: pip install 'psycopg[binary]'")
    return found
