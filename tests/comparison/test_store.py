"""Finished runs are found by their digest and taken over whole; everything else is trained anew."""

import json
import os
import shutil
from pathlib import Path

import pytest

from snnsl_plugin.comparison.store import finished, may_be_taken_over, same_versions, take_over, was_taken_over
from snnsl_plugin.recipe.load import load
from snnsl_plugin.recipe.outcome import versions

FILES = ("recipe.yaml", "metrics.jsonl", "checkpoint.safetensors", "state.json", "report.html")


@pytest.fixture
def made(tmp_path):
    """Makes the folder of a run, below the folder of all runs."""

    def make(place: str, digest: str = "a" * 16, *, root: Path = tmp_path / "runs", **changes) -> Path:
        run = root / place
        (run / "figures").mkdir(parents=True)
        (run / "figures" / "loss.svg").write_text("<svg/>")
        (run / "tracking").mkdir()
        (run / "tracking" / "sent.json").write_text("{}")
        (run / ".lock").touch()
        for name in FILES:
            (run / name).write_text(f"{name} of {place}\n")
        (run / "run.json").write_text(json.dumps({"name": place, "digest": digest, "seed": 0}))
        result = {"schema": 1, "digest": digest, "status": "finished", "versions": versions(), "dense": None}
        result["accuracy"] = {"test": 0.9}
        (run / "result.json").write_text(json.dumps(result | changes))
        return run

    return make


def test_finished_runs_are_found_alone_and_inside_comparisons(made, tmp_path):
    alone = made("digits-001", "a" * 16)
    inside = made("compare_digits-001/runs/digits-nni.level-density-0.1-s0", "b" * 16)
    assert finished(tmp_path / "runs") == {"a" * 16: alone.resolve(), "b" * 16: inside.resolve()}


def test_several_folders_are_looked_through_and_one_that_is_not_there_is_empty(made, tmp_path):
    one = made("one", "a" * 16)
    two = made("two", "b" * 16, root=tmp_path / "elsewhere")
    found = finished(tmp_path / "runs", tmp_path / "elsewhere", tmp_path / "nowhere")
    assert found == {"a" * 16: one, "b" * 16: two}


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_run_that_did_not_finish_is_not_taken(status, made, tmp_path):
    made("digits-001", status=status)
    assert finished(tmp_path / "runs") == {}


def test_a_run_that_never_read_the_test_set_is_not_taken(made, tmp_path):
    made("digits-001", accuracy={"test": None, "validation": 0.9})
    assert finished(tmp_path / "runs") == {}


def test_a_run_that_never_ended_is_not_taken(made, tmp_path):
    (made("digits-001") / "result.json").unlink()
    assert finished(tmp_path / "runs") == {}


@pytest.mark.parametrize("package", ["torch", "snnsl-plugin", "nni", "python"])
def test_a_run_of_another_version_is_not_taken(package, made, tmp_path):
    made("digits-001", versions=versions() | {package: "0.0.1"})
    assert finished(tmp_path / "runs") == {}


def test_versions_are_the_same_only_where_all_are():
    now = versions()
    assert same_versions({"versions": dict(now)}, now)
    assert not same_versions({"versions": {key: now[key] for key in list(now)[1:]}}, now)
    assert not same_versions({}, now)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"digest": "aaaaaaaaaaaaaaaa"}', "\x00" * 40])
def test_a_damaged_result_is_not_taken_and_hides_no_other(content, made, tmp_path):
    (made("damaged", "a" * 16) / "result.json").write_text(content)
    whole = made("whole", "b" * 16)
    assert finished(tmp_path / "runs") == {"b" * 16: whole}


@pytest.mark.parametrize("missing", ["recipe.yaml", "metrics.jsonl", "checkpoint.safetensors"])
def test_a_run_whose_files_somebody_took_away_is_not_taken(missing, made, tmp_path):
    (made("digits-001") / missing).unlink()
    assert finished(tmp_path / "runs") == {}


