"""Equal terms: what two runs of a comparison may differ in, and how much each pruner is told to keep."""

from itertools import pairwise

import pytest

from snnsl_plugin.comparison.entrants import Entrant, available
from snnsl_plugin.comparison.terms import (
    Budget,
    budgets,
    kind_of,
    run_recipe,
    strength_key,
    written_strength,
)
from snnsl_plugin.errors import BadRecipe
from snnsl_plugin.recipe.compare_types import Compare
from snnsl_plugin.recipe.digest import digest
from snnsl_plugin.recipe.load import load

STRENGTH = 0.2
EVERYONE = list(available())
#: whose masks change on the way: the comparison says when
GRADUAL = {
    "snnsl.bpsr", "snnsl.default", "snnsl.dpap", "snnsl.dpf", "snnsl.gmp", "snnsl.grad_r", "snnsl.granet", "snnsl.lth",
    "snnsl.ndsnn", "snnsl.rigl", "snnsl.sca", "snnsl.sd_snn", "snnsl.set", "snnsl.stds", "snnsl.synop_value",
    "snnsl.taught", "snnsl.upr",
    "nni.agp_level", "nni.agp_taylor", "nni.linear_l1_norm", "nni.spiking_dynamic", "torch_pruning.spiking_dynamic",
}  # fmt: skip


@pytest.fixture(scope="module")
def task():
    return load("digits", ["train.epochs=5", "train.clip=1.0", "model.hidden=32"])


@pytest.fixture(scope="module")
def compare() -> Compare:
    return Compare(densities=[0.1], every="7it", until="60%")


@pytest.fixture(scope="module")
def recipe(task, compare):
    """The run recipe of an entrant of a name."""

    def made(name, **changes):
        entrant = available()[name]
        strength = STRENGTH if strength_key(entrant) else None
        return run_recipe(task, compare, entrant, **{"seed": 3, "strength": strength} | changes)

    return made


def plain(recipe) -> dict:
    return recipe.model_dump(mode="json", by_alias=True)


@pytest.mark.parametrize("name", EVERYONE)
def test_runs_of_two_pruners_differ_in_nothing_but_pruning_and_guide(name, recipe, task):
    mine, dense, given = plain(recipe(name)), plain(recipe("dense")), plain(task)
    differing = {key for key in dense if mine[key] != dense[key]}
    assert differing <= {"pruning", "distillation"}
    for key in ("data", "model", "train"):
        assert mine[key] == given[key]
    assert (mine["seed"], mine["threads"], mine["dense_baseline"], mine["compare"]) == (3, 1, False, None)
    assert mine["tracking"]["mlflow"] is False


def test_what_the_task_says_of_pruning_and_guide_counts_for_nobody(recipe):
    assert recipe("dense").pruning.type == "dense"
    assert recipe("snnsl.gmp").distillation is None
    assert recipe("snnsl.taught").distillation.guide.registered_name == "virtual"


def test_seeds_differ_in_nothing_but_the_seed(recipe):
    one, other = plain(recipe("snnsl.gmp")), plain(recipe("snnsl.gmp", seed=4))
    assert {key for key in one if one[key] != other[key]} == {"seed"}


def test_a_budget_of_epochs_changes_nothing_else(recipe):
    one, other = plain(recipe("nni.level")), plain(recipe("nni.level", epochs=9))
    assert {key for key in one if one[key] != other[key]} == {"train"}
    assert {key for key in one["train"] if one["train"][key] != other["train"][key]} == {"epochs"}


def test_every_and_until_are_the_comparisons_where_masks_change_on_the_way_and_nowhere_else(recipe):
    found = set()
    for name in EVERYONE:
        pruning = recipe(name).pruning
        if str(getattr(pruning, "until", "")) == "60%":
            found.add(name)
            own = {"snnsl.dpap", "snnsl.grad_r", "snnsl.lth", "snnsl.sd_snn", "snnsl.stds", "snnsl.upr"}
            assert str(pruning.every) == "7it" or name in own
        else:
            assert str(getattr(pruning, "every", "")) != "7it"
    assert found == GRADUAL


def test_stds_moves_its_threshold_at_every_step_whatever_the_comparison_says(recipe):
    assert recipe("snnsl.stds").pruning.every is None


def test_stds_inside_nni_keeps_its_interval_too(task, compare):
    hosted = Entrant(
        "hosted",
        {"type": "nni.spiking_dynamic", "rule": "stds", "threshold": {"name": "sine", "first": 0.0, "last": 0.1}},
    )
    made = run_recipe(task, compare, hosted, seed=0, strength=0.05)
    assert made.pruning.every is None
    assert str(made.pruning.until) == "60%"
    assert made.pruning.threshold.last == 0.05


def test_each_pruner_keeps_its_own_times_where_the_comparison_says_none(task):
    silent = Compare(densities=[0.1])
    made = run_recipe(task, silent, available()["nni.agp_level"], seed=0, strength=0.1)
    assert (str(made.pruning.every), str(made.pruning.until)) == ("100it", "80%")


