from __future__ import annotations

from snnsl_plugin.tracking.names import LONGEST_VALUE, allowed, flattened


def test_a_name_that_mlflow_takes_stays_as_it_is() -> None:
    for name in ("density/features.0", "rate/layer-1 a", "accuracy/validation", "x"):
        assert allowed(name) == name


def test_other_names_become_one_that_mlflow_takes_and_never_two_the_same() -> None:
    strange = ["a[0]", "a(0)", "a:0", "a//b", "/a/b", "../a", "a/./b", "..", "", "a\n", "a" * 251, "a" * 250 + "b"]
    changed = [allowed(name) for name in strange]
    assert len(set(changed)) == len(strange)
    for name in changed:
        assert 0 < len(name) <= 250
        assert allowed(name) == name


def test_a_recipe_becomes_dotted_names_with_json_values() -> None:
    recipe = {
        "seed": 0,
        "model": {"name": "vgg9", "T": 4, "norm": None},
        "stages": [{"lr": 0.1}, {"lr": 0.2}],
        "seeds": [0, 1],
        "dense": True,
        "empty": {},
    }
    assert flattened(recipe) == {
        "seed": "0",
        "model.name": "vgg9",
        "model.T": "4",
        "model.norm": "null",
        "stages.0.lr": "0.1",
        "stages.1.lr": "0.2",
        "seeds": "[0, 1]",
        "dense": "true",
        "empty": "{}",
    }


def test_a_value_that_is_too_long_is_cut_and_says_so() -> None:
    (value,) = flattened({"note": "a" * 7000}).values()
    assert len(value) == LONGEST_VALUE
    assert value.endswith("aaa [cut: 7000 characters, whole in recipe.yaml]")
    assert flattened({"note": "a" * LONGEST_VALUE}) == {"note": "a" * LONGEST_VALUE}
