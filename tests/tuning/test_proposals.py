"""What trials try, and how they are judged: by hand, and against slow oracles."""

import itertools

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from snnsl_plugin.errors import BadOption
from snnsl_plugin.recipe.load import load
from snnsl_plugin.recipe.rungs import epochs_of
from snnsl_plugin.recipe.space import changed
from snnsl_plugin.recipe.tune_types import MEASURES, AnyParameter, Limit, Stop
from snnsl_plugin.tuning.measures import dominates, front, violations
from snnsl_plugin.tuning.proposals import own_point, suggest, values_of
from snnsl_plugin.tuning.stopping import left_over, verdict

NAMES = ["accuracy", "connections", "synops"]


def space(**keys):
    return TypeAdapter(dict[str, AnyParameter]).validate_python({key.replace("__", "."): v for key, v in keys.items()})


def test_every_value_of_every_kind_is_tried_and_nothing_else():
    block = {"name": "linear", "last": 0.1}
    searched = space(
        a__b={"name": "int", "low": 2, "high": 8, "step": 3},
        c=["x", 3, None, block],
        d={"name": "float", "low": 0, "high": 1, "step": 0.5},
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = [suggest(study.ask(), searched) for _ in range(60)]
    assert {point["a.b"] for point in points} == {2, 5, 8}
    assert {point["d"] for point in points} == {0.0, 0.5, 1.0}
    assert sorted({str(point["c"]) for point in points}) == sorted(["x", "3", "None", str(block)])


def test_a_condition_leaves_out_what_does_not_matter():
    searched = space(
        power={"name": "float", "low": 0, "high": 1, "when": {"criterion": "spike"}}, criterion=["plain", "spike"]
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = [suggest(study.ask(), searched) for _ in range(40)]
    assert {("power" in point) == (point["criterion"] == "spike") for point in points} == {True}
    assert {point["criterion"] for point in points} == {"plain", "spike"}


def test_the_recipe_itself_is_a_point_as_far_as_it_lies_in_the_space():
    overrides = [
        'tune.space={pruning.density.last: {name: float, low: 0.02, high: 0.2}, pruning.criterion: [fisher, magnitude],'
        ' pruning.until: [40%, 50%], seed: {name: int, low: 3, high: 5}, pruning.swap.first: [0.3]}'
    ]  # fmt: skip
    recipe = load("digits", overrides)
    params = own_point(recipe)
    assert values_of(recipe.tune.space, params) == {
        "pruning.density.last": 0.1, "pruning.criterion": "magnitude", "pruning.swap.first": 0.3,
    }  # fmt: skip


@pytest.mark.parametrize(
    "written",
    ["[magnitude, spike_saliency]", "[{name: spike_saliency}, fisher]", "[{name: spike_saliency, power: 0.5}, fisher]"],
)
def test_a_value_is_the_recipes_own_however_the_space_writes_it(written):
    recipe = load("digits", ["pruning.criterion=spike_saliency", f"tune.space={{pruning.criterion: {written}}}"])
    assert changed(recipe, values_of(recipe.tune.space, own_point(recipe))) == changed(recipe, {})
    assert own_point(recipe)


def test_a_trial_beyond_a_limit_beats_nobody():
    stop, limits = Stop(rungs=["50%"], warmup=2), {"accuracy": Limit(at_least=0.5)}
    own, cheap = {"accuracy": 0.9, "connections": 10.0}, {"accuracy": 0.2, "connections": 5.0}
    fewer = ["connections"]
    assert "by 2 of the 2" in verdict(stop, own, [cheap, cheap], fewer, {})
    assert verdict(stop, own, [cheap, cheap], fewer, limits) is None
    assert verdict(stop, own, [cheap, cheap | {"accuracy": 0.6}], fewer, limits) is None  # one is not more than half
    both = ["accuracy", "connections"]
    assert "by 1 of the 2" in verdict(stop, own, [cheap, cheap | {"accuracy": 0.9}], both, limits)


def test_limits_by_hand():
    limits = {"accuracy": Limit(at_least=0.9), "synops": Limit(at_most=100)}
    assert violations(limits, {"accuracy": 0.5, "synops": 40}) == {"accuracy": 0.4, "synops": -60}


points = st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=12)


@given(points)
def test_the_front_is_that_of_optuna(drawn):
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"])
    for values in drawn:
        study.add_trial(optuna.create_trial(values=list(values)))
    ours = front({number: dict(zip(NAMES, values, strict=True)) for number, values in enumerate(drawn)}, NAMES)
    assert ours == sorted(trial.number for trial in study.best_trials)


@given(points)
def test_dominance_is_a_strict_order(drawn):
    named = [dict(zip(NAMES, values, strict=True)) for values in drawn]
    for one, other in itertools.product(named, named):
        assert not (dominates(one, other, NAMES) and dominates(other, one, NAMES))
        assert not dominates(one, one, NAMES)


def test_a_trial_below_the_floor_goes_at_once_and_one_that_is_beaten_only_after_the_warm_up():
    stop = Stop(rungs=["50%"], floor=0.5, warmup=2)
    good, bad = (
        {"accuracy": 0.9, "connections": 5.0, "synops": 5.0},
        {"accuracy": 0.8, "connections": 5.0, "synops": 6.0},
    )
    assert "below the floor 0.5" in verdict(stop, bad | {"accuracy": 0.4}, [], NAMES, {})
    assert verdict(stop, bad, [good], NAMES, {}) is None
    assert "by 1 of the 2 that came" in verdict(stop, bad, [good, bad], NAMES, {})
    assert verdict(stop, bad | {"synops": 4.0}, [good, bad], NAMES, {}) is None
    assert verdict(stop.model_copy(update={"dominated": False}), bad, [good, bad], NAMES, {}) is None


def test_a_trial_that_is_still_dense_is_taken_as_sparse_as_its_schedule_makes_it():
    stop = Stop(rungs=["50%"], warmup=1)
    early = {"accuracy": 0.9, "connections": 10.0, "synops": 10.0}
    late = {"accuracy": 0.9, "connections": 80.0, "synops": 80.0}
    assert verdict(stop, late, [early], NAMES, {})
    assert verdict(stop, late, [early], NAMES, {}, left=0.1) is None  # it will have 8 of either
    assert verdict(stop, late, [early], NAMES, {}, left=0.2)  # 16
    plan = load("digits", ["pruning.density.last=0.05"]).pruning
    assert left_over(plan, 0.8) == pytest.approx(0.0625)
    assert left_over(plan, 0.05) == 1.0
    # What it has in the end is what is measured then.
    steered = ["pruning.density.last=0.05", "pruning.budget={name: synops, per_sample: 8000}"]
    assert left_over(load("digits", steered).pruning, 0.8) == 1.0
    assert left_over(load("digits", ["pruning={type: nni.level, density: 0.2}"]).pruning, 0.5) == pytest.approx(0.4)
    assert left_over(load("digits", ["pruning={type: dense}"]).pruning, 1.0) == 1.0
    assert left_over(load("digits_structured").pruning, 0.5) == 1.0  # a share of channels is no density


def test_with_one_objective_half_of_the_others_must_be_better():
    stop = Stop(rungs=["50%"], warmup=4)
    others = [{"accuracy": each} for each in (0.5, 0.6, 0.7, 0.8)]
    assert verdict(stop, {"accuracy": 0.65}, others, ["accuracy"], {}) is None
    assert "by 3 of the 4" in verdict(stop, {"accuracy": 0.55}, others, ["accuracy"], {})


def test_rungs_by_hand():
    assert epochs_of(Stop(rungs=["25%", "2ep", "26%", "100%", "0%"]), epochs=12) == [2, 3, 4]
    with pytest.raises(BadOption, match="none of 100% lies before the last of 12 epochs"):
        epochs_of(Stop(rungs=["100%"]), epochs=12)


def test_every_measure_has_a_sentence():
    from snnsl_plugin.tuning.measures import DEFINITIONS

    assert set(DEFINITIONS) == set(MEASURES)
