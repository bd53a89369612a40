"""The recipes of an evolution: exact budgets, one seed, what is refused, and what names a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from snnsl_plugin.cli import main
from snnsl_plugin.errors import BadCheckpoint, BadOption, BadRecipe
from snnsl_plugin.models.spiking_cnn import spiking_cnn
from snnsl_plugin.recipe import assemble
from snnsl_plugin.recipe.digest import digest
from snnsl_plugin.recipe.evolution_types import Parent
from snnsl_plugin.recipe.generations import Ancestor, candidate_recipe, first_recipe, planned
from snnsl_plugin.recipe.heredity import inherited
from snnsl_plugin.recipe.load import dump, load
from snnsl_plugin.recipe.runner import preview
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.recipe.space import changed
from snnsl_plugin.training import checkpoint

SIZES = {"conv1": 288, "conv2": 18_432, "fc1": 32_768, "fc2": 1_280}
KEPT = {"conv1": 288, "conv2": 816, "fc1": 3_070, "fc2": 1_103}
TOTAL = sum(SIZES.values())


def recipe(*words: str) -> Recipe:
    return load("digits_evolution", list(words))


def parent(**changes) -> Ancestor:
    return Ancestor(**({"run": Path("somewhere"), "kept": KEPT, "sizes": SIZES, "blocks": []} | changes))


def start_of(made: Recipe, masks: dict[str, torch.Tensor], run: Path) -> dict[str, torch.Tensor]:
    """The masks that a candidate's training starts from, where its parent has these."""
    drawn = torch.Generator().manual_seed(1)
    weights = {name: mask * torch.rand(mask.shape, generator=drawn) for name, mask in masks.items()}
    checkpoint.save(run / "checkpoint.safetensors", {"masks": masks, "model": weights})
    (run / "result.json").write_text('{"status": "finished"}')
    alone = made.model_copy(update={"distillation": None})
    return assemble.assemble(alone, assemble.data(alone)).pruner.masks


@pytest.fixture
def masks() -> dict[str, torch.Tensor]:
    model, generator = spiking_cnn((1, 8, 8), 10, channels=(32, 64), hidden=128), torch.Generator().manual_seed(0)
    found = {}
    for name, kept in KEPT.items():
        weight = model.get_submodule(name).weight
        order = torch.randperm(weight.numel(), generator=generator)
        found[f"{name}.weight"] = (order < kept).view(weight.shape)
    return found


# --- by hand ----------------------------------------


def test_the_first_generation_is_the_recipe_itself():
    first = first_recipe(recipe())
    assert digest(first) == digest(load("digits", ["dense_baseline=false"]))
    assert not first.tracking.mlflow


def test_a_candidate_without_mutation_by_hand():
    made = candidate_recipe(recipe(), 2, 0, parent())
    assert made.pruning.distribution.densities == {name: KEPT[name] / SIZES[name] for name in SIZES}
    assert made.pruning.density.first == 0.5
    assert round(made.pruning.density.last * TOTAL) == made.pruning.density.last * TOTAL == round(0.049 * TOTAL)
    assert made.distillation.guide.registered_name == "sparse"
    assert made.distillation.guide.run == made.parent.run == "somewhere"
    assert (made.distillation.temperature, made.distillation.weight) == (4, 0.3)
    assert made.parent.exchange == 0.0
    assert made.seed == 0
    assert made.evolution is None


@pytest.mark.parametrize(
    ("restart", "first"), [("dense", 1.0), ("grown", 0.5), ("same_mask", sum(KEPT.values()) / TOTAL)]
)
def test_what_a_generation_starts_from(restart, first):
    made = candidate_recipe(recipe(f"evolution.restart={restart}"), 1, 0, parent())
    assert made.pruning.density.first == first
    assert (made.parent is None) == (restart == "dense")


def test_a_constant_density_starts_from_the_mask_too():
    words = ["evolution.restart=same_mask", "pruning.density={name: constant, value: 0.1}"]
    made = candidate_recipe(recipe(*words), 1, 0, parent())
    assert made.pruning.density.value * TOTAL == round(0.07 * TOTAL)


# --- properties -------------------------------------


