"""Run folders, and one process with MLflow in it: importing MLflow and making its database take seconds each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

import snnsl_plugin
from snnsl_plugin.tracking.journal import Journal

RECIPE = "schema: 1\nseed: 0\ndata: {name: digits}\nmodel: {name: spiking_cnn, T: 4}\n"


class MlflowProcess:
    """Runs the commands of `mlflow_worker.py`."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("mlflow_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(snnsl_plugin.__file__).parents[1])},
        )

    def __call__(self, command: str, run_dir: Path | None = None, **options: Any) -> Any:
        request = {"command": command, "uri": self.uri, "run_dir": str(run_dir), "experiment": "tests", **options}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def runs(self, run_dir: Path) -> list[dict[str, Any]]:
        """MLflow's runs of one run folder, found by the name the folder has for itself."""
        return self("runs", tag=(run_dir / "tracking" / "id").read_text())

    def run(self, run_dir: Path) -> dict[str, Any]:
        """MLflow's only run of one run folder."""
        (found,) = self.runs(run_dir)
        return found

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@pytest.fixture(scope="session")
def mlflow_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowProcess]:
    """MLflow with a fresh sqlite database."""
    process = MlflowProcess(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")
    yield process
    process.close()


class RunFolder:
    """A run folder as a training process writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        (path / "recipe.yaml").write_text(RECIPE)
        self.lock = FileLock(str(path / ".lock"))
        self.journal = Journal(path / "metrics.jsonl")
        self.journal.write("started", 0, dataset={"name": "digits", "digest": "d1", "samples": 1797})

    def epochs(self, steps: range) -> None:
        for step in steps:
            self.journal.write("epoch", step, {"accuracy/validation": step / 10, "density/features.0": 0.5})

    def result(self, status: str) -> None:
        (self.path / "result.json").write_text(json.dumps({"status": status}))


@pytest.fixture
def run_folder(tmp_path: Path) -> Iterator[Callable[[str], RunFolder]]:
    """Makes run folders; their locks and journals are closed in the end."""
    made: list[RunFolder] = []

    def make(name: str = "run") -> RunFolder:
        made.append(RunFolder(tmp_path / "runs" / name))
        return made[-1]

    yield make
    for folder in made:
        folder.journal.close()
        folder.lock.release(force=True)
