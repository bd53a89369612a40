from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from filelock import FileLock

from snnsl_plugin.tracking import progress
from snnsl_plugin.tracking.journal import Journal

EPOCHS = {"accuracy/validation": [0, 1, 2], "density/features.0": [0, 1, 2]}


def test_a_finished_run_arrives_whole(run_folder: Callable, mlflow_process: Callable) -> None:
    run = run_folder()
    run.epochs(range(3))
    run.journal.write("epoch", 3, {"rate/layer[0]": float("nan")})
    run.result("finished")
    (run.path / "figures").mkdir()
    for name in ("figures/rates.png", "report.html", "checkpoint.safetensors", "state.json"):
        (run.path / name).write_bytes(b"content")
    assert mlflow_process("follow", run.path)
    found = mlflow_process.run(run.path)
    assert found["status"] == "FINISHED"
    assert found["name"] == "run"
    assert found["parameters"]["model.name"] == "spiking_cnn"
    assert found["parameters"]["model.T"] == "4"
    assert found["steps"] == {**EPOCHS, "rate/layer_0_-fe6fe870": [3]}
    assert found["values"]["accuracy/validation"] == ["0.0", "0.1", "0.2"]
    assert found["values"]["rate/layer_0_-fe6fe870"] == ["nan"]
    assert found["datasets"] == [["digits", "d1"]]
    assert found["files"] == [
        "checkpoint.safetensors",
        "figures/rates.png",
        "recipe.yaml",
        "report.html",
        "result.json",
        "state.json",
    ]
    assert 0 <= found["seconds"] < 60
    sent = progress.load(run.path)
    assert sent.complete
    assert sent.missing == []
    assert sent.mlflow_run_id == found["id"]


@pytest.mark.parametrize(
    ("result", "status"), [("failed", "FAILED"), ("interrupted", "KILLED"), ("stopped", "KILLED"), (None, "KILLED")]
)
def test_mlflow_gets_the_true_status(
    run_folder: Callable, mlflow_process: Callable, result: str | None, status: str
) -> None:
    run = run_folder()
    if result:
        run.result(result)
    assert mlflow_process("sync", run.path)
    assert mlflow_process.run(run.path)["status"] == status


def test_sending_twice_or_from_the_beginning_changes_nothing(run_folder: Callable, mlflow_process: Callable) -> None:
    run = run_folder()
    run.epochs(range(3))
    run.result("finished")
    assert mlflow_process("sync", run.path)
    once = mlflow_process.run(run.path)
    assert mlflow_process("sync", run.path)
    assert mlflow_process.run(run.path) == once
    (run.path / "tracking" / "sent.json").unlink()
    assert mlflow_process("sync", run.path)
    assert mlflow_process.run(run.path) == once


def test_a_sender_that_dies_after_making_the_run_finds_it_again(run_folder: Callable, mlflow_process: Callable) -> None:
    run = run_folder()
    run.epochs(range(3))
    run.result("finished")
    assert mlflow_process("die after create_run", run.path)
    assert not (run.path / "tracking" / "sent.json").exists()
    assert len(mlflow_process.runs(run.path)) == 1
    assert mlflow_process("sync", run.path)
    assert mlflow_process.run(run.path)["steps"] == EPOCHS


def test_a_killed_run_that_goes_on_stays_one_run_and_each_step_arrives_once(
    run_folder: Callable, mlflow_process: Callable
) -> None:
    run = run_folder()
    with run.lock:
        run.epochs(range(2))
        offset = run.journal.offset
        run.epochs(range(2, 4))
        assert mlflow_process("sync", run.path)
        assert mlflow_process.run(run.path)["status"] == "RUNNING"
    assert mlflow_process("sync", run.path)
    assert mlflow_process.run(run.path)["status"] == "KILLED"
    with run.lock:
        run.journal.close()
        run.journal = Journal(run.path / "metrics.jsonl", offset)
        run.epochs(range(2, 7))  # steps 2 and 3 again, at another time
        assert mlflow_process("sync", run.path)
        assert mlflow_process.run(run.path)["status"] == "RUNNING"
    run.result("finished")
    assert mlflow_process("sync", run.path)
    found = mlflow_process.run(run.path)
    assert found["status"] == "FINISHED"
    assert found["steps"] == {name: list(range(7)) for name in EPOCHS}


