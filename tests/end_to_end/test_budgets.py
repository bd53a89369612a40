"""Recipes with a budget: met by the epoch that is selected, told in the result, and resumable."""

from __future__ import annotations

import json
import logging

import pytest

from snnsl_plugin.errors import BadOption, BadRecipe, Stopped
from snnsl_plugin.metrics.measure import measure
from snnsl_plugin.metrics.paths import live_paths
from snnsl_plugin.recipe import assemble, runner
from snnsl_plugin.recipe.digest import digest
from snnsl_plugin.recipe.load import load
from snnsl_plugin.training import checkpoint
from snnsl_plugin.training.events import Epoch
from snnsl_plugin.training.loop import batches

BUDGETS = {
    "connections": "pruning.budget={name: connections, live: 400}",
    "synops": "pruning.budget={name: synops, per_sample: 1500}",
    "energy": "pruning.budget={name: energy, pj_per_sample: 16000}",
}
LONGER = ("train.epochs=6", "pruning.until=50%")


@pytest.mark.parametrize("name", BUDGETS)
def test_the_selected_network_keeps_to_its_budget(name, tiny, tmp_path, caplog):
    recipe = tiny(*LONGER, BUDGETS[name])
    with caplog.at_level(logging.WARNING):
        result = runner.run(recipe, run_dir=tmp_path / "run")
    told = result["budget"]
    assert (told["name"], told["asked"], told["met"]) == (name, recipe.pruning.budget.amount, True)
    assert told["measured"] == pytest.approx(told["asked"], rel=0.02)
    assert "budget" not in caplog.text
    # Measured anew, from the file alone.
    parts = assemble.data(recipe)
    tree = checkpoint.load(tmp_path / "run" / "checkpoint.safetensors")
    model = assemble.load_network(tmp_path / "run", parts)
    measured = measure(model, batches(parts.validation, "cpu"), masks=tree["masks"])
    example = next(batches(parts.validation, "cpu"))[0][:, :1]
    found = {
        "connections": live_paths(model, example, masks=tree["masks"]).connections,
        "synops": measured.synops_per_sample,
        "energy": measured.energy_pj_per_sample["total"],
    }
    assert found[name] == told["measured"]
    kept = sum(int(mask.sum()) for mask in tree["masks"].values())
    assert result["density"]["weights"]["kept"] == kept
    assert result["density"]["weights"]["requested"] is None
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all("budget/spent" in line["metrics"] for line in lines if line["event"] == "mask_update")


def test_a_run_that_was_interrupted_keeps_to_it_all_the_same(tiny, tmp_path, comparable):
    recipe = tiny(*LONGER, BUDGETS["synops"])
    whole = runner.run(recipe, run_dir=tmp_path / "whole")

    def stop(phase, event):
        if isinstance(event, Epoch) and event.epoch == 4:
            raise Stopped("enough")

    with pytest.raises(Stopped):
        runner.run(recipe, run_dir=tmp_path / "halved", on_event=stop)
    halved = runner.run(recipe, run_dir=tmp_path / "halved", resume=True)
    assert comparable(halved) == comparable(whole)


def test_a_budget_that_no_pruning_reaches_is_told_in_a_sentence(tiny, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        result = runner.run(tiny("pruning.budget={name: synops, per_sample: 1.0e+9}"), run_dir=tmp_path / "run")
    assert result["budget"]["met"] is False
    assert "the budget of 1e+09 SynOps per sample is not met" in caplog.text


def test_one_below_what_neurons_take_is_refused_before_anything_is_trained(tiny, tmp_path):
    with pytest.raises(BadOption, match="the updates of the neurons alone take"):
        runner.run(tiny("pruning.budget={name: energy, pj_per_sample: 100}"), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["pruning.budget={name: watts, per_sample: 1}"], "unknown budget 'watts'"),
        (["pruning.budget={name: synops, per_sample: 0}"], "pruning.budget.per_sample"),
        (["pruning.budget={name: synops}"], "pruning.budget.per_sample"),
        (["pruning.budget={name: connections, live: 5}", "pruning.paths=false"], "needs paths: true"),
        (["~pruning", "pruning.type=snnsl.grad_r", "pruning.budget={name: synops, per_sample: 9}"], "is an outcome"),
    ],
)
def test_a_recipe_with_a_budget_that_makes_no_sense_is_refused(changes, words):
    with pytest.raises(BadRecipe) as caught:
        load("digits", changes)
    assert words in str(caught.value)


def test_no_budget_changes_no_digest_and_a_budget_does():
    plain = digest(load("digits"))
    assert digest(load("digits", ["pruning.budget=null"])) == plain
    others = {digest(load("digits", [words])) for words in BUDGETS.values()}
    assert len(others | {plain}) == 4
