from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from snnsl_plugin.tracking import folder, progress, status


@pytest.mark.parametrize(
    ("result", "training", "stands"),
    [
        (None, True, "RUNNING"),
        (None, False, "KILLED"),
        ("finished", True, "FINISHED"),
        ("finished", False, "FINISHED"),
        ("failed", False, "FAILED"),
        ("interrupted", False, "KILLED"),
        ("interrupted", True, "RUNNING"),  # the result is from before the resume
        ("something else", False, "FAILED"),
    ],
)
def test_how_a_run_stands(run_folder: Callable, result: str | None, training: bool, stands: str) -> None:
    run = run_folder()
    if result:
        run.result(result)
    assert folder.outcome(run.path, training) == stands


def test_a_run_is_training_while_its_lock_is_held_and_asking_leaves_it_free(run_folder: Callable) -> None:
    run = run_folder()
    assert not folder.is_training(run.path)
    with run.lock:
        assert folder.is_training(run.path)
    assert not folder.is_training(run.path)
    with run.lock.acquire(timeout=0):
        pass


def test_the_lock_goes_with_a_killed_process(run_folder: Callable) -> None:
    run = run_folder()
    code = "import sys, time, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(1); time.sleep(60)"
    command = [sys.executable, "-u", "-c", code, str(run.path / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert folder.is_training(run.path)
        process.kill()
    assert not folder.is_training(run.path)


def test_the_data_set_is_the_recipes_and_the_fact_of_the_started_line_over_it(run_folder: Callable) -> None:
    run = run_folder()
    assert folder.dataset(run.path) == {"name": "digits", "digest": "d1", "samples": 1797}
    run.journal.close()
    plain = '{"time": 1, "event": "started", "step": 0, "metrics": {}}\n'
    for line, source in ((plain, None), (plain.replace("{}}", '{}, "dataset": "scans"}'), "scans")):
        (run.path / "metrics.jsonl").write_text(line)
        found = folder.dataset(run.path)
        assert (found["name"], found.get("source")) == ("digits", source)
        assert len(found["digest"]) == 16
    (run.path / "metrics.jsonl").unlink()
    assert folder.dataset(run.path) is None


def test_before_the_end_only_the_recipe_is_shown(run_folder: Callable) -> None:
    run = run_folder()
    run.result("finished")
    (run.path / "figures").mkdir()
    (run.path / "figures" / "rates.png").write_bytes(b"123")
    assert list(folder.files(run.path, ended=False)) == ["recipe.yaml"]
    files = folder.files(run.path, ended=True)
    assert list(files) == ["recipe.yaml", "result.json", "figures/rates.png"]
    assert files["figures/rates.png"][0] == 3


def test_progress_survives_and_a_damaged_file_starts_from_nothing(run_folder: Callable) -> None:
    path = run_folder().path
    assert status.mlflow_run_id(path) is None
    sent = progress.Progress("sqlite:///x.db", "tests", "abc", journal_bytes=7, artifacts={"recipe.yaml": [1, 2]})
    sent.save(path)
    assert progress.load(path) == sent
    assert status.mlflow_run_id(path) == "abc"
    (path / "tracking" / "sent.json").write_text('{"schema": 1, "uri"')
    assert progress.load(path) is None


def test_a_folder_keeps_its_name_for_itself(run_folder: Callable) -> None:
    first, second = run_folder("first").path, run_folder("second").path
    assert progress.identity(first) == progress.identity(first) != progress.identity(second)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://me:s3cret@database:5432/mlflow", "postgresql://me:***@database:5432/mlflow"),
        ("postgresql+psycopg://me:a/b@database/mlflow", "postgresql+psycopg://me:***@database/mlflow"),
        ("https://me:s3cret@mlflow.example", "https://me:***@mlflow.example"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////runs/mlflow.db", "sqlite:////runs/mlflow.db"),
    ],
)
def test_a_password_is_never_written_down(uri: str, shown: str) -> None:
    assert progress.without_password(uri) == shown
