"""Files, parents, overrides, and writing a recipe out again."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from snnsl_plugin.errors import BadRecipe
from snnsl_plugin.recipe import catalog
from snnsl_plugin.recipe.load import dump, load, resolve

SMALL = """\
data: digits
model: spiking_cnn
train: {epochs: 2, batch_size: 4, optimizer: {name: sgd, lr: 0.1, momentum: 0.5}}
pruning:
  type: snnsl.drop_grow
  criterion: {name: spike_saliency, power: 1.0}
  density: {name: cubic, first: 1.0, last: 0.1}
  until: 50%
"""


@pytest.fixture
def write(tmp_path):
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_what_is_not_written_is_the_default(write):
    recipe = load(write("a.yaml", SMALL))
    assert (recipe.schema_version, recipe.seed, recipe.threads) == (1, 0, 2)
    assert recipe.train.lr_schedule == "cosine"
    assert recipe.train.device == "cpu"
    assert (recipe.pruning.start, recipe.pruning.layers, recipe.pruning.every) == ("0it", ["*"], None)
    assert recipe.distillation is None
    assert recipe.data.encoder is None


def test_numbers_are_those_of_yaml_1_2(write):
    recipe = load(write("a.yaml", SMALL), ["train.optimizer.lr=1e-3", "train.clip=2", "tracking.experiment='on'"])
    assert (recipe.train.optimizer.lr, recipe.train.clip, recipe.tracking.experiment) == (0.001, 2.0, "on")


def test_a_date_is_the_text_it_was_written_as(write):
    assert load(write("a.yaml", SMALL), ["tracking.experiment=2026-01-02"]).tracking.experiment == "2026-01-02"


def test_a_child_changes_what_it_names_and_keeps_the_rest(write):
    write("a.yaml", SMALL)
    child = load(write("b.yaml", "extends: a.yaml\npruning: {density: {last: 0.05}}\ndistillation: {guide: virtual}\n"))
    assert (child.pruning.density.first, child.pruning.density.last) == (1.0, 0.05)
    assert child.pruning.until == "50%"
    assert child.distillation.temperature == 4.0


def test_another_choice_leaves_no_option_of_the_old_one_behind(write):
    write("a.yaml", SMALL)
    child = load(
        write("b.yaml", "extends: a.yaml\ntrain: {optimizer: {name: adam, lr: 0.01}}\npruning: {type: dense}\n")
    )
    assert child.train.optimizer.model_dump(exclude_defaults=True) == {"name": "adam", "lr": 0.01}
    assert child.pruning.model_dump() == {"type": "dense"}


def test_the_same_choice_keeps_its_options(write):
    write("a.yaml", SMALL)
    child = load(write("b.yaml", "extends: a.yaml\ntrain: {optimizer: {name: sgd, lr: 0.2}}\n"))
    assert (child.train.optimizer.lr, child.train.optimizer.momentum) == (0.2, 0.5)


def test_a_bare_name_drops_the_options_and_options_add_to_a_bare_name(write):
    write("a.yaml", SMALL)
    bare = load(write("b.yaml", "extends: a.yaml\npruning: {criterion: spike_saliency}\n"))
    assert bare.pruning.criterion.power == 0.5
    more = load(write("c.yaml", "extends: b.yaml\npruning: {criterion: {power: 2.0}}\nmodel: {hidden: 8}\n"))
    assert (more.pruning.criterion.power, more.model.name, more.model.hidden) == (2.0, "spiking_cnn", 8)


def test_a_parent_may_be_a_shipped_recipe_and_have_parents(write):
    write("middle.yaml", "extends: digits\nseed: 5\n")
    last = load(write("sub/last.yaml", "extends: ../middle.yaml\nthreads: 1\n"))
    assert (last.seed, last.threads, last.model.name) == (5, 1, "spiking_cnn")


def test_an_override_wins_and_the_order_does_not_matter(write):
    path = write("a.yaml", SMALL)
    words = ["train.optimizer.name=adam", "train.optimizer.lr=0.5"]
    assert load(path, words) == load(path, words[::-1])
    assert load(path, words).train.optimizer.lr == 0.5
    assert load(path, ["pruning=dense"]).pruning.type == "dense"
    assert load(path, ['pruning.exclude=["classifier.*"]']).pruning.exclude == ["classifier.*"]
    assert load(path, ["train.clip="]).train.clip is None


def test_an_override_can_take_a_block_away():
    assert load("digits", ["distillation=null"]).distillation is None


def test_a_shipped_recipe_is_found_by_name_and_a_file_wins(write, monkeypatch, tmp_path):
    assert load("digits") == load(catalog.path("digits"))
    write("digits", SMALL)
    monkeypatch.chdir(tmp_path)
    assert load("digits").train.epochs == 2


@pytest.mark.parametrize("name", catalog.names())
def test_every_shipped_recipe_is_valid_explained_and_equal_after_writing(name, write):
    recipe = load(name)
    assert load(write("again.yaml", dump(recipe))) == recipe
    assert catalog.summary(name).endswith((".", "%", "digits-001"))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lr=st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False),
    experiment=st.none() | st.text(),
    seed=st.integers(min_value=0, max_value=2**63 - 1),
)
@example(lr=1.0, experiment="\x85", seed=0)
def test_any_value_survives_writing_and_reading(write, lr, experiment, seed):
    from snnsl_plugin.recipe.schema import Recipe

    plain = resolve("digits").data
    plain["train"]["optimizer"]["lr"] = lr
    recipe = Recipe.model_validate(plain | {"tracking": {"experiment": experiment}, "seed": seed})
    assert load(write("any.yaml", dump(recipe))) == recipe


def test_problems_of_parent_child_and_command_line_come_together_each_with_its_place(write):
    parent = write("a.yaml", SMALL.replace("until: 50%", "until: 50"))
    child = write("b.yaml", "extends: a.yaml\nsead: 1\nthreads: 0\n")
    with pytest.raises(BadRecipe) as caught:
        load(child, ["train.epochs=no"])
    assert caught.value.problems == [
        f"{parent}:8:3: pruning.until: must be text, not 50",
        f"{child}:2:1: sead: unknown key 'sead'; did you mean 'seed'?",
        f"{child}:3:1: threads: must be at least 1, not 0",
        'command line: train.epochs=no: train.epochs: must be a whole number, not "no"',
    ]
    assert caught.value.exit_status == 1


def test_python_reads_the_same_blocks_as_yaml():
    from snnsl_plugin import Recipe

    assert Recipe.model_validate(load("digits").model_dump()) == load("digits")
    assert "schema" in load("digits").model_dump()
