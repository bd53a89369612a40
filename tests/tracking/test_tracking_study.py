"""A study in MLflow: one parent run, a run below it for each trial, and one parent for all machines of a study."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snnsl_plugin.errors import BadOption
from snnsl_plugin.tracking import folder, progress, sharing, trial

TRIAL = {
    "number": 3,
    "state": "complete",
    "params": {"train.optimizer.lr": 0.01, "pruning.criterion": "magnitude", "long": "x" * 7000},
    "values": {"accuracy": 0.9, "synops": 1000},
    "constraints": {"accuracy": -0.02},
    "retry_of": None,
}


def write_trial(path: Path, **changed: Any) -> None:
    (path / "trial.json").write_text(json.dumps(TRIAL | changed))


@pytest.fixture
def study(run_folder: Callable) -> SimpleNamespace:
    """A study with a complete, a stopped and a failed trial, the failed one's repetition, and one under way."""
    whole = run_folder("study")
    trials = {}
    for number, result in enumerate(("finished", "stopped", "failed", "finished", None)):
        trials[number] = run_folder(f"study/runs/trial-{number:04d}")
        trials[number].epochs(range(3))
        if result:
            state = {"finished": "complete"}.get(result, result)
            trials[number].result(result)
            values = TRIAL["values"] if result != "failed" else {"accuracy": None}
            repeated = 2 if number == 3 else None
            write_trial(trials[number].path, number=number, state=state, values=values, retry_of=repeated)
            whole.journal.write("trial", number, {"accuracy": 0.9} if result != "failed" else {})
    (whole.path / "study.json").write_text("{}")
    return SimpleNamespace(path=whole.path, whole=whole, trials=trials)


def test_a_study_is_a_run_with_its_trials_below_it_each_with_its_true_status(
    study: SimpleNamespace, mlflow_process: Callable
) -> None:
    with study.whole.lock:
        assert mlflow_process("sync", study.path)
        parent = mlflow_process.run(study.path)
        found = {number: mlflow_process.run(each.path) for number, each in study.trials.items()}
    assert parent["status"] == "RUNNING"
    assert parent["steps"] == {"accuracy": [0, 1, 3]}
    assert {number: each["status"] for number, each in found.items()} == {
        0: "FINISHED", 1: "KILLED", 2: "FAILED", 3: "FINISHED", 4: "RUNNING",
    }  # fmt: skip
    assert all(each["tags"]["mlflow.parentRunId"] == parent["id"] for each in found.values())
    told = {
        number: {name: value for name, value in each["tags"].items() if name.startswith(("snnsl.trial", "snnsl.retry"))}
        for number, each in found.items()
    }
    assert told == {
        0: {"snnsl.trial": "0", "snnsl.trial_state": "complete"},
        1: {"snnsl.trial": "1", "snnsl.trial_state": "stopped"},
        2: {"snnsl.trial": "2", "snnsl.trial_state": "failed"},
        3: {"snnsl.trial": "3", "snnsl.trial_state": "complete", "snnsl.retry_of": "2"},
        4: {},
    }


def test_what_a_trial_tried_and_reached_is_there_once_at_its_last_step(
    study: SimpleNamespace, mlflow_process: Callable
) -> None:
    run, shown = study.trials[0].path, {}
    for _ in range(2):
        assert mlflow_process("sync", study.path)
        shown = mlflow_process.run(run)
        (run / "tracking" / "sent.json").unlink()  # the next sender knows nothing of the first
    tried = {name: value for name, value in shown["parameters"].items() if name.startswith("tune/")}
    assert tried["tune/train.optimizer.lr"] == "0.01"
    assert tried["tune/pruning.criterion"] == "magnitude"
    assert len(tried["tune/long"]) == 6000
    assert tried["tune/long"].endswith("[cut: 7000 characters, whole in recipe.yaml]")
    assert shown["parameters"]["model.name"] == "spiking_cnn"
    reached = {name: (shown["values"][name], shown["steps"][name]) for name in shown["steps"] if "/" in name}
    assert reached["objective/accuracy"] == (["0.9"], [2])
    assert reached["objective/synops"] == (["1000.0"], [2])
    assert reached["constraint/accuracy"] == (["-0.02"], [2])
    assert "objective/accuracy" not in mlflow_process.run(study.trials[2].path)["steps"]  # it reached nothing
    assert "trial.json" in shown["files"]


