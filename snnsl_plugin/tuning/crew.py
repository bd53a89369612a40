"""The workers of this machine, as the process that started them sees them."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnsl_plugin.tuning.worker import STORAGE

_GRACE = 10.0


@dataclass(frozen=True)
class Heard:
    """What a worker said, or that it is gone.

    Attributes:
        worker: its name.
        said: its words, a mapping with `event`; None where it is gone.
        death: how it died; empty where it said something, or had nothing left to do.
    """

    worker: str
    said: dict[str, Any] | None = None
    death: str = ""


class Crew:
    """Starts workers and hears them; when this process ends, however it does, they end too.

    Args:
        study_dir: the study's folder on this machine.
        storage: URL of the database.
        names: of the workers, one for each that may work at the same time.
        until: seconds since the epoch after which no trial begins; None for no such time.
        permitted: code of the user's own that trials may import.
    """

    def __init__(
        self, study_dir: Path, storage: str, names: list[str], until: float | None, permitted: tuple[str, ...]
    ) -> None:
        self._study_dir, self._storage, self._until, self._permitted = study_dir, storage, until, permitted
        self._names = names
        self._at_work: dict[str, subprocess.Popen[str]] = {}
        self._heard: queue.Queue[Heard] = queue.Queue()

    @property
    def idle(self) -> list[str]:
        """Names of workers that are not there."""
        return [name for name in self._names if name not in self._at_work]

    @property
    def at_work(self) -> dict[str, int]:
        """Process ids of the workers that are there."""
        return {name: process.pid for name, process in self._at_work.items()}

    def start(self, name: str) -> None:
        """Starts a worker that is not there."""
        command = [sys.executable, "-m", "snnsl_plugin.tuning.worker", str(self._study_dir), "--worker", name]
        if self._until is not None:
            command += ["--until", repr(self._until)]
        for target in self._permitted:
            command += ["--permit", target]
        log = self._study_dir / "logs" / f"worker-{name}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as errors:  # of its first moments, before it writes there itself
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, STORAGE: self._storage},
            )
        self._at_work[name] = process
        threading.Thread(target=self._listen, args=(name, process), daemon=True).start()

    def hear(self, patience: float) -> list[Heard]:
        """What has been said since; waits so many seconds for the first word."""
        found: list[Heard] = []
        try:
            found.append(self._heard.get(timeout=patience))
            while True:
                found.append(self._heard.get_nowait())
        except queue.Empty:
            pass
        for each in found:
            if each.said is None:
                self._close(self._at_work.pop(each.worker))
        return found

    def stop(self) -> None:
        """Ends all workers, at once."""
        for process in self._at_work.values():
            if process.stdin:
                process.stdin.close()
        for process in self._at_work.values():
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:  # frozen
                process.kill()
                process.wait()
            self._close(process)
        self._at_work.clear()

    def _listen(self, name: str, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            with suppress(ValueError):  # the last line of one that was killed may be cut off
                self._heard.put(Heard(name, json.loads(line)))
        code = process.wait()
        self._heard.put(Heard(name, death=_death(code, self._study_dir / "logs" / f"worker-{name}.log")))

    def _close(self, process: subprocess.Popen[str]) -> None:
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()


def _death(code: int, log: Path) -> str:
    if code == 0:
        return ""
    if code < 0:
        hint = " (was the memory full?)" if -code == getattr(signal, "SIGKILL", 9) else ""
        return f"its worker was ended by {signal.Signals(-code).name}{hint}"
    return f"its worker ended with status {code}; {log} may say more"
