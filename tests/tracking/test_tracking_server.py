"""A real MLflow server that is late, freezes or is killed: training never waits, and every step arrives once."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snnsl_plugin.tracking import progress
from snnsl_plugin.tracking.launch import launch

pytestmark = pytest.mark.slow

NAMES = ("accuracy/validation", "density/features.0")


class Server:
    """`mlflow server` with its own process group, so that all of it can be frozen or killed."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        folder = self._folder
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += [
            "--backend-store-uri",
            f"sqlite:///{folder}/server.db",
            "--artifacts-destination",
            f"{folder}/files",
        ]
        command += ["--workers", "1"]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        settings = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._process = subprocess.Popen(command, start_new_session=True, env={**os.environ, **settings}, **quiet)

    def wait(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return
            except OSError:
                time.sleep(0.5)
        pytest.fail("the server did not start in 120 seconds")

    def signal(self, number: int) -> None:
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait(30)
            self._process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.kill()


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen]]:
    """Senders; killed in the end if they still run."""
    processes: list[subprocess.Popen] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait(30)


def _train(run: object, steps: range, seconds: float) -> float:
    """Writes an epoch every `seconds`; the longest time in seconds that one took."""
    longest = 0.0
    for step in steps:
        start = time.perf_counter()
        run.epochs(range(step, step + 1))
        longest = max(longest, time.perf_counter() - start)
        time.sleep(seconds)
    return longest