@pytest.mark.parametrize(
    ("method", "calls"), [("create_run", 2), ("log_batch", 5), ("log_batch", 8), ("log_batch", 13)]
)
def test_a_sender_killed_at_any_call_leaves_nothing_twice(
    study: SimpleNamespace, mlflow_process: Callable, method: str, calls: int
) -> None:
    assert mlflow_process("die during", study.path, method=method, calls=calls)
    assert mlflow_process("sync", study.path)
    for number in (0, 1, 3):
        shown = mlflow_process.run(study.trials[number].path)
        assert shown["steps"]["objective/accuracy"] == [2]
        assert shown["steps"]["accuracy/validation"] == [0, 1, 2]
        assert shown["tags"]["snnsl.trial"] == str(number)


def test_a_study_that_judges_a_trial_after_its_run_is_over_is_heard(
    study: SimpleNamespace, mlflow_process: Callable
) -> None:
    late = study.trials[4]
    with study.whole.lock:
        late.result("finished")
        assert mlflow_process("sync", study.path)
        assert progress.load(late.path).complete
        write_trial(late.path, number=4)
        assert mlflow_process("sync", study.path)
    shown = mlflow_process.run(late.path)
    assert (shown["tags"]["snnsl.trial"], shown["steps"]["objective/accuracy"]) == ("4", [2])


