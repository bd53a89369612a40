"""Leaves an MLflow that does not answer alone for a while, instead of asking it again and again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from snnsl_plugin.tracking.progress import without_password

_logger = logging.getLogger(__name__)


class Breaker:
    """Calls a function unless it failed a short while ago; the pause grows from `first` to `longest` seconds."""

    def __init__(self, first: float = 5.0, longest: float = 60.0) -> None:
        """Closed: the first call goes through.

        Args:
            first: seconds of pause after the first failure; it doubles with each further one.
            longest: the longest pause in seconds.
        """
        self._first, self._longest = first, longest
        self._pause, self._until, self._said = first, 0.0, ""

    def call(self, function: Callable[[], bool]) -> bool:
        """The function's answer; False while the breaker is open, or where the function fails.

        MLflow's client raises its own errors, those of requests and urllib3, of SQLAlchemy and the database's driver,
        of the artifact store and of the operating system, so every `Exception` counts as "MLflow is not there now".
        What happened is logged once, not at each try.
        """
        if time.monotonic() < self._until:
            return False
        try:
            answer = function()
        except Exception as error:
            message = without_password(" ".join(f"{type(error).__name__}: {error}".split()))[:500]
            if type(error).__name__ != self._said:
                _logger.warning(
                    "MLflow did not take it and is tried again, all of it is in the run folder: %s", message
                )
            self._said = type(error).__name__
            self._until = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, self._longest)
            return False
        if self._said:
            _logger.warning("MLflow is back")
        self._pause, self._until, self._said = self._first, 0.0, ""
        return answer
