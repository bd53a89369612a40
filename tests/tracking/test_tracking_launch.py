from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from snnsl_plugin.errors import BadOption
from snnsl_plugin.tracking import launch as launching
from snnsl_plugin.tracking.launch import default_uri, launch
from snnsl_plugin.tracking.sending import Sender


class FakeProcess:
    def __init__(self, _: object) -> None:
        pass

    def poll(self) -> int:
        return 0


def test_the_default_is_a_database_beside_the_runs(tmp_path: Path) -> None:
    assert default_uri(tmp_path / "runs") == f"sqlite:///{(tmp_path / 'runs').resolve()}/mlflow.db"


def test_neither_the_journal_nor_the_launch_nor_the_status_imports_mlflow() -> None:
    code = (
        "import sys; from snnsl_plugin.tracking import journal, launch, status, sender, sending\n"
        "assert not {'mlflow', 'torch', 'numpy'} & sys.modules.keys(), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_launch_returns_at_once_with_a_process_of_its_own_session(run_folder: Callable) -> None:
    run = run_folder()
    start = time.perf_counter()
    process = launch(run.path, uri="./mlruns", experiment="tests")
    seconds = time.perf_counter() - start
    assert os.getsid(process.pid) != os.getsid(0)
    assert process.wait(30) == 1
    assert seconds < 0.5  # about 0.01 on an idle machine
    log = (run.path / "tracking" / "sender.log").read_text()
    assert "mlflow migrate-filestore" in log
    assert "Traceback" not in log


def test_the_address_is_not_on_the_command_line(run_folder: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(launching, "_started", [])
    monkeypatch.setattr(launching.subprocess, "Popen", lambda command, **options: seen.update(options, command=command))
    launch(run_folder().path, uri="postgresql://me:s3cret@database/mlflow", experiment="tests")
    assert "s3cret" not in " ".join(seen["command"])
    assert seen["env"]["MLFLOW_TRACKING_URI"] == "postgresql://me:s3cret@database/mlflow"
    assert seen["start_new_session"]


def test_without_an_address_the_environments_is_taken_and_then_the_default(
    run_folder: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(launching, "_started", [])
    monkeypatch.setattr(launching.subprocess, "Popen", lambda _, **options: FakeProcess(seen.append(options["env"])))
    run = run_folder()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example")
    launch(run.path, uri=None, experiment="tests")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    launch(run.path, uri=None, experiment="tests")
    uris = [env["MLFLOW_TRACKING_URI"] for env in seen]
    assert uris == ["http://mlflow.example", default_uri(run.path.parent)]


def test_a_sender_that_cannot_start_is_a_warning_and_not_an_error(
    run_folder: Callable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(launching.sys, "executable", "/nowhere/python")
    with caplog.at_level(logging.WARNING):
        assert launch(run_folder().path, uri="sqlite:///x.db", experiment="tests") is None
    assert len(caplog.records) == 1
    assert "send it later with" in caplog.text


@pytest.mark.parametrize("uri", ["./mlruns", "file:./mlruns", "file:///somewhere/mlruns", "mlruns"])
def test_a_folder_of_files_as_address_names_the_way_out(uri: str) -> None:
    with pytest.raises(BadOption, match="mlflow migrate-filestore"):
        Sender(uri, "tests")


def test_without_mlflow_the_sender_says_one_sentence_and_ends_well(run_folder: Callable) -> None:
    run = run_folder()
    code = (
        "import sys; sys.modules['mlflow'] = None\n"
        "from snnsl_plugin.tracking.sender import main\n"
        "sys.exit(main([sys.argv[1], '--uri', 'sqlite:///' + sys.argv[1] + '/m.db']))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "mlflow cannot be imported here" in done.stderr


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_a_caller_may_drop_the_process(run_folder: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list = []
    monkeypatch.setattr(launching, "_started", kept)
    launch(run_folder().path, uri="./mlruns", experiment="tests")
    gc.collect()
    assert kept[0].wait(30) == 1