def _until_first_metrics(run_dir: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        sent = progress.load(run_dir)
        if sent and sent.journal_bytes:
            return
        time.sleep(0.2)
    pytest.fail(f"nothing arrived: {(run_dir / 'tracking' / 'sender.log').read_text()}")


def _until_logged(run_dir: Path, sentence: str, count: int) -> None:
    deadline = time.monotonic() + 60
    while (log := (run_dir / "tracking" / "sender.log").read_text()).count(sentence) < count:
        if time.monotonic() > deadline:
            pytest.fail(f"the sender did not say {count} times {sentence!r}: {log}")
        time.sleep(0.2)


def _finish(run: object, process: subprocess.Popen) -> None:
    run.result("finished")
    run.lock.release()
    assert process.wait(180) == 0, (run.path / "tracking" / "sender.log").read_text()
    sent = progress.load(run.path)
    assert sent.complete, (sent.missing, (run.path / "tracking" / "sender.log").read_text())


def _arrived_once(found: dict, count: int) -> None:
    assert found["status"] == "FINISHED"
    assert found["steps"] == {name: list(range(count)) for name in NAMES}
    assert "result.json" in found["files"]


def test_a_server_that_is_absent_at_the_start(
    run_folder: Callable, mlflow_process: Callable, server: Server, started: list
) -> None:
    run = run_folder()
    run.lock.acquire()
    started.append(launch(run.path, uri=server.uri, experiment="tests"))
    longest = _train(run, range(20), 0.4)
    assert "everything" in progress.load(run.path).missing[0]
    server.start()
    server.wait()
    longest = max(longest, _train(run, range(20, 30), 0.1))
    assert longest < 1
    _finish(run, started[0])
    _arrived_once(mlflow_process("runs", uri=server.uri, tag=progress.identity(run.path))[0], 30)
    log = (run.path / "tracking" / "sender.log").read_text()
    assert log.count("is tried again") == 1
    assert "MLflow is back" in log


def test_a_server_that_freezes_in_the_middle(
    run_folder: Callable, mlflow_process: Callable, server: Server, started: list
) -> None:
    server.start()
    server.wait()
    run = run_folder()
    run.lock.acquire()
    started.append(launch(run.path, uri=server.uri, experiment="tests"))
    longest = _train(run, range(5), 0.1)
    _until_first_metrics(run.path)
    server.signal(signal.SIGSTOP)
    try:
        longest = max(longest, _train(run, range(5, 25), 1.0))
    finally:
        server.signal(signal.SIGCONT)
    assert longest < 1
    _finish(run, started[0])
    _arrived_once(mlflow_process("runs", uri=server.uri, tag=progress.identity(run.path))[0], 25)


def test_a_server_and_a_sender_that_are_killed_in_the_middle(
    run_folder: Callable, mlflow_process: Callable, server: Server, started: list
) -> None:
    server.start()
    server.wait()
    run = run_folder()
    run.lock.acquire()
    started.append(launch(run.path, uri=server.uri, experiment="tests"))
    longest = _train(run, range(5), 0.1)
    _until_first_metrics(run.path)
    server.kill()
    longest = max(longest, _train(run, range(5, 15), 0.5))
    started[0].kill()
    started[0].wait(30)
    offset = run.journal.offset
    _train(run, range(15, 18), 0.0)
    # the training process is killed too, and goes on from its checkpoint
    run.journal.close()
    run.journal = type(run.journal)(run.path / "metrics.jsonl", offset)
    started.append(launch(run.path, uri=server.uri, experiment="tests"))
    longest = max(longest, _train(run, range(15, 20), 0.5))
    server.start()
    server.wait()
    longest = max(longest, _train(run, range(20, 25), 0.1))
    assert longest < 1
    _finish(run, started[1])
    found = mlflow_process("runs", uri=server.uri, tag=progress.identity(run.path))
    assert len(found) == 1
    _arrived_once(found[0], 25)


def test_a_study_whose_server_is_killed_and_frozen_has_every_step_of_every_trial_once(
    run_folder: Callable, mlflow_process: Callable, server: Server, started: list
) -> None:
    server.start()
    server.wait()
    study = run_folder("study")
    study.lock.acquire()
    started.append(launch(study.path, uri=server.uri, experiment="tests"))
    trials: list[tuple[Path, str]] = []

    def a_trial(result: str) -> float:
        """Trains a trial of 6 epochs below the study, as a worker does; the longest time that an epoch took."""
        number = len(trials)
        trial = run_folder(f"study/runs/trial-{number:04d}")
        trial.lock.acquire()
        longest = _train(trial, range(6), 0.15)
        trial.result(result)
        trial.lock.release()
        told = {
            "number": number,
            "state": {"finished": "complete"}.get(result, result),
            "params": {"lr": 0.01 * number},
        }
        told |= {"values": {"accuracy": 0.5 if result == "finished" else None}, "constraints": {}, "retry_of": None}
        (trial.path / "trial.json").write_text(json.dumps(told))
        study.journal.write("trial", number, {"accuracy": 0.5} if result == "finished" else {})
        trials.append((trial.path, result))
        return longest

    longest = a_trial("finished")
    _until_first_metrics(trials[0][0])
    server.kill()
    longest = max(longest, a_trial("stopped"), a_trial("finished"))
    _until_logged(study.path, "is tried again", 1)
    server.start()
    longest = max(longest, a_trial("failed"))
    _until_logged(study.path, "MLflow is back", 1)
    server.signal(signal.SIGSTOP)
    try:
        longest = max(longest, *(a_trial("finished") for _ in range(4)))
        _until_logged(study.path, "is tried again", 2)
    finally:
        server.signal(signal.SIGCONT)
    longest = max(longest, a_trial("finished"))
    assert longest < 1
    _finish(study, started[0])
    (parent,) = mlflow_process("runs", uri=server.uri, tag=progress.identity(study.path))
    judged = [number for number, (_, result) in enumerate(trials) if result == "finished"]
    assert (parent["status"], parent["steps"]) == ("FINISHED", {"accuracy": judged})
    for number, (path, result) in enumerate(trials):
        (shown,) = mlflow_process("runs", uri=server.uri, tag=progress.identity(path))
        reached = {"objective/accuracy": [5]} if result == "finished" else {}
        assert shown["steps"] == {name: list(range(6)) for name in NAMES} | reached
        assert shown["status"] == {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}[result]
        assert (shown["tags"]["mlflow.parentRunId"], shown["tags"]["snnsl.trial"]) == (parent["id"], str(number))
        assert "result.json" in shown["files"]


def test_a_sender_that_runs_out_of_patience_says_what_is_missing_and_the_next_run_sends_it(
    run_folder: Callable, mlflow_process: Callable, server: Server, started: list
) -> None:
    first, second = run_folder("first"), run_folder("second")
    command = [sys.executable, "-m", "snnsl_plugin.tracking.sender", str(first.path), "--uri", server.uri]
    _train(first, range(3), 0.0)
    first.result("finished")
    subprocess.run([*command, "--experiment", "tests", "--patience", "3"], check=True, stderr=subprocess.DEVNULL)
    assert progress.load(first.path).missing == ["everything: MLflow has not answered yet"]
    server.start()
    server.wait()
    second.lock.acquire()
    started.append(launch(second.path, uri=server.uri, experiment="tests"))
    _train(second, range(3), 0.0)
    _finish(second, started[0])
    for run in (first, second):
        _arrived_once(mlflow_process("runs", uri=server.uri, tag=progress.identity(run.path))[0], 3)


def test_a_sender_that_is_killed_again_and_again_at_any_moment(
    run_folder: Callable, mlflow_process: Callable, started: list, tmp_path: Path
) -> None:
    run = run_folder()
    run.lock.acquire()
    uri = f"sqlite:///{tmp_path}/fresh.db"  # the first kill may cut short the making of the database
    moments = random.Random(0)
    count = 0
    for _ in range(6):
        started.append(launch(run.path, uri=uri, experiment="tests"))
        deadline = time.monotonic() + (moments.uniform(2.0, 7.0) if started[1:] else 3.0)
        while time.monotonic() < deadline:
            _train(run, range(count, count + 1), 0.02)
            count += 1
        started[-1].kill()
        started[-1].wait(30)
    started.append(launch(run.path, uri=uri, experiment="tests"))
    _finish(run, started[-1])
    found = mlflow_process("runs", uri=uri, tag=progress.identity(run.path))
    assert len(found) == 1
    _arrived_once(found[0], count)
