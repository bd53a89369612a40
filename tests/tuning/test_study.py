"""A small study from its recipe to its report, in this process with workers of their own."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from study_process import RECIPE

from snnsl_plugin.cli import main
from snnsl_plugin.errors import BadOption, BadRecipe, MissingExtra, RunFolderInUse
from snnsl_plugin.recipe import runner
from snnsl_plugin.recipe.folder import choose
from snnsl_plugin.recipe.load import load
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.training import checkpoint
from snnsl_plugin.tuning import report
from snnsl_plugin.tuning.export import export
from snnsl_plugin.tuning.figures import as_study
from snnsl_plugin.tuning.preview import preview
from snnsl_plugin.tuning.run import tune
from snnsl_plugin.tuning.study import digest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies")


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Recipe:
    path = folder / "study.yaml"
    path.write_text(RECIPE + "  constraints: {accuracy: {at_least: 0.05}}\n")
    return load(path, ["tune.trials=4"])


@pytest.fixture(scope="module")
def found(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """The study of four trials in `folder/first`, in a database beside it."""
    return tune(recipe, name="study", run_dir=folder / "first", storage=f"sqlite:///{folder}/shared.db")


def test_each_trial_is_a_run_that_never_read_the_test_set(found, folder):
    assert [row["number"] for row in found["trials"]] == [0, 1, 2, 3]
    assert found["status"] == "finished"
    assert found["front"]
    for row in found["trials"]:
        run_dir = folder / "first" / "runs" / f"trial-{row['number']:04d}"
        result = json.loads((run_dir / "result.json").read_text())
        told = json.loads((run_dir / "trial.json").read_text())
        assert result["accuracy"]["test"] is None
        assert row["measures"]["accuracy"] == result["accuracy"]["validation"]
        assert row["measures"]["connections"] == result["density"]["connections"]["live"]
        assert row["measures"]["synops"] == result["validation"]["synops_per_sample"]
        assert row["constraints"] == {"accuracy": 0.05 - row["measures"]["accuracy"]}
        assert (told["number"], told["params"], told["values"]) == (row["number"], row["params"], row["measures"])
        assert load(run_dir / "recipe.yaml").pruning.density.last == row["params"]["pruning.density.last"]
    # 0.1, what the recipe says, lies outside of the space, and its distribution inside.
    assert found["trials"][0]["params"]["pruning.distribution"] == "erk"
    lines = [json.loads(line) for line in (folder / "first" / "metrics.jsonl").read_text().splitlines()]
    assert sorted(line["step"] for line in lines if line["event"] == "trial") == [0, 1, 2, 3]


def test_a_finished_study_is_not_overwritten_and_resuming_it_trains_nothing(found, recipe, folder):
    before = (folder / "first" / "runs" / "trial-0003" / "result.json").stat().st_mtime_ns
    with pytest.raises(RunFolderInUse):
        tune(recipe, name="study", run_dir=folder / "first", storage=f"sqlite:///{folder}/shared.db")
    again = tune(recipe, name="study", run_dir=folder / "first", resume=True)  # it knows where its database is
    assert [row["measures"] for row in again["trials"]] == [row["measures"] for row in found["trials"]]
    assert (folder / "first" / "runs" / "trial-0003" / "result.json").stat().st_mtime_ns == before


def test_a_folder_has_one_study_whatever_a_later_call_says(found, recipe, folder, tmp_path):
    renamed = tune(recipe, name="other", run_dir=folder / "first", resume=True)
    assert renamed["study"] == "study"
    assert len(renamed["trials"]) == 4
    before = (folder / "first" / "study.json").read_bytes()
    with pytest.raises(BadOption, match=r"has its study in sqlite:.*shared.db, not in sqlite:.*elsewhere.db"):
        tune(recipe, name="study", run_dir=folder / "first", resume=True, storage=f"sqlite:///{tmp_path}/elsewhere.db")
    with pytest.raises(BadOption, match="belongs to study 'study', not to 'mine'"):
        mine = load(folder / "study.yaml", ["tune.trials=4", "tune.study=mine"])
        tune(mine, name="study", run_dir=folder / "first", resume=True)
    assert (folder / "first" / "study.json").read_bytes() == before
    assert not (tmp_path / "elsewhere.db").exists()


def test_a_folder_whose_database_is_gone_is_left_alone(recipe, folder, tmp_path):
    few = load(folder / "study.yaml", ["tune.trials=1"])
    tune(few, name="study", run_dir=tmp_path / "mine")
    (tmp_path / "mine" / "study.db").unlink()
    before = (tmp_path / "mine" / "study.json").read_bytes()
    with pytest.raises(BadOption, match="has trials that its database .* does not know"):
        tune(few, name="study", run_dir=tmp_path / "mine", resume=True)
    assert (tmp_path / "mine" / "study.json").read_bytes() == before


def test_a_study_whose_hours_are_over_before_its_trials_is_not_finished(folder, tmp_path):
    found = tune(
        load(folder / "study.yaml", ["tune.hours=0.0000001"]), name="study", run_dir=tmp_path / "studies" / "study-001"
    )
    assert found["status"] == "unfinished"
    assert {row["state"] for row in found["trials"]} == {"waiting"}
    few = load(folder / "study.yaml")
    assert choose("study", digest(few), run_dir=None, resume=True, root=tmp_path / "studies").name == "study-001"


def test_a_study_of_failures_says_why_and_fails(folder, tmp_path, capsys):
    words = ["tune.trials=1", "train.optimizer.lr=1.0e+30", "--run-dir", str(tmp_path / "never")]
    assert main(["tune", str(folder / "study.yaml"), *words, "--quiet"]) == 2
    assert "every trial failed; trial 0: the " in capsys.readouterr().err


def test_a_sampler_whose_package_is_absent_is_said_before_anything_is_made(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    with pytest.raises(MissingExtra, match="pip install cmaes"):
        tune(
            load(folder / "study.yaml", ["tune.sampler=cmaes", "tune.objectives=[accuracy]"]), name="study",
            run_dir=tmp_path / "never",
        )  # fmt: skip
    assert not (tmp_path / "never").exists()


def test_another_recipe_is_refused_and_changes_nothing(found, folder):
    database = folder / "shared.db"
    before = database.read_bytes()
    for words in (["train.epochs=5"], ["tune.objectives=[accuracy, energy]"], ["tune.sampler=tpe"]):
        other = load(folder / "study.yaml", words)
        with pytest.raises(BadOption, match="belongs to another recipe or space"):
            tune(other, name="study", run_dir=folder / "other", storage=f"sqlite:///{database}")
    assert not (folder / "other").exists()
    assert database.read_bytes() == before


def test_the_report_is_rebuilt_from_the_run_folders_alone(found, folder, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(folder / "first", copy)
    for name in ("study.json", "report.html"):
        (copy / name).unlink()
    shutil.rmtree(copy / "figures")
    assert main(["report", str(copy)]) == 0
    assert capsys.readouterr().out.strip() == str(copy / "report.html")
    rebuilt = json.loads((copy / "study.json").read_text())
    for key in ("front", "objectives", "space", "constraints"):
        assert rebuilt[key] == found[key]
    assert [row["measures"] for row in rebuilt["trials"]] == [row["measures"] for row in found["trials"]]
    page = (copy / "report.html").read_text()
    drawn = {path.name for path in (copy / "figures").iterdir()}
    assert {"front-connections.svg", "front-synops.svg", "history-accuracy.svg", "parallel-accuracy.svg"} <= drawn
    assert page.count("<svg") == len(drawn)
    assert report.summary(rebuilt) in page
    for outside in ("<script", "src=", 'href="http'):
        assert outside not in page


def test_optuna_sees_the_trials_with_their_numbers_and_knows_which_way_is_good(found):
    stopped = [row | {"state": "stopped"} if row["number"] == 1 else row for row in found["trials"]]
    for name, best in (("accuracy", max), ("connections", min)):
        study = as_study(found | {"trials": stopped}, [name])
        assert [trial.number for trial in study.trials if trial.values] == [0, 2, 3]
        assert study.best_value == best(row["measures"][name] for row in stopped if row["state"] == "complete")


def test_an_exported_recipe_trains_the_network_of_its_trial_exactly(found, recipe, folder, tmp_path):
    paths = export(recipe, found, tmp_path / "front")
    assert [path.stem for path in paths] == [f"trial-{number:04d}" for number in found["front"]]
    assert export(recipe, found, tmp_path / "front") == paths  # writing the same again is fine
    row = found["trials"][found["front"][0]]
    result = runner.run(load(paths[0]), run_dir=tmp_path / "again")
    assert result["accuracy"]["validation"] == row["measures"]["accuracy"]
    assert result["density"]["connections"]["live"] == row["measures"]["connections"]
    assert result["validation"]["synops_per_sample"] == row["measures"]["synops"]
    assert result["accuracy"]["test"] is not None
    folders = (tmp_path / "again", folder / "first" / "runs" / paths[0].stem)
    mine, theirs = (checkpoint.load(each / "checkpoint.safetensors") for each in folders)
    assert all(value.equal(theirs["model"][name]) for name, value in mine["model"].items())
    paths[0].write_text("extends: digits\n")
    with pytest.raises(BadOption, match="is not overwritten"):
        export(recipe, found, tmp_path / "front")


def test_more_trials_are_added_to_those_that_there_are(found, recipe, folder, tmp_path):
    database = tmp_path / "copy.db"
    shutil.copy(folder / "shared.db", database)
    more = load(folder / "study.yaml", ["tune.trials=5"])
    grown = tune(more, name="study", run_dir=tmp_path / "more", storage=f"sqlite:///{database}")
    assert len(grown["trials"]) == 5
    assert grown["joined"]
    assert [row["here"] for row in grown["trials"]] == [False] * 4 + [True]


def test_a_study_by_hours_makes_trials_until_they_are_over(recipe, folder, tmp_path):
    timed = load(folder / "study.yaml", ["tune.trials=null", "tune.hours=0.004", "tune.workers=2"])
    began = time.monotonic()
    found = tune(timed, name="study", run_dir=tmp_path / "timed")
    assert time.monotonic() - began >= 0.004 * 3600
    assert len(found["trials"]) >= 2
    assert [row["number"] for row in found["trials"]] == list(range(len(found["trials"])))
    assert {row["state"] for row in found["trials"]} <= {
        "complete",
        "stopped",
    }  # what has begun is trained to its end
    assert found["trials"][0]["params"]["pruning.distribution"] == "erk"  # as the recipe stands, like every first one


def test_a_dry_run_shows_points_and_what_is_wrong_with_them(recipe, folder, capsys):
    planned = preview(recipe)
    assert planned["trials"] == 4
    assert len(planned["examples"]) == 5
    assert {example["error"] for example in planned["examples"]} == {None}
    assert main(["tune", str(folder / "study.yaml"), "--dry-run"]) == 0
    assert "nothing was trained" in capsys.readouterr().out


def test_a_recipe_without_the_block_and_rungs_that_never_come_are_one_sentence(folder, recipe, tmp_path):
    with pytest.raises(BadRecipe, match="has no such block"):
        tune(load("digits"), name="digits", run_dir=tmp_path / "never")
    with pytest.raises(BadRecipe, match="tune.stop.rungs: none of 100% lies before the last of 4 epochs"):
        load(folder / "study.yaml", ["tune.stop={rungs: ['100%']}"])
    words = ["tune.stop={rungs: ['3ep']}", "tune.space={train.epochs: [4, 2]}"]
    with pytest.raises(BadRecipe, match=r"tune.space.train\.epochs: 2 leaves no trial to be stopped"):
        load(folder / "study.yaml", words)
    assert not (tmp_path / "never").exists()