def test_a_run_with_a_dense_baseline_trained_more_than_a_comparison_asks_for(made, tmp_path):
    made("digits-001", dense={"accuracy": {"test": 0.9}})
    assert finished(tmp_path / "runs") == {}


def test_half_a_copy_is_no_run(made, tmp_path):
    whole = made("first/runs/digits-dense-s0")
    made("second/runs/.digits-dense-s0.partial", root=tmp_path / "elsewhere")
    assert finished(tmp_path / "runs", tmp_path / "elsewhere") == {"a" * 16: whole}


@pytest.mark.parametrize(
    ("changes", "elsewhere"),
    [
        ([], True),
        (["model={name: imported, target: mine:build}"], False),
        (["~data", "data={name: image_folder, root: pictures, size: 8}"], False),
    ],
)
def test_what_a_digest_does_not_know_is_used_again_by_its_own_comparison_only(changes, elsewhere, tmp_path):
    recipe, own = load("digits", changes), tmp_path / "compare-001" / "runs"
    assert may_be_taken_over(recipe, own / "digits-dense-s0", own)
    assert may_be_taken_over(recipe, tmp_path / "compare-002" / "runs" / "digits-dense-s0", own) is elsewhere


# --------------------------------------------------------------------------------------------------------- take over


def files(run: Path) -> dict[str, str]:
    return {str(path.relative_to(run)): path.read_text() for path in run.rglob("*") if path.is_file()}


def test_a_run_is_taken_over_whole_but_for_what_belongs_to_its_folder(made, tmp_path):
    run = made("digits-001")
    before, into = files(run), tmp_path / "runs" / "compare-001" / "runs" / "digits-dense-s0"
    take_over(run, into)
    assert was_taken_over(into)
    copied = {name: text for name, text in files(into).items() if name != "taken_over.json"}
    assert copied == {name: text for name, text in before.items() if name not in ("tracking/sent.json", ".lock")}
    assert not was_taken_over(run)
    assert files(run) == before
    assert [path.name for path in into.parent.iterdir()] == [into.name]
    assert finished(tmp_path / "runs")["a" * 16] in (run, into)


def test_what_never_finished_makes_way(made, tmp_path):
    run, into = made("digits-001"), tmp_path / "into"
    into.mkdir()
    (into / "left.txt").write_text("of an interrupted run")
    take_over(run, into)
    assert "left.txt" not in files(into)
    assert files(into)["result.json"] == files(run)["result.json"]


def test_half_a_copy_of_an_earlier_try_is_thrown_away(made, tmp_path):
    run, into = made("digits-001"), tmp_path / "into"
    (tmp_path / ".into.partial").mkdir()
    (tmp_path / ".into.partial" / "left.txt").write_text("half")
    take_over(run, into)
    assert "left.txt" not in files(into)
    assert not (tmp_path / ".into.partial").exists()


def test_a_copy_that_fails_in_the_middle_leaves_what_was_there(made, tmp_path, monkeypatch):
    run, into = made("digits-001"), tmp_path / "into"
    into.mkdir()
    (into / "left.txt").write_text("of an interrupted run")
    copied, copy = [], shutil.copy2

    def full(source, target, **options):
        copied.append(source)
        if len(copied) == 3:
            raise OSError(28, "No space left on device", os.fspath(target))
        return copy(source, target, **options)

    # copytree takes the function to copy with as a default argument
    monkeypatch.setattr(shutil.copytree, "__defaults__", (False, None, full, False, False))
    with pytest.raises(OSError, match="No space left"):
        take_over(run, into)
    assert len(copied) > 2
    assert files(into) == {"left.txt": "of an interrupted run"}


def test_a_run_that_is_gone_leaves_what_was_there(tmp_path):
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(FileNotFoundError):
        take_over(tmp_path / "gone", into)
    assert into.is_dir()
