"""The block `tune`: points of a space are recipes, and what makes none is said with its place before any trial."""

import pytest

from snnsl_plugin.errors import BadRecipe
from snnsl_plugin.recipe.digest import digest
from snnsl_plugin.recipe.load import dump, load
from snnsl_plugin.recipe.space import changed, value_at

TUNE = """extends: digits
tune:
  space:
    pruning.density.last: {name: float, low: 0.02, high: 0.2, log: true}
"""


def problems(tmp_path, text: str) -> list[str]:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(BadRecipe) as error:
        load(path)
    return [each.removeprefix(f"{path}:") for each in error.value.problems]


@pytest.mark.parametrize(
    ("line", "place", "said"),
    [
        ("pruning.densty.last: [0.1]", "5:5", "unknown key 'densty'; did you mean 'density'?"),
        ("prunning.until: [50%]", "5:5", "unknown key 'prunning'; did you mean 'pruning'?"),
        ("train.epochs: {name: int, low: 4, high: 4}", "5:31", "is an empty interval: low (4) must be below high (4)"),
        ("train.epochs: {name: int, low: 9, high: 4}", "5:31", "is an empty interval"),
        ("train.epochs: {name: float, low: 4, high: 8}", "5:5", "must be a whole number"),
        ("distillation.weight: {name: float, low: 0, high: 1.5}", "5:5", "1.5 makes no recipe: distillation.weight"),
        ("pruning.until: [50%, 120%]", "5:5", "'120%' makes no recipe: pruning.until"),
        ("pruning.criterion.power: [0.5]", "5:5", "unknown key 'power'"),
        ("train.optimizer.lr: {name: float, low: 0, high: 1, log: true}", "5:39", "low must be above 0"),
        ("train.epochs: {name: int, low: 1, hgih: 3}", "5:39", "unknown key 'hgih'; did you mean 'high'?"),
        ("train.epochs: {name: integer, low: 1, high: 3}", "5:20", "did you mean 'int'?"),
        ("train.epochs: {name: int, low: 2, high: 5, step: 2}", "5:39", "high: is met by no step of 2 from 2"),
        ("train.clip: {name: float, low: 0.1, high: 0.25, step: 0.1}", "5:41", "is met by no step of 0.1 from 0.1"),
        ("train.epochs: [3, 3]", "5:5", "names a value twice"),
        ("tracking.mlflow: [true, false]", "5:5", "does not change what is computed"),
        ("seed: {name: choice, values: [0], when: {pruning.until: 50%}}", "3:3", "is no choice of the space"),
    ],
)
def test_what_makes_no_recipe_is_said_with_its_place(tmp_path, line, place, said):
    found = problems(tmp_path, f"{TUNE}    {line}\n")
    assert any(each.startswith(f"{place}: ") and said in each for each in found), found


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("constraints: {latency: {at_most: 3}}", "unknown measure 'latency'"),
        ("constraints: {accuracy: {}}", "needs either at_least or at_most"),
        ("objectives: [accuracy, accuracy]", "names an objective twice"),
        ("objectives: [speed]", "must be 'accuracy'"),
        ("sampler: cmaes", "cmaes knows one objective"),
        ("trials: null", "needs an end"),
        ("stop: {rungs: [10it]}", "whole epochs"),
        ("storage: postgresql://me:secret@host/db", "must not hold a password"),
        ("storage: postgresql://host/db?user=me&password=secret", "must not hold a password"),
        ("stop: {rungs: [100%]}", "none of 100% lies before the last of 12 epochs"),
    ],
)
def test_terms_that_cannot_be_kept_are_refused(tmp_path, block, said):
    found = problems(tmp_path, f"{TUNE}  {block}\n")
    assert len(found) == 1
    assert said in found[0]
    assert "secret@" not in found[0]


def test_a_point_changes_its_keys_and_nothing_else():
    recipe = load("digits")
    point = changed(recipe, {"pruning.density.last": 0.05, "pruning.criterion": "fisher", "train.epochs": 3})
    said, told = (each.model_dump(mode="json", by_alias=True) for each in (recipe, point))
    assert (point.pruning.density.last, point.pruning.criterion.name, point.train.epochs) == (0.05, "fisher", 3)
    said["pruning"]["density"]["last"], said["train"]["epochs"] = 0.05, 3
    said["pruning"]["criterion"] = told["pruning"]["criterion"]
    said |= {"dense_baseline": False, "tracking": told["tracking"]}
    assert said == told


def test_a_block_replaces_a_block_and_a_key_inside_it_lands_in_the_new_one():
    linear = {"name": "linear", "first": 0.9, "last": 0.3}
    point = changed(load("digits"), {"pruning.density.last": 0.07, "pruning.density": linear})
    assert point.pruning.density.model_dump(mode="json")["name"] == "linear"
    assert (point.pruning.density.first, point.pruning.density.last) == (0.9, 0.07)


def test_a_key_below_a_bare_name_keeps_the_name():
    values = {"pruning.criterion": "spike_saliency", "pruning.criterion.power": 0.25}
    assert changed(load("digits"), values).pruning.criterion.power == 0.25
    assert value_at(load("digits"), "pruning.criterion.name") == "magnitude"


def test_a_search_changes_neither_digest_nor_round_trip(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(TUNE)
    recipe = load(path)
    assert digest(recipe) == digest(load("digits"))
    path.write_text(dump(recipe))
    assert load(path) == recipe


def test_qmc_and_conditions_exclude_each_other(tmp_path):
    power = "    pruning.criterion.power: {name: float, low: 0, high: 1, when: {pruning.criterion: spike_saliency}}\n"
    choice = "    pruning.criterion: [magnitude, spike_saliency]\n"
    found = problems(tmp_path, f"{TUNE}{choice}{power}  sampler: qmc\n")
    assert any("qmc knows no conditions" in each for each in found), found