@pytest.mark.parametrize(
    ("name", "key", "read"),
    [
        ("snnsl.gmp", "density", lambda block: (block.density.first, block.density.last)),
        ("snnsl.set", "density", lambda block: (block.density.value,) * 2),
        ("snnsl.granet", "density", lambda block: (block.density.first * 2, block.density.last)),
        ("snnsl.stds", "threshold", lambda block: (block.threshold.first + 1, block.threshold.last)),
        ("nni.level", "density", lambda block: (1.0, block.density)),
        ("nni.spiking_dynamic", "density", lambda block: (1.0, block.density)),
        ("torch.l1", "density", lambda block: (1.0, block.density)),
        ("torch.ln_structured", "density", lambda block: (1.0, block.density)),
        ("torch_pruning.magnitude", "channels", lambda block: (1.0, block.channels)),
        ("torch_pruning.spiking_dynamic", "channels", lambda block: (1.0, block.channels)),
    ],
)
def test_the_strength_is_written_under_the_pruners_own_key_and_the_way_there_stays(name, key, read, recipe):
    assert strength_key(available()[name]) == key
    first, last = read(recipe(name).pruning)
    assert last == STRENGTH
    assert first in (1.0, STRENGTH)


def test_everyone_but_the_dense_network_has_a_strength():
    assert [name for name in EVERYONE if strength_key(available()[name]) is None] == ["dense"]


def test_a_rule_without_a_written_schedule_falls_to_its_strength_along_a_cubic(task, compare):
    bare = Entrant("bare", {"type": "snnsl.drop_grow", "distribution": "erk", "growth": "random"})
    density = run_recipe(task, compare, bare, seed=0, strength=0.3).pruning.density
    assert (density.registered_name, density.first, density.last) == ("cubic", 1.0, 0.3)


def test_setting_a_strength_leaves_the_entrant_as_it_was(recipe):
    before = digest(recipe("snnsl.gmp", strength=0.3))
    recipe("snnsl.gmp", strength=0.05)
    assert digest(recipe("snnsl.gmp", strength=0.3)) == before
    assert written_strength(available()["snnsl.gmp"]) == 0.1


@pytest.mark.parametrize(
    ("name", "written"), [("snnsl.set", 0.1), ("snnsl.stds", 0.1), ("torch_pruning.lamp", 0.3), ("nni.level", None)]
)
def test_the_strength_that_a_block_is_written_with(name, written):
    assert written_strength(available()[name]) == written


@pytest.mark.parametrize("name", EVERYONE)
def test_structured_is_who_lets_whole_channels_go(name, recipe):
    channels = name.startswith("torch_pruning.") or name.endswith(("_norm", "_structured", "taylor", "fpgm", "slim"))
    channels = channels or name in ("nni.movement", "snnsl.sca")
    expected = "dense" if name == "dense" else "structured" if channels else "unstructured"
    assert kind_of(recipe(name)) == expected


def test_densities_come_before_synops():
    found = budgets(Compare(densities=[0.1, 0.05], synops=[0.2]))
    assert found == [Budget("density", 0.1), Budget("density", 0.05), Budget("synops", 0.2)]
    assert [str(each) for each in found] == ["density-0.1", "density-0.05", "synops-0.2"]


# ------------------------------------------------------------------------------------------------- cross-validation


@pytest.fixture(scope="module")
def folded():
    return load("bench/nmnist", ["data.fold=4"])


def folds(folded, entrant, asked, **compare) -> list[int]:
    terms = Compare(densities=[0.1], **compare)
    return [run_recipe(folded, terms, entrant, seed=seed, strength=0.1).data.fold for seed in asked]


def test_the_nth_seed_takes_the_nth_fold(folded):
    seeds = [10, 11, 12, 13, 14, 15, 16]
    level = available()["nni.level"]
    assert folds(folded, level, seeds, seeds=seeds, cross_validate=True) == [0, 1, 2, 3, 4, 0, 1]


def test_an_entrant_with_seeds_of_its_own_is_tested_on_the_same_fold_for_the_same_seed(folded):
    mine = Entrant("mine", {"type": "nni.level"}, seeds=(7, 1, 5))
    assert folds(folded, mine, [7, 1, 5], seeds=[0, 1], cross_validate=True) == [2, 1, 3]
    assert folds(folded, available()["nni.level"], [0, 1], seeds=[0, 1], cross_validate=True) == [0, 1]


def test_without_cross_validation_the_fold_is_the_tasks(folded):
    assert folds(folded, available()["nni.level"], [0, 1], seeds=[0, 1]) == [4, 4]


# -------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("pruning", "said"),
    [
        ({"type": "nni.level", "strat": "10%"}, "pruner mine: pruning.strat: "),
        ({"type": "nni.level", "start": "ten"}, "pruner mine: pruning.start: "),
        ({"type": "snnsl.drop_grow", "criterion": "magnitud", "growth": "random", "distribution": "erk"}, "magnitude"),
        ({"type": "nni.agp_level", "start": "90%"}, "pruner mine: pruning"),
        ({"type": "nni.levle"}, "nni.level"),
    ],
)
def test_a_block_that_does_not_validate_is_a_sentence_that_names_the_pruner_and_the_key(pruning, said, task, compare):
    with pytest.raises(BadRecipe) as error:
        run_recipe(task, compare, Entrant("mine", pruning), seed=0, strength=0.1)
    sentence = str(error.value)
    assert sentence.startswith("pruner mine: ")
    assert said in sentence
    assert "validation error" not in sentence


def test_no_two_entrants_are_the_same_run(recipe):
    digests = sorted((digest(recipe(name)), name) for name in EVERYONE)
    assert not [(one, other) for one, other in pairwise(digests) if one[0] == other[0]]