def test_a_trial_that_nobody_can_read_hides_neither_its_run_nor_the_others(
    study: SimpleNamespace, mlflow_process: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = study.trials[0].path
    (damaged / "trial.json").write_text('{"number": 0, "sta')
    assert mlflow_process("sync", study.path)
    shown = mlflow_process.run(damaged)
    assert (shown["status"], "snnsl.trial" in shown["tags"]) == ("FINISHED", False)
    assert trial.read(damaged) is None
    assert "is shown without its trial" in caplog.text


def test_a_study_shows_its_report_while_it_goes_on_and_not_more_than_once_a_minute(
    study: SimpleNamespace, mlflow_process: Callable
) -> None:
    report = study.path / "report.html"
    (study.path / "figures").mkdir()
    (study.path / "figures" / "front.png").write_bytes(b"content")
    report.write_text("first")

    def sent() -> list[int]:
        assert mlflow_process("sync", study.path)
        return progress.load(study.path).artifacts["report.html"]

    with study.whole.lock:
        first = sent()
        assert mlflow_process.run(study.path)["files"] == ["recipe.yaml", "report.html", "study.json"]
        report.write_text("second, drawn at once")
        assert sent() == first
        minute_ago = first[1] - 61 * 10**9
        report.write_text("first")
        os.utime(report, ns=(minute_ago, minute_ago))
        at_the_beginning = progress.load(study.path)
        at_the_beginning.artifacts["report.html"] = [5, minute_ago]
        at_the_beginning.save(study.path)
        report.write_text("third, a minute later")
        assert sent()[0] == len("third, a minute later")
    study.trials[4].result("stopped")
    report.write_text("the last")
    study.whole.result("finished")
    assert sent()[0] == len("the last")
    assert mlflow_process.run(study.path)["files"] == [
        "figures/front.png", "recipe.yaml", "report.html", "result.json", "study.json",
    ]  # fmt: skip


@pytest.fixture
def two(run_folder: Callable) -> SimpleNamespace:
    """One study in two folders, as on two machines: who began it and who joined it."""
    began, joined = run_folder("machine-a/study"), run_folder("machine-b/study")
    name = f"study-{os.urandom(6).hex()}"
    for each, how in ((began, False), (joined, True)):
        sharing.adopt_identity(each.path, name, joined=how)
    children = run_folder("machine-a/study/runs/trial-0000"), run_folder("machine-b/study/runs/trial-0001")
    for number, child in enumerate(children):
        child.epochs(range(3))
        child.result("finished")
        write_trial(child.path, number=number)
    began.journal.write("trial", 0, {"accuracy": 0.5})
    joined.journal.write("trial", 1, {"accuracy": 0.6})
    return SimpleNamespace(began=began, joined=joined, children=children)


def test_two_folders_of_one_study_are_one_run_with_the_trials_of_both_below_it(
    two: SimpleNamespace, mlflow_process: Callable
) -> None:
    with two.began.lock, two.joined.lock:
        assert not mlflow_process("sync", two.joined.path)
        assert mlflow_process.runs(two.joined.path) == []
        assert "began the study has not shown it yet" in progress.load(two.joined.path).missing[0]
        assert mlflow_process("sync", two.began.path)
        assert mlflow_process("sync", two.joined.path)
        parent = mlflow_process.run(two.began.path)
        assert parent["steps"] == {"accuracy": [0, 1]}
        assert parent["values"] == {"accuracy": ["0.5", "0.6"]}
        for child in two.children:
            assert mlflow_process.run(child.path)["tags"]["mlflow.parentRunId"] == parent["id"]
        # A line of a trial in both journals is one value, whoever sends first.
        for each in (two.joined, two.began):
            each.journal.write("trial", 2, {"accuracy": 0.7})
            assert mlflow_process("sync", each.path)
        assert mlflow_process.run(two.began.path)["steps"] == {"accuracy": [0, 1, 2]}


def test_who_joined_makes_the_run_where_nobody_else_does_and_who_began_finds_it(
    two: SimpleNamespace, mlflow_process: Callable
) -> None:
    assert not mlflow_process("sync", two.joined.path)
    sent = progress.load(two.joined.path)
    sent.waits_until = 1.0  # long ago
    sent.save(two.joined.path)
    assert mlflow_process("sync", two.joined.path)
    made = mlflow_process.run(two.joined.path)
    assert mlflow_process("sync", two.began.path)
    assert mlflow_process.run(two.began.path)["id"] == made["id"]


def test_the_machines_of_a_study_may_have_other_paths_in_their_recipes(
    two: SimpleNamespace, mlflow_process: Callable
) -> None:
    for each, root in ((two.began, "here"), (two.joined, "there")):
        recipe = each.path / "recipe.yaml"
        recipe.write_text(recipe.read_text().replace("name: digits", f"name: digits, root: {root}"))
        assert mlflow_process("sync", each.path)
    assert mlflow_process.run(two.began.path)["parameters"]["data.root"] == "here"


def test_finished_is_what_one_machine_says_and_only_that_one_takes_it_back(
    two: SimpleNamespace, mlflow_process: Callable
) -> None:
    def status(of: Any = None) -> str:
        if of is not None:
            assert mlflow_process("sync", of.path)
        return mlflow_process.run(two.began.path)["status"]

    with two.joined.lock:
        with two.began.lock:
            assert status(two.began) == "RUNNING"
            assert status(two.joined) == "RUNNING"
        two.began.result("interrupted")
        assert status(two.began) == "KILLED"
        assert status(two.joined) == "KILLED"  # nothing new to say
        two.joined.journal.write("trial", 2, {"accuracy": 0.7})
        assert status(two.joined) == "RUNNING"
        with two.began.lock:
            (two.began.path / "result.json").unlink()
            assert status(two.began) == "RUNNING"
            two.began.result("finished")
        assert status(two.began) == "FINISHED"
        two.joined.journal.write("trial", 3, {"accuracy": 0.8})
        assert status(two.joined) == "FINISHED"
    two.joined.result("failed")
    assert status(two.joined) == "FINISHED"
    assert progress.load(two.joined.path).complete
    with two.began.lock:  # it goes on for more trials
        (two.began.path / "result.json").unlink()
        assert status(two.began) == "RUNNING"
        two.joined.result("finished")
        assert status(two.joined) == "FINISHED"
    assert mlflow_process.run(two.began.path)["steps"] == {"accuracy": [0, 1, 2, 3]}


def test_the_files_of_a_finished_study_are_not_replaced_by_those_of_a_machine_that_was_stopped(
    two: SimpleNamespace, mlflow_process: Callable
) -> None:
    two.began.result("finished")
    assert mlflow_process("sync", two.began.path)
    two.joined.result("interrupted")
    (two.joined.path / "study.json").write_text("{}")
    assert mlflow_process("follow", two.joined.path)
    assert mlflow_process.run(two.began.path)["files"] == ["recipe.yaml", "result.json"]


def test_a_folder_that_joined_shows_no_files_before_the_end(run_folder: Callable) -> None:
    path = run_folder().path
    (path / "study.json").write_text("{}")
    assert list(folder.files(path, ended=False)) == ["recipe.yaml", "study.json"]
    sharing.adopt_identity(path, "study-1", joined=True)
    assert list(folder.files(path, ended=False)) == []
    assert list(folder.files(path, ended=True)) == ["recipe.yaml", "study.json"]


def test_a_folder_stays_what_it_was_and_never_changes_its_name(run_folder: Callable) -> None:
    path = run_folder().path
    assert not sharing.is_shared(path)
    sharing.adopt_identity(path, "study-1", joined=False)
    sharing.adopt_identity(path, "study-1", joined=True)  # resumed
    assert (sharing.is_shared(path), sharing.has_joined(path)) == (True, False)
    assert progress.identity(path) == "study-1"
    with pytest.raises(BadOption, match="belongs to another study"):
        sharing.adopt_identity(path, "study-2", joined=False)
    with pytest.raises(BadOption, match="cannot name a study"):
        sharing.adopt_identity(path, "it's mine", joined=False)
