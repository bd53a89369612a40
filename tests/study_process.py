"""`snnsl tune` as a process of its own, on a tiny recipe of the digits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

import snnsl_plugin

RECIPE = """extends: digits
seed: 7
threads: 1
dense_baseline: false
train: {epochs: 4, optimizer: {lr: 0.02}}
model: {channels: [4, 8], hidden: 16, v_threshold: 0.5}
data: {encoder: {T: 2}}
tracking: {mlflow: false}
tune:
  space:
    pruning.density.last: {name: float, low: 0.2, high: 0.5, log: true}
    pruning.distribution: [erk, uniform]
  trials: 6
  sampler: random
  heartbeat: 1
"""


class Study:
    """`snnsl tune` as a process of its own, in a session of its own."""

    def __init__(self, recipe: Path, run_dir: Path, *words: str, **environment: str) -> None:
        self.run_dir = run_dir
        self._log = run_dir.with_suffix(".log").open("ab")
        command = [sys.executable, "-m", "snnsl_plugin", "tune", str(recipe), "--run-dir", str(run_dir), *words]
        root = str(Path(snnsl_plugin.__file__).parents[1])
        self.process = subprocess.Popen(
            command, cwd=recipe.parent, stdout=self._log, stderr=self._log, start_new_session=True,
            env={**os.environ, "PYTHONPATH": root, **environment},
            # started from a shell's background, a child would be deaf to interrupts
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip

    @property
    def printed(self) -> str:
        return self.run_dir.with_suffix(".log").read_text()

    def workers(self) -> dict[str, int]:
        """Process ids of the workers that are there, by name."""
        found = {}
        for child in psutil.Process(self.process.pid).children(recursive=True):
            words = child.cmdline()
            if "snnsl_plugin.tuning.worker" in words:
                found[words[words.index("--worker") + 1]] = child.pid
        return found

    def trained(self) -> list[int]:
        """Numbers of trials that train and have a checkpoint of an epoch."""
        return [
            int(path.parent.name.removeprefix("trial-"))
            for path in self.run_dir.glob("runs/*/checkpoint.safetensors")
            if not (path.parent / "trial.json").exists() and not (path.parent / "result.json").exists()
        ]

    def wait(self, seconds: float = 180) -> int:
        try:
            return self.process.wait(seconds)
        finally:
            self.kill()

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._log.close()

    def found(self) -> dict[str, Any]:
        return json.loads((self.run_dir / "study.json").read_text())


def until(true: Callable[[], Any], seconds: float = 90) -> Any:
    """What a condition gives once it holds."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)
    return found
