"""Who takes part in a comparison: names, patterns, changed copies, those that stay out, and errors that help."""

import pytest
from pydantic import ValidationError

from snnsl_plugin.comparison.entrants import SHELF, Entrant, available, chosen, pruning_types
from snnsl_plugin.errors import BadRecipe
from snnsl_plugin.recipe import catalog
from snnsl_plugin.recipe.compare_types import Compare
from snnsl_plugin.recipe.load import load

SHELVED = [name for name in catalog.names() if name.startswith(SHELF)]


def entrants(**compare) -> list[Entrant]:
    return chosen(Compare(densities=[0.1], **compare))


def names(**compare) -> list[str]:
    return [each.name for each in entrants(**compare)]


def test_a_name_brings_its_pruner_and_the_dense_network_comes_first():
    dense, gmp = entrants(pruners=["snnsl.gmp"])
    assert (dense.name, dense.pruning["type"], dense.host) == ("dense", "dense", "dense")
    assert (gmp.name, gmp.host) == ("snnsl.gmp", "snnsl")
    assert gmp.pruning["type"] == "snnsl.drop_grow"
    assert gmp.pruning["swap"] is None
    assert gmp.distillation is None
    assert gmp.summary.startswith("GMP, gradual magnitude pruning")


def test_the_dense_network_takes_part_once_wherever_it_is_named():
    assert names(pruners=["torch.l1", "dense"]) == ["dense", "torch.l1"]
    assert names(pruners=["all"]).count("dense") == 1


def test_all_is_everyone_of_five_hosts():
    everyone = names(pruners=["all"])
    assert everyone == list(available())
    assert {each.host for each in available().values()} >= {"dense", "snnsl", "nni", "torch_pruning", "torch"}
    assert len(everyone) >= 25


def test_a_pattern_brings_all_that_it_matches():
    found = names(pruners=["nni.l?_norm", "torch_pruning.*"])
    assert found[:3] == ["dense", "nni.l1_norm", "nni.l2_norm"]
    assert set(found[3:]) == {name for name in available() if name.startswith("torch_pruning.")}


def test_who_is_named_twice_takes_part_once():
    assert names(pruners=["nni.level", "nni.l*"]).count("nni.level") == 1


def test_a_type_that_a_recipe_of_the_shelf_uses_does_not_take_part_again_by_itself():
    assert "snnsl.drop_grow" not in available()
    assert "torch_pruning.base" not in available()


def test_every_pruning_type_takes_part_or_is_used_by_one_who_does():
    used = {each.pruning["type"] for each in available().values()}
    assert used == set(pruning_types())
    assert {"dense", "snnsl.drop_grow", "snnsl.stds", "nni.level", "torch.l1", "torch_pruning.base"} <= used


@pytest.mark.parametrize("recipe", SHELVED)
def test_every_recipe_of_the_shelf_is_valid_and_says_in_a_sentence_who_it_is(recipe):
    read = load(recipe)
    entrant = available()[recipe.removeprefix(SHELF)]
    assert read.pruning.type == entrant.pruning["type"]
    assert entrant.summary.endswith(".")
    assert len(entrant.summary.split()) > 4


def test_like_takes_another_pruner_and_changes_what_is_written():
    _, mine = entrants(pruners=[{"name": "mine", "like": "snnsl.rigl", "pruning": {"swap": None, "start": "2ep"}}])
    rigl = available()["snnsl.rigl"]
    assert mine.pruning == {**rigl.pruning, "swap": None, "start": "2ep"}
    assert mine.distillation == rigl.distillation
    assert rigl.pruning["swap"] is not None  # the shelf is as it was


def test_like_lays_options_over_those_of_the_same_choice_and_replaces_another_choice_whole():
    def swap(written):
        changed = {"name": "mine", "like": "snnsl.rigl", "pruning": {"swap": written}}
        return entrants(pruners=[changed])[1].pruning["swap"]

    assert swap({"first": 0.5}) == {"name": "cosine", "first": 0.5, "last": 0.0}
    assert swap({"name": "cosine", "first": 0.5}) == {"name": "cosine", "first": 0.5, "last": 0.0}
    assert swap({"name": "constant", "value": 0.1}) == {"name": "constant", "value": 0.1}


