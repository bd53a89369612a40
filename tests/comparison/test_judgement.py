"""Verdicts worked by hand, the rows that must not get one, and tables of equal pruners repeated a thousand times."""

import json
import math

import numpy as np
import pytest
import scipy.stats
from comparison_cases import DENSITIES, FAILED, FAILURE, MISSED, SEEDS, comparison_json, row, run

from snnsl_plugin.comparison import judgement
from snnsl_plugin.errors import BadData, BadOption

TERMS = {"seeds": [0, 1, 2], "alpha": 0.05, "confidence": 0.95, "power": 0.8}
STEP = {"digits": 1 / 1000, "nmnist": 1 / 1000}
VERDICT_KEYS = {"mean", "low", "high", "sd", "p", "p_holm", "n", "paired", "verdict", "reason"}


def only_table(rows, references=("old",), terms=TERMS, seeds=None):
    pruners = [{"name": name, "seeds": (seeds or {}).get(name)} for name in {each["pruner"] for each in rows}]
    (table,) = judgement.tables(rows, pruners, list(references), terms, STEP)
    return table


def seeds_of(values, first=0):
    return {first + seed: value for seed, value in enumerate(values)}


OLD = row("old", seeds_of([0.800, 0.802, 0.804]))


def test_a_table_worked_by_hand():
    better = row("high", seeds_of([0.849, 0.852, 0.855]))  # + .049 .050 .051: t = .05 / (.001 / sqrt 3) = 86.6
    noise = row("near", seeds_of([0.805, 0.800, 0.807]))  # + .005 -.002 .003
    worse = row("low", seeds_of([0.701, 0.702, 0.703]))  # - .099 .100 .101: t = -173.2
    table = only_table([better, OLD, worse, noise])
    assert table["order"] == ["high", "near", "old", "low"]
    assert table["reference"] == "old"
    found = table["differences"]
    assert list(found) == ["high", "near", "low"]
    assert {name: entry["verdict"] for name, entry in found.items()} == {
        "high": "better",
        "near": "inside the noise",
        "low": "worse",
    }
    assert all(set(entry) == VERDICT_KEYS for entry in found.values())
    # with 2 degrees of freedom p = 1 - t / sqrt(t^2 + 2); Holm: the smallest of three times 3, the next times 2
    assert found["low"]["p_holm"] == pytest.approx(3 * (1 - 1 / math.sqrt(1 + 2 / 30_000)), rel=1e-6)
    assert found["high"]["p_holm"] == pytest.approx(2 * (1 - 1 / math.sqrt(1 + 2 / 7_500)), rel=1e-6)
    assert found["near"]["p_holm"] == found["near"]["p"]
    assert all(entry["n"] == 3 and entry["paired"] and entry["reason"] == "" for entry in found.values())
    # the differences' variances are 1e-6, 1e-6 and 13e-6; ln 2 is the median of chi-squared / 2 with 2 degrees
    assert table["power"]["sd"] == pytest.approx(1e-3 / math.sqrt(math.log(2)))
    assert table["power"]["alpha"] == pytest.approx(0.05 / 3)


def test_a_difference_that_only_holm_takes_back_is_undecided():
    # + .010 .014 .018: t = .014 / (.004 / sqrt 3) = 6.06 with 2 degrees, p = .026; of four tests none survives
    rows = [OLD] + [row(name, seeds_of([0.810, 0.816, 0.822])) for name in "abcd"]
    entry = only_table(rows)["differences"]["a"]
    assert entry["p"] == pytest.approx(0.0262, abs=1e-4)
    assert entry["low"] > 0
    assert entry["verdict"] == "undecided"
    assert only_table(rows[:2])["differences"]["a"]["verdict"] == "better"