@pytest.mark.parametrize("candidate", range(6))
def test_every_candidate_keeps_the_total_and_repeats_with_the_seed(candidate):
    made = candidate_recipe(recipe("evolution.population=6"), 1, candidate, parent())
    counts = {name: density * SIZES[name] for name, density in made.pruning.distribution.densities.items()}
    assert sum(counts.values()) == pytest.approx(sum(KEPT.values()), abs=1e-6)
    assert (counts == pytest.approx(KEPT)) == (candidate == 0)
    assert made == candidate_recipe(recipe("evolution.population=6"), 1, candidate, parent())
    assert Recipe.model_validate(made.model_dump(mode="json", by_alias=True)) == made


def test_candidates_generations_and_seeds_draw_apart():
    drawn = [
        candidate_recipe(recipe(f"seed={seed}"), generation, number, parent()).parent.seed
        for seed in (0, 1)
        for generation in (1, 2)
        for number in (0, 1)
    ]
    assert len(set(drawn)) == len(drawn)


def test_excluded_layers_are_left_alone():
    made = candidate_recipe(recipe('pruning.exclude=["conv1"]'), 1, 1, parent())
    assert "conv1" not in made.pruning.distribution.densities
    assert set(made.pruning.distribution.densities) == {"conv2", "fc1", "fc2"}


def test_the_layers_of_a_lost_block_may_vanish_and_what_is_lost_stays_so():
    words = ["evolution.mutation.blocks=1.0", 'pruning.vanish=["fc1"]']
    made = candidate_recipe(recipe(*words), 1, 1, parent(blocks=[["conv2"]]))
    assert made.pruning.distribution.densities["conv2"] == 0.0
    assert made.pruning.vanish == ["fc1", "conv2"]
    heir = candidate_recipe(recipe(*words), 2, 0, parent(kept=KEPT | {"conv2": 0}))
    assert heir.pruning.distribution.densities["conv2"] == 0.0
    assert heir.pruning.vanish == ["fc1", "conv2"]


def test_the_same_mask_is_the_same_mask(masks, tmp_path):
    made = candidate_recipe(recipe("evolution.restart=same_mask"), 1, 0, parent(run=tmp_path))
    start = start_of(made, masks, tmp_path)
    assert all(mask.equal(masks[name]) for name, mask in start.items())


def test_a_grown_mask_holds_its_parents_and_a_mutated_one_nine_tenths_of_it(masks, tmp_path):
    half = round(0.5 * TOTAL)
    for number in (0, 1):
        made = candidate_recipe(recipe(), 1, number, parent(run=tmp_path))
        start = start_of(made, masks, tmp_path)
        assert sum(int(mask.sum()) for mask in start.values()) == half
        for name, mask in masks.items():
            left = int((start[name] & mask).sum()) / int(mask.sum())
            # a layer that is to be full takes what was exchanged back
            assert left == 1.0 if number == 0 or bool(start[name].all()) else 0.88 < left < 1.0


# --- what is refused --------------------------------

REFUSED = {
    "no generation": (["evolution.generations=1"], "evolution.generations: must be at least 2, not 1"),
    "a rule without a budget": (
        ["pruning={type: snnsl.stds, threshold: {name: sine, last: 0.1}}"],
        "evolution: needs a pruning with a density and a distribution, such as snnsl.drop_grow or snnsl.dpf, not "
        "snnsl.stds",
    ),
    "the dense network": (["pruning={type: dense}"], "evolution: needs a pruning with a density and a distribution"),
    "whole channels": (
        ["pruning={type: snnsl.sca, density: {name: cubic, first: 1.0, last: 0.1}}"],
        "evolution: needs a pruning with a density",
    ),
    "a cost": (
        ["pruning.budget={name: connections, live: 5000}"],
        "pruning.budget: the generations of an evolution have densities",
    ),
    "rounds": (
        ["pruning={type: snnsl.lth, density: {name: geometric, first: 1.0, last: 0.1}, start: 0it}"],
        "evolution: has generations, and snnsl.lth rounds of its own",
    ),
    "another host": (["pruning={type: torch.l1, density: 0.1}"], "evolution: needs a pruning with a density"),
    "a baseline": (["dense_baseline=true"], "dense_baseline: an evolution trains no dense baseline"),
    "a late start": (
        ["pruning.start=5it"],
        "evolution: masks are inherited as training starts, so pruning.start must be 0it",
    ),
    "a mask grown to less": (
        ["evolution.grow_to=0.1"],
        "evolution: grow_to 0.1 must be above the last density of the pruning, 0.1",
    ),
    "a density that does not fall": (
        ["pruning.density={name: constant, value: 0.1}"],
        "evolution: restart 'grown' needs a density that falls from first to last",
    ),
    "a typo": (["evolution.restart=grow"], "evolution.restart: must be 'dense', 'grown' or 'same_mask'"),
    "a parent of its own": (
        ["parent.run=x", "pruning.density.first=0.5"],
        "parent: an evolution gives each network its parent",
    ),
}


