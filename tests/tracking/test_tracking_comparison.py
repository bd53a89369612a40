"""A comparison in MLflow: one parent run, and a run below it for each of its runs."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from snnsl_plugin.tracking import family, folder, progress, status
from snnsl_plugin.tracking.journal import Journal
from snnsl_plugin.tracking.launch import launch
from snnsl_plugin.tracking.sending import Sender

STEPS = {"accuracy/validation": [0, 1, 2], "density/features.0": [0, 1, 2]}
OUTPUTS = ("comparison.json", "comparison.csv", "comparison.md", "comparison.html")


@pytest.fixture
def comparison(run_folder: Callable) -> SimpleNamespace:
    """A comparison of two finished runs, one failed run, and one that has only begun; its own end is still to come."""
    whole = run_folder("compare_digits")
    children = {name: run_folder(f"compare_digits/runs/{name}") for name in ("agp-s0", "gmp-s0", "gmp-s1", "rigl-s0")}
    for name, outcome in (("agp-s0", "failed"), ("gmp-s0", "finished"), ("gmp-s1", "finished"), ("rigl-s0", None)):
        children[name].epochs(range(3))
        if outcome:
            children[name].result(outcome)
    whole.journal.write("run", 1, {"accuracy/gmp": 0.9})
    return SimpleNamespace(path=whole.path, whole=whole, children=children)


def end(comparison: SimpleNamespace) -> None:
    for name in OUTPUTS:
        (comparison.path / name).write_text("content")
    (comparison.path / "figures").mkdir()
    (comparison.path / "figures" / "ranks.png").write_bytes(b"content")
    comparison.children["rigl-s0"].result("finished")
    comparison.whole.journal.write("finished", 4, {"accuracy/gmp": 0.95, "accuracy/rigl": 0.97})
    comparison.whole.result("finished")


def statuses(comparison: SimpleNamespace, mlflow_process: Callable) -> dict[str, str]:
    return {name: mlflow_process.run(child.path)["status"] for name, child in comparison.children.items()}


def test_a_finished_comparison_is_a_run_with_its_report_and_a_run_below_it_for_each_of_its_runs(
    comparison: SimpleNamespace, mlflow_process: Callable
) -> None:
    end(comparison)
    assert mlflow_process("follow", comparison.path)
    parent = mlflow_process.run(comparison.path)
    assert (parent["status"], parent["name"]) == ("FINISHED", "compare_digits")
    assert parent["files"] == sorted([*OUTPUTS, "figures/ranks.png", "recipe.yaml", "result.json"])
    assert parent["steps"] == {"accuracy/gmp": [1, 4], "accuracy/rigl": [4]}
    assert "mlflow.parentRunId" not in parent["tags"]
    outcomes = {"agp-s0": "FAILED", "gmp-s0": "FINISHED", "gmp-s1": "FINISHED", "rigl-s0": "FINISHED"}
    for name, child in comparison.children.items():
        found = mlflow_process.run(child.path)
        assert found["tags"]["mlflow.parentRunId"] == parent["id"]
        assert (found["name"], found["status"]) == (f"compare_digits/{name}", outcomes[name])
        assert found["steps"] == STEPS
        assert found["parameters"]["model.name"] == "spiking_cnn"
        assert found["datasets"] == [["digits", "d1"]]
        assert found["files"] == ["recipe.yaml", "result.json"]
        assert status.mlflow_run_id(child.path) == found["id"]


def test_a_run_without_a_result_is_running_while_the_comparison_is_and_killed_afterwards(
    comparison: SimpleNamespace, mlflow_process: Callable
) -> None:
    before = {"agp-s0": "FAILED", "gmp-s0": "FINISHED", "gmp-s1": "FINISHED", "rigl-s0": "RUNNING"}
    with comparison.whole.lock:
        assert mlflow_process("sync", comparison.path)
        assert mlflow_process.run(comparison.path)["status"] == "RUNNING"
        assert mlflow_process.run(comparison.path)["files"] == ["recipe.yaml"]
        assert statuses(comparison, mlflow_process) == before
    assert mlflow_process("sync", comparison.path)
    assert mlflow_process.run(comparison.path)["status"] == "KILLED"
    assert statuses(comparison, mlflow_process) == {**before, "rigl-s0": "KILLED"}


def test_a_failed_run_that_is_tried_again_is_running_again_and_each_step_arrives_once(
    comparison: SimpleNamespace, mlflow_process: Callable
) -> None:
    again = comparison.children["agp-s0"]
    with comparison.whole.lock:
        assert mlflow_process("sync", comparison.path)
        with again.lock:
            again.journal.close()
            again.journal = Journal(again.path / "metrics.jsonl", offset=0)
            again.epochs(range(5))  # steps 0 to 2 at another time
            assert mlflow_process("sync", comparison.path)
            assert mlflow_process.run(again.path)["status"] == "RUNNING"
        again.result("finished")
        assert mlflow_process("sync", comparison.path)
    found = mlflow_process.run(again.path)
    assert (found["status"], found["steps"]) == ("FINISHED", {name: list(range(5)) for name in STEPS})


@pytest.mark.parametrize(
    ("method", "calls"), [("create_run", 1), ("create_run", 3), ("log_batch", 4), ("log_batch", 9)]
)
def test_after_a_killed_sender_no_run_is_there_twice_and_no_step_either(
    comparison: SimpleNamespace, mlflow_process: Callable, method: str, calls: int
) -> None:
    end(comparison)
    assert mlflow_process("die during", comparison.path, method=method, calls=calls)
    assert mlflow_process("follow", comparison.path)
    parent = mlflow_process.run(comparison.path)
    assert parent["steps"] == {"accuracy/gmp": [1, 4], "accuracy/rigl": [4]}
    for child in comparison.children.values():
        found = mlflow_process.run(child.path)  # one run alone, or this raises
        assert found["tags"]["mlflow.parentRunId"] == parent["id"]
        assert found["steps"] == STEPS
        assert progress.load(child.path).complete


def test_a_run_that_goes_on_while_its_sender_is_dead_has_each_step_once(
    comparison: SimpleNamespace, mlflow_process: Callable
) -> None:
    end(comparison)
    # two calls for the comparison and two for agp-s0; the fifth brings the steps of gmp-s0, and nobody notes so
    assert mlflow_process("die during", comparison.path, method="log_batch", calls=5)
    again = comparison.children["gmp-s0"]
    assert progress.load(again.path).journal_bytes == 0
    assert mlflow_process.run(again.path)["steps"] == STEPS
    again.journal.close()
    again.journal = Journal(again.path / "metrics.jsonl", offset=0)
    again.epochs(range(4))  # the same steps at another time
    assert mlflow_process("sync", comparison.path)
    assert mlflow_process.run(again.path)["steps"] == {name: [0, 1, 2, 3] for name in STEPS}


def test_a_run_that_mlflow_refuses_keeps_no_other_run_out(
    comparison: SimpleNamespace, mlflow_process: Callable
) -> None:
    end(comparison)
    refused = {"method": "log_artifact", "name": "compare_digits/gmp-s0"}
    assert not mlflow_process("sync without", comparison.path, **refused)
    assert {name for name, child in comparison.children.items() if progress.load(child.path).complete} == {
        "agp-s0",
        "gmp-s1",
        "rigl-s0",
    }
    assert progress.load(comparison.children["gmp-s0"].path).missing[-1] == "files: recipe.yaml, result.json"
    assert mlflow_process("sync", comparison.path)
    assert mlflow_process.run(comparison.children["gmp-s0"].path)["files"] == ["recipe.yaml", "result.json"]


def test_what_a_comparison_is_missing_below_it_is_sent_after_the_next_run_beside_it(
    comparison: SimpleNamespace, run_folder: Callable, mlflow_process: Callable
) -> None:
    end(comparison)
    missed = comparison.children["gmp-s1"]
    refused = {"method": "log_artifact", "name": "compare_digits/gmp-s1"}
    assert not mlflow_process("sync without", comparison.path, **refused)
    assert progress.load(comparison.path).complete
    beside = run_folder("beside")
    beside.result("finished")
    assert mlflow_process("follow", beside.path)
    assert mlflow_process.run(missed.path)["files"] == ["recipe.yaml", "result.json"]


def test_a_dense_baseline_inside_a_comparison_is_below_its_run(run_folder: Callable, mlflow_process: Callable) -> None:
    whole, child, dense = (run_folder(name) for name in ("both", "both/runs/a", "both/runs/a/dense"))
    for run in (whole, child, dense):
        run.result("finished")
    assert mlflow_process("sync", whole.path)
    found = mlflow_process.run(dense.path)
    assert found["name"] == "both/a/dense"
    assert found["tags"]["mlflow.parentRunId"] == mlflow_process.run(child.path)["id"]


@pytest.mark.parametrize(
    ("comparing", "held", "result", "training"),
    [
        (True, True, None, True),
        (True, False, None, True),  # between two workers
        (True, True, "failed", True),  # tried again
        (True, False, "failed", False),
        (True, True, "finished", True),  # the report is being drawn
        (True, False, "finished", False),
        (False, False, None, False),
        (False, True, None, False),  # a worker whose comparison has died
    ],
)
def test_when_a_run_of_a_comparison_counts_as_training(
    run_folder: Callable, comparing: bool, held: bool, result: str | None, training: bool
) -> None:
    whole, child = run_folder("both"), run_folder("both/runs/a")
    if result:
        child.result(result)
    if held:
        child.lock.acquire()
    (member,) = [each for each in family.members(whole.path) if each.path == child.path]
    assert family.is_training(member, whole.path, comparing) is training


def test_a_folder_without_a_recipe_is_no_run_yet(run_folder: Callable) -> None:
    whole = run_folder("both")
    (whole.path / "runs" / "planned").mkdir(parents=True)
    (whole.path / "runs" / "notes.txt").write_text("not a run")
    assert [each.path for each in family.members(whole.path)] == [whole.path]


@pytest.mark.parametrize("name", ["metrics.jsonl", "run.json", "result.json", "report.html", "figures/rates.png"])
def test_whatever_happens_to_a_run_changes_its_traces(run_folder: Callable, name: str) -> None:
    path = run_folder().path
    (path / "figures").mkdir()
    before = folder.traces(path)
    assert folder.traces(path) == before
    (path / name).write_text("something new")
    assert folder.traces(path) != before


def test_a_comparison_that_names_no_data_has_no_data_set(run_folder: Callable) -> None:
    run = run_folder()
    (run.path / "recipe.yaml").write_text("schema: 1\ncompare: {densities: [0.1]}\n")
    run.journal.close()
    (run.path / "metrics.jsonl").write_text('{"time": 1, "event": "started", "step": 0, "metrics": {}}\n')
    assert folder.dataset(run.path) is None


def complete(path: Path, uri: str) -> None:
    """A run that MLflow has whole, as a sender leaves it."""
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text("schema: 1\ndata: {name: digits}\n")
    (path / "result.json").write_text(json.dumps({"status": "finished"}))
    sent = progress.Progress(uri, "tests", "abc", parameters=True, dataset=True, status="FINISHED", complete=True)
    sent.artifacts = folder.files(path, ended=True)
    sent.save(path)


def test_finished_runs_are_not_read_again_and_a_changed_one_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, whole = "http://127.0.0.1:9", tmp_path / "big"
    complete(whole, uri)
    for number in range(30):
        complete(whole / "runs" / f"run-{number}", uri)
    read: list[Path] = []
    for module, name in ((progress, "load"), (folder, "files"), (folder, "is_training")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda path, real=real, **more: read.append(path) or real(path, **more))
    sender = Sender(uri, "tests")  # nobody answers there, so True means that MLflow was not asked
    assert sender.send(whole, training=False)
    assert len(set(read)) == 31
    read.clear()
    assert sender.send(whole, training=False)
    assert [each.path for each in sender.touched(whole, training=True)] == [whole]
    assert read == []
    (whole / "runs" / "run-7" / "report.html").write_text("drawn again")
    assert [each.path.name for each in sender.touched(whole, training=False)] == ["run-7"]


@pytest.mark.slow
def test_a_sender_that_is_killed_in_the_middle_of_a_comparison_and_started_again_shows_all_of_it_once(
    run_folder: Callable, mlflow_process: Callable
) -> None:
    def started() -> subprocess.Popen:
        return launch(whole.path, uri=mlflow_process.uri, experiment="tests")

    def until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def has(name: str, wanted: str) -> bool:
        sent = progress.load(whole.path / "runs" / name)
        return sent is not None and sent.status == wanted

    whole, children, senders = run_folder("live"), {}, []
    with whole.lock:
        senders.append(started())
        for name in ("a", "b", "c"):
            children[name] = run_folder(f"live/runs/{name}")
            with children[name].lock:
                children[name].epochs(range(2))
                until(lambda name=name: has(name, "RUNNING"))
                if name == "b":
                    senders[0].kill()
                    senders[0].wait(30)
                children[name].epochs(range(2, 4))
                if name == "b":
                    senders.append(started())
            children[name].result("failed" if name == "c" else "finished")
            until(lambda name=name: has(name, "FAILED" if name == "c" else "FINISHED"))
        whole.result("finished")
    assert senders[1].wait(60) == 0
    parent = mlflow_process.run(whole.path)
    assert parent["status"] == "FINISHED"
    for name, child in children.items():
        found = mlflow_process.run(child.path)
        assert found["tags"]["mlflow.parentRunId"] == parent["id"]
        assert found["steps"] == {metric: [0, 1, 2, 3] for metric in STEPS}
        assert found["status"] == ("FAILED" if name == "c" else "FINISHED")