def test_measures_are_those_of_the_finished_runs():
    runs = [run(0, {"accuracy": 0.8, "accuracy_test": None}), run(1, {"accuracy": 0.9, "macs": 5.0}), run(2, None)]
    found = judgement.measures(runs)
    assert list(found) == ["accuracy", "accuracy_test", "macs"]
    assert found["accuracy"]["mean"] == pytest.approx(0.85)
    assert found["accuracy"]["n"] == 2
    assert found["macs"] == {"mean": 5.0, "low": None, "high": None, "sd": None, "n": 1}
    assert found["accuracy_test"] == {"mean": None, "low": None, "high": None, "sd": None, "n": 0}
    assert judgement.measures([run(0, None)]) == {}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_not_finite_names_its_run(bad):
    with pytest.raises(BadData, match=r"runs/s1: synops is (nan|inf)"):
        judgement.measures([run(0, {"synops": 1.0}), run(1, {"synops": bad})])
    broken = OLD | {"pruner": "broken", "runs": [run(seed, {"accuracy": bad}) for seed in SEEDS]}
    with pytest.raises(BadData, match="accuracy"):
        only_table([OLD, broken])


def test_equal_means_are_ordered_by_name_and_rows_in_trouble_last():
    missed = {"key": "density", "value": 0.3, "found_by": "given", "missed": True, "runs": 0}
    failed = {"status": "failed", "error": "it broke."}
    rows = [
        row("f_none", seeds_of([None] * 3), **failed),
        row("e_some", seeds_of([0.99, 0.99, None]), **failed),
        row("d_missed", seeds_of([0.95] * 3), strength=missed),
        row("c", {0: 0.7, 1: 0.8, 2: 0.9}),
        row("b", {0: 0.9, 1: 0.8, 2: 0.7}),
        OLD,
    ]
    assert only_table(rows)["order"] == ["old", "b", "c", "d_missed", "e_some", "f_none"]


def test_rows_that_failed_are_open_or_missed_the_budget_get_a_reason_and_no_verdict():
    missed = {"key": "density", "value": 0.3, "found_by": "given", "missed": True, "runs": 0}
    rows = [
        OLD,
        row("failed", seeds_of([0.9, 0.9, None]), status="failed", error="it broke."),
        row("open", seeds_of([0.9, 0.9, None]), status="running"),
        row("missed", seeds_of([0.9, 0.9, 0.9]), strength=missed),
        row("single", seeds_of([0.9, None, None])),
        row("tested", seeds_of([0.9, 0.9, 0.9])),
    ]
    found = only_table(rows)["differences"]
    assert {name: entry["reason"] for name, entry in found.items()} == {
        "failed": "failed failed: it broke.",
        "open": "open is not finished",
        "missed": "missed missed the budget, so the terms are not equal",
        "single": "seeds that finished in both: 1; a test needs 2",
        "tested": "",
    }
    for name, entry in found.items():
        assert (entry["verdict"] == "not tested") == (name != "tested")
        assert (entry["p"] is None) == (entry["p_holm"] is None) == (name != "tested")
    assert found["missed"]["mean"] == pytest.approx(0.098)
    # one test is one test: rows without a verdict are no part of Holm's family
    assert found["tested"]["p_holm"] == found["tested"]["p"]


def test_a_missing_seed_leaves_the_common_ones_and_says_so():
    entry = only_table([OLD, row("new", {0: 0.9, 1: None, 2: 0.9})])["differences"]["new"]
    theirs = scipy.stats.ttest_rel([0.9, 0.9], [0.800, 0.804])
    assert (entry["n"], entry["reason"]) == (2, "over the 2 seeds that finished in both")
    assert entry["p"] == pytest.approx(theirs.pvalue)


def test_pruners_with_seeds_of_their_own_are_compared_unpaired():
    entry = only_table([OLD, row("new", seeds_of([0.81, 0.82, 0.80], first=3))], seeds={"new": [3, 4, 5]})[
        "differences"
    ]
    theirs = scipy.stats.ttest_ind([0.81, 0.82, 0.80], [0.800, 0.802, 0.804], equal_var=False)
    assert not entry["new"]["paired"]
    assert entry["new"]["p"] == pytest.approx(theirs.pvalue)


def test_seeds_that_were_planned_as_pairs_never_become_unpaired_by_failures():
    entry = only_table([row("old", {0: 0.8, 1: 0.8, 2: None, 3: None}), row("new", {0: None, 1: None, 2: 0.9, 3: 0.9})])
    assert entry["differences"]["new"]["verdict"] == "not tested"
    assert entry["differences"]["new"]["reason"] == "seeds that finished in both: 0; a test needs 2"