def test_more_than_a_thousand_metrics_arrive(run_folder: Callable, mlflow_process: Callable) -> None:
    run = run_folder()
    run.journal.write("mask_update", 0, {f"density/layer{number}": 0.1 for number in range(1100)})
    for step in range(1, 300):
        run.journal.write("mask_update", step, {f"density/layer{number}": 0.1 for number in range(4)})
    run.result("finished")
    assert mlflow_process("sync", run.path)
    steps = mlflow_process.run(run.path)["steps"]
    assert len(steps) == 1100
    assert steps["density/layer3"] == list(range(300))
    assert steps["density/layer4"] == [0]


def test_the_dense_baseline_is_a_run_below_its_run(run_folder: Callable, mlflow_process: Callable) -> None:
    run, dense = run_folder(), run_folder("run/dense")
    run.epochs(range(3))
    dense.epochs(range(2))
    dense.result("finished")
    with run.lock:
        assert mlflow_process("sync", run.path)
        parent, child = mlflow_process.run(run.path), mlflow_process.run(dense.path)
        assert (parent["status"], child["status"]) == ("RUNNING", "FINISHED")
    run.result("failed")
    assert mlflow_process("sync", run.path)
    parent, child = mlflow_process.run(run.path), mlflow_process.run(dense.path)
    assert (parent["status"], child["status"]) == ("FAILED", "FINISHED")
    assert child["tags"]["mlflow.parentRunId"] == parent["id"]
    assert child["name"] == "run/dense"
    assert child["steps"]["accuracy/validation"] == [0, 1]


def test_after_its_own_run_a_sender_sends_what_others_beside_it_miss(
    run_folder: Callable, mlflow_process: Callable
) -> None:
    own, missed, never, busy = (run_folder(name) for name in ("own", "missed", "never", "busy"))
    for run in (missed, busy):
        progress.Progress(mlflow_process.uri, "tests").save(run.path)
        progress.identity(run.path)
        run.epochs(range(3))
    for run in (own, missed, never, busy):
        run.result("finished")
    with FileLock(str(busy.path / "tracking" / ".lock")):
        assert mlflow_process("follow", own.path)
    assert mlflow_process.run(missed.path)["steps"] == EPOCHS
    assert progress.load(missed.path).complete
    assert not (never.path / "tracking").exists()  # its owner did not ask for MLflow
    assert mlflow_process.runs(busy.path) == []


def test_what_did_not_arrive_is_named(run_folder: Callable, mlflow_process: Callable) -> None:
    run = run_folder()
    run.epochs(range(3))
    run.result("finished")
    assert not mlflow_process("follow", run.path, uri="http://127.0.0.1:9", patience=0.0)
    assert progress.load(run.path).missing == ["everything: MLflow has not answered yet"]
    assert mlflow_process("follow", run.path)
    (run.path / "report.html").write_text("drawn again later")
    sent = json.loads((run.path / "tracking" / "sent.json").read_text())
    assert sent["missing"] == []
    assert mlflow_process("sync", run.path)
    assert "report.html" in mlflow_process.run(run.path)["files"]


def test_a_file_store_that_is_gone_hides_neither_the_metrics_nor_how_the_run_ended(
    run_folder: Callable, mlflow_process: Callable
) -> None:
    run = run_folder()
    run.epochs(range(3))
    run.result("failed")
    assert not mlflow_process("sync without a file store", run.path)
    found = mlflow_process.run(run.path)
    assert (found["status"], found["steps"], found["files"]) == ("FAILED", EPOCHS, [])
    assert progress.load(run.path).missing[-1] == "files: recipe.yaml, result.json"
    assert mlflow_process("sync", run.path)
    assert mlflow_process.run(run.path)["files"] == ["recipe.yaml", "result.json"]


def test_a_run_that_was_deleted_in_mlflow_is_left_alone(run_folder: Callable, mlflow_process: Callable) -> None:
    run = run_folder()
    with run.lock:
        assert mlflow_process("sync", run.path)
        mlflow_process("delete", run_id=progress.load(run.path).mlflow_run_id)
        run.epochs(range(3))
    assert mlflow_process("follow", run.path)
    assert mlflow_process.run(run.path)["steps"] == {}
    assert "deleted in MLflow" in progress.load(run.path).missing[0]