def test_like_with_another_type_takes_nothing_of_the_old_block():
    _, mine = entrants(pruners=[{"name": "mine", "like": "snnsl.default", "pruning": {"type": "torch.l1"}}])
    assert mine.pruning == {"type": "torch.l1"}
    assert mine.host == "torch"


def test_like_can_drop_the_guide():
    untaught = {"name": "mine", "like": "snnsl.taught", "distillation": None}
    taught, mine = entrants(pruners=["snnsl.taught", untaught])[1:]
    assert taught.distillation
    assert mine.distillation is None
    assert mine.pruning == taught.pruning


def test_a_pruner_of_ones_own_needs_no_other():
    _, mine = entrants(pruners=[{"name": "mine", "pruning": {"type": "nni.level", "start": "30%"}, "seeds": [7, 8]}])
    assert mine == Entrant("mine", {"type": "nni.level", "start": "30%"}, seeds=(7, 8))


def test_one_pruner_under_two_names_is_two_entrants():
    found = entrants(
        pruners=[
            {"name": "a", "like": "snnsl.gmp", "seeds": [0, 1]},
            {"name": "b", "like": "snnsl.gmp", "seeds": [2, 3]},
        ]
    )
    assert [each.name for each in found] == ["dense", "a", "b"]
    assert found[1].pruning == found[2].pruning


def test_without_keeps_those_out_whom_a_pattern_matches():
    everyone, left = names(pruners=["all"]), names(pruners=["all"], without=["nni.*", "snnsl.gmp"])
    assert [name for name in everyone if not name.startswith("nni.") and name != "snnsl.gmp"] == left


def refused(**compare) -> str:
    with pytest.raises(BadRecipe) as error:
        entrants(**compare)
    return str(error.value)


def test_an_unknown_name_is_an_error_with_the_nearest_known_one():
    said = refused(pruners=["snnsl.gpm"])
    assert said.startswith("compare.pruners[0]: no pruner is called 'snnsl.gpm'; did you mean 'snnsl.gmp'?")
    assert "torch.global_l1" in said


def test_a_pattern_that_matches_nobody_is_an_error():
    assert "compare.pruners[1]: no pruner is called 'nnni.*'" in refused(pruners=["dense", "nnni.*"])


def test_an_unknown_like_is_an_error_with_the_nearest_known_one():
    said = refused(pruners=[{"name": "mine", "like": "nni.levle"}])
    assert said.startswith("compare.pruners[0].like: no pruner is called 'nni.levle'; did you mean 'nni.level'?")


def test_without_somebody_who_does_not_take_part_is_an_error():
    said = refused(pruners=["nni.level"], without=["snnsl.gmp"])
    assert said.startswith("compare.without[0]: no pruner is called 'snnsl.gmp'")


def test_two_pruners_of_one_name_are_an_error():
    said = refused(pruners=["all", {"name": "snnsl.gmp", "like": "snnsl.gmp", "pruning": {"start": "1ep"}}])
    assert said == "compare.pruners[1]: 'snnsl.gmp' takes part already, and is another pruner: choose another name"


def test_no_other_pruner_is_called_dense():
    said = refused(pruners=[{"name": "dense", "like": "snnsl.gmp"}])
    assert said == "compare.pruners[0]: 'dense' is the network that nothing is pruned in: choose another name"


def test_all_errors_are_said_at_once():
    assert len(refused(pruners=["nobody", "nni.*"], without=["nothing"]).splitlines()) == 2


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"pruners": []}, "at least 1 item"),
        ({"pruners": ["nni.level"], "densities": []}, "needs a budget"),
        ({"seeds": [1, 1]}, "names a value twice"),
        ({"densities": [0.1, 0.1]}, "names a value twice"),
        ({"densities": [1.0]}, "less than 1"),
        ({"pruners": ["nni.level", {"name": "nni.level", "like": "nni.level"}]}, "two entries of one name"),
        ({"pruners": [{"name": "mine"}]}, "needs a pruner to be like"),
        ({"pruners": [{"name": "a b", "like": "nni.level"}]}, "pattern"),
        ({"pruners": [{"name": "mine", "like": "nni.level", "seeds": [3, 3]}]}, "names a seed twice"),
        ({"desities": [0.1]}, "desities"),
    ],
)
def test_a_block_that_cannot_be_meant_is_refused(written, said):
    with pytest.raises(ValidationError, match=said):
        Compare.model_validate({"densities": [0.1], **written})