def test_the_reference_is_the_first_that_may_be_judged():
    broken = row("first", seeds_of([0.9, None, None]), status="failed", error="it broke.")
    assert only_table([broken, OLD], references=["first", "absent", "old"])["reference"] == "old"
    table = only_table([broken, OLD], references=["first"])
    assert table["reference"] is None
    assert {entry["reason"] for entry in table["differences"].values()} == {
        "no reference of this comparison finished here"
    }
    assert table["power"]["detectable"] is None
    assert table["power"]["sentence"] == "No row was tested here."


def test_dense_stands_beside_the_table_and_never_in_it():
    dense = row("dense", seeds_of([0.850, 0.852, 0.854]), kind="dense", budget=None)
    table = only_table([dense, OLD, row("new", seeds_of([0.80, 0.81, 0.80]))])
    assert table["order"] == ["new", "old"]
    assert set(table["dense"]) == {"mean", "low", "high", "n"}
    assert table["dense"]["mean"] == pytest.approx(0.05)
    failed = dense | {"status": "failed", "error": "it broke."}
    assert only_table([failed, OLD])["dense"] is None
    assert only_table([OLD])["dense"] is None


def test_kinds_tasks_and_budgets_are_tables_of_their_own():
    rows = [
        row("old", seeds_of([0.8] * 3), task=task, kind=kind, budget=budget)
        for task in ("digits", "nmnist")
        for kind in ("unstructured", "structured")
        for budget in (DENSITIES[0], {"kind": "synops", "value": 0.1})
    ]
    found = judgement.tables(rows, [{"name": "old", "seeds": None}], ["old"], TERMS, STEP)
    assert len(found) == 8
    assert all(table["order"] == ["old"] and table["differences"] == {} for table in found)