@pytest.mark.parametrize(("words", "sentence"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_evolve_is_refused_with_its_key(words, sentence):
    with pytest.raises(BadRecipe) as refused:
        recipe(*words)
    assert sentence in str(refused.value)


def test_generations_that_would_get_too_sparse_are_refused_before_anything_is_trained():
    with pytest.raises(BadOption, match=r"generation 2, at density 1e-07, cannot be trained \(.*evolution\.factor"):
        preview(recipe("evolution.factor=0.001"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "parent: has no effect where training starts dense"),
        (["pruning={type: dense}"], "parent: needs a pruning with a density"),
        (["pruning.density.first=0.5", "pruning.start=1ep"], "pruning.start must be 0it, not 1ep"),
    ],
)
def test_a_parent_needs_a_sparse_start(words, sentence):
    with pytest.raises(BadRecipe, match=sentence):
        load("digits", ["parent.run=x", *words])


def test_a_parent_that_is_no_run_or_another_network_is_refused(masks, tmp_path):
    model = spiking_cnn((1, 8, 8), 10, channels=(32, 64), hidden=128)
    with pytest.raises(BadCheckpoint, match="holds no finished run"):
        inherited(Parent(run=str(tmp_path)), model)
    (tmp_path / "result.json").write_text('{"status": "finished"}')
    checkpoint.save(tmp_path / "checkpoint.safetensors", {"masks": {}, "model": {}})
    with pytest.raises(BadCheckpoint, match="has no masks"):
        inherited(Parent(run=str(tmp_path)), model)
    checkpoint.save(
        tmp_path / "checkpoint.safetensors", {"masks": masks, "model": {n: m.float() for n, m in masks.items()}}
    )
    with pytest.raises(BadCheckpoint, match="it has no layer 'fc1' of this shape"):
        inherited(Parent(run=str(tmp_path)), spiking_cnn((1, 8, 8), 10, channels=(32, 64), hidden=64))


# --- names of runs ----------------------------------


def test_a_parent_counts_by_its_own_digest_not_by_its_folder(tmp_path):
    words = ["pruning.density.first=0.5"]
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        held = {"name": "x", "digest": "d" * 16 if name != "c" else "e" * 16, "seed": 0}
        (tmp_path / name / "run.json").write_text(json.dumps(held))
    a, b, c = (digest(load("digits", [*words, f"parent.run={tmp_path / name}"])) for name in ("a", "b", "c"))
    assert a == b != c
    assert a != digest(load("digits", words))


def test_the_evolution_counts_and_a_study_takes_no_notice_of_it():
    assert digest(recipe()) != digest(recipe("evolution.factor=0.5")) != digest(load("digits"))
    assert changed(recipe(), {"train.epochs": 3}).evolution is None


def test_a_recipe_with_both_blocks_is_written_and_read_again(tmp_path):
    for made in (recipe(), candidate_recipe(recipe(), 1, 1, parent())):
        (tmp_path / "again.yaml").write_text(dump(made))
        assert load(tmp_path / "again.yaml") == made


# --- dry run ----------------------------------------


def test_the_plan_says_what_each_generation_would_be():
    rows = planned(recipe(), TOTAL)
    assert [row["candidates"] for row in rows] == [1, 2, 2]
    assert [row["kept"] for row in rows] == [5_277, 3_694, 2_586]
    assert [row["first"] for row in rows] == [1.0, 0.5, 0.5]


def test_a_dry_run_prints_the_generations_and_trains_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "digits_evolution", "--dry-run"]) == 0
    assert (
        "generation 2: 2 candidates, 12 epochs each, starts from its parent's mask, grown, at 0.5, ends at 0.049 "
        "(2,586 weights); guide: the best of the generation before" in capsys.readouterr().out
    )
    assert not list(tmp_path.iterdir())