@pytest.mark.parametrize(
    ("rows", "pruners", "steps", "said"),
    [
        ([OLD, OLD], ["old"], STEP, "stands twice"),
        ([OLD], [], STEP, "entries of old"),
        ([OLD], ["old"], {}, "resolution"),
        ([OLD | {"runs": [run(0, {"accuracy": 0.5})] * 2}], ["old"], STEP, "twice"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(rows, pruners, steps, said):
    with pytest.raises(BadOption, match=said):
        judgement.tables(rows, [{"name": name, "seeds": None} for name in pruners], ["old"], TERMS, steps)


def test_the_power_sentence_says_what_was_within_reach():
    # one test, differences .010 .014 .018: sd .004; 5.65349 is the shift with power .8 at 2 degrees and level .05
    power = only_table([OLD, row("new", seeds_of([0.810, 0.816, 0.822]))])["power"]
    assert power["detectable"] == pytest.approx(5.65349 * 0.004 / math.sqrt(3), rel=1e-4)
    assert power["sentence"] == (
        "With 3 seeds this table would have seen a difference of 1.3 points in 80 of 100 repetitions; "
        "smaller ones are missed more often."
    )


def test_a_table_that_could_not_have_seen_anything_says_so():
    # 2 seeds that differ by .2 and .0: 16.3 standard errors of .1 are more than an accuracy can differ
    power = only_table([row("old", {0: 0.6, 1: 0.6}), row("new", {0: 0.8, 1: 0.6})])["power"]
    assert power["detectable"] is None
    assert "no difference at all" in power["sentence"]
    assert power["n"] == 2


@pytest.mark.parametrize("seeds", [3, 10])
def test_ten_equal_pruners_make_a_false_discovery_in_fewer_than_7_of_100_tables(seeds):
    random = np.random.default_rng(seeds)
    terms = TERMS | {"seeds": list(range(seeds))}
    wrong = 0
    for _ in range(1000):
        of_seed = random.normal(0, 0.01, size=seeds)
        accuracies = np.round(0.9 + of_seed + random.normal(0, 0.01, size=(10, seeds)), 3)
        rows = [row(name, seeds_of(values.tolist())) for name, values in zip("abcdefghij", accuracies, strict=True)]
        verdicts = {entry["verdict"] for entry in only_table(rows, "a", terms)["differences"].values()}
        wrong += bool(verdicts & {"better", "worse"})
    assert wrong < 70


def test_one_table_has_no_overall_ranks():
    rows = [OLD, row("new", seeds_of([0.9] * 3))]
    assert judgement.overall([only_table(rows)], rows) == []


def blocks(accuracy_of, tasks=("digits", "nmnist"), names=("a", "b", "c"), **more):
    rows = [
        row(name, seeds_of([accuracy_of(name)] * 3), task=task, budget=budget, **more)
        for task in tasks
        for budget in DENSITIES
        for name in names
    ]
    pruners = [{"name": name, "seeds": None} for name in names]
    return judgement.tables(rows, pruners, ["a"], TERMS, dict.fromkeys(tasks, 0.001)), rows


def test_ranks_are_those_of_the_blocks_and_the_test_is_that_of_the_tasks():
    (entry,) = judgement.overall(*blocks({"a": 0.7, "b": 0.9, "c": 0.8}.get))
    assert entry["kind"] == "unstructured"
    assert entry["blocks"] == [
        "digits, density 0.1",
        "digits, density 0.05",
        "nmnist, density 0.1",
        "nmnist, density 0.05",
    ]
    assert list(entry["mean_rank"].items()) == [("b", 1.0), ("c", 2.0), ("a", 3.0)]
    # two tasks of one mind about three pruners: Friedman's statistic is 2 * 2 = 4, p = exp(-2)
    assert entry["friedman_p"] == pytest.approx(math.exp(-2))
    assert "over 2 tasks no pruner is shown to differ (Friedman's p = 0.14)" in entry["sentence"]


def test_ten_tasks_of_one_mind_are_evidence():
    (entry,) = judgement.overall(*blocks({"a": 0.7, "b": 0.9, "c": 0.8}.get, tasks=[f"task {i}" for i in range(10)]))
    assert entry["friedman_p"] == pytest.approx(math.exp(-10))
    assert "the pruners differ" in entry["sentence"]
    assert f"more than {entry['critical_difference']:.2f} apart" in entry["sentence"]


def test_budgets_of_one_task_are_ranked_without_a_test():
    (entry,) = judgement.overall(*blocks({"a": 0.7, "b": 0.9, "c": 0.8}.get, tasks=["digits"]))
    assert entry["friedman_p"] is None
    assert "too few tasks" in entry["sentence"]


@pytest.mark.parametrize(
    "trouble",
    [
        {"status": "failed", "error": "it broke."},
        {"status": "running"},
        {"strength": {"key": "density", "value": 0.3, "found_by": "given", "missed": True, "runs": 0}},
    ],
)
def test_a_pruner_in_trouble_in_one_block_is_not_ranked_and_is_named(trouble):
    tables, rows = blocks({"a": 0.7, "b": 0.9, "c": 0.8}.get)
    rows[1] = rows[1] | trouble
    (entry,) = judgement.overall(tables, rows)
    assert list(entry["mean_rank"]) == ["c", "a"]
    assert entry["sentence"].endswith("in every table: b.")


def test_a_whole_comparison_is_plain_json_and_the_same_at_every_call():
    whole = comparison_json()
    text = json.dumps(whole, allow_nan=False)
    assert json.loads(text) == whole
    assert json.dumps(comparison_json(), allow_nan=False) == text
    assert len(whole["tables"]) == 12
    assert [entry["kind"] for entry in whole["overall"]] == ["unstructured", "structured"]
    verdicts = {entry["verdict"] for table in whole["tables"] for entry in table["differences"].values()}
    assert verdicts == {"worse", "undecided", "inside the noise", "not tested"}


def test_the_planted_bad_failed_and_missed_rows_stand_where_they_belong():
    for table in comparison_json()["tables"]:
        where = (table["task"], table["budget"]["value"])
        if table["kind"] == "unstructured":
            failed = (FAILED[0], FAILED[2]) == where
            assert table["order"][-1] == (FAILED[1] if failed else "torch.random")
            assert table["differences"]["torch.random"]["verdict"] == "worse"
            assert (table["differences"][FAILED[1]]["reason"] == f"{FAILED[1]} failed: {FAILURE}") == failed
        elif (MISSED[0], MISSED[2]) == where:
            assert table["differences"][MISSED[1]]["verdict"] == "not tested"
