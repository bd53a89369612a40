"""Worked by hand, against scipy's own tests and slow oracles, and by repeating experiments whose truth is known."""

import math

import numpy as np
import pytest
import scipy.stats

from snnsl_plugin.comparison import statistics
from snnsl_plugin.comparison.statistics import detectable, difference, holm, ranks, sampling_error, summary
from snnsl_plugin.errors import BadOption

FINE = 1e-9  # a resolution that floors nothing


def runs(values, first=0):
    return {first + seed: float(value) for seed, value in enumerate(values)}


def test_a_summary_worked_by_hand():
    # mean 2, sd 1, and 4.302653 is the 97.5 % point of t with 2 degrees: 4.302653 / sqrt(3) = 2.484138
    found = summary([1.0, 2.0, 3.0])
    assert found["mean"] == 2.0
    assert found["sd"] == 1.0
    assert found["n"] == 3
    assert found["low"] == pytest.approx(2 - 2.484138, abs=1e-6)
    assert found["high"] == pytest.approx(2 + 2.484138, abs=1e-6)


def test_a_summary_agrees_with_scipys_interval():
    values = np.random.default_rng(0).normal(size=7)
    low, high = scipy.stats.t.interval(0.9, 6, loc=values.mean(), scale=scipy.stats.sem(values))
    found = summary(list(values), confidence=0.9)
    assert (found["low"], found["high"]) == pytest.approx((low, high))


def test_equal_values_have_exactly_their_mean_and_no_spread():
    assert summary([0.1] * 3) == {"mean": 0.1, "low": 0.1, "high": 0.1, "sd": 0.0, "n": 3}


def test_one_value_has_no_interval_and_none_is_an_error():
    assert summary([0.5]) == {"mean": 0.5, "low": None, "high": None, "sd": None, "n": 1}
    with pytest.raises(BadOption, match="at least one"):
        summary([])


def test_a_paired_difference_worked_by_hand():
    # differences 1, 2, 3: t = 2 / (1 / sqrt(3)) = 3.4641 with 2 degrees; p = 1 - t / sqrt(t^2 + 2) = 0.07418
    found = difference(runs([2, 4, 6]), runs([1, 2, 3]), resolution=FINE)
    assert (found["mean"], found["sd"], found["n"], found["paired"]) == (2.0, 1.0, 3, True)
    assert found["p"] == pytest.approx(1 - math.sqrt(12) / math.sqrt(14), abs=1e-12)
    assert found["low"] == pytest.approx(2 - 2.484138, abs=1e-6)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_a_paired_difference_agrees_with_scipys_related_t_test_whatever_the_order_of_the_seeds(n):
    random = np.random.default_rng(n)
    first, second = random.normal(size=n), random.normal(size=n)
    theirs = scipy.stats.ttest_rel(first, second)
    found = difference(runs(first), dict(reversed(runs(second).items())), resolution=FINE, confidence=0.9)
    interval = theirs.confidence_interval(0.9)
    assert (found["p"], found["low"], found["high"]) == pytest.approx((theirs.pvalue, interval.low, interval.high))


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 3), (3, 10)])
def test_disjoint_seeds_agree_with_scipys_welch_test(n, m):
    random = np.random.default_rng(n + m)
    first, second = random.normal(size=n), random.normal(scale=4, size=m)
    theirs = scipy.stats.ttest_ind(first, second, equal_var=False)
    found = difference(runs(first), runs(second, first=100), resolution=FINE)
    interval = theirs.confidence_interval(0.95)
    assert not found["paired"]
    assert found["n"] == min(n, m)
    assert (found["p"], found["low"], found["high"]) == pytest.approx((theirs.pvalue, interval.low, interval.high))
    assert found["sd"] == pytest.approx(math.sqrt(first.var(ddof=1) + second.var(ddof=1)))


def test_swapping_the_sides_turns_the_sign_and_nothing_else():
    a, b = (
        difference(runs([1, 5, 2]), runs([2, 3, 9]), resolution=1),
        difference(runs([2, 3, 9]), runs([1, 5, 2]), resolution=1),
    )
    assert (a["mean"], a["low"], a["high"]) == (-b["mean"], -b["high"], -b["low"])
    assert (a["p"], a["sd"]) == (b["p"], b["sd"])


@pytest.mark.parametrize("first_seed", [0, 50])
def test_the_same_values_on_both_sides_are_no_evidence(first_seed):
    found = difference(runs([0.5] * 3), runs([0.5] * 3, first=first_seed), resolution=0.01)
    assert found["mean"] == 0
    assert found["p"] == 1
    assert found["low"] == -found["high"] < 0


def test_equal_differences_are_no_infinite_evidence():
    # one step h: sd = h / sqrt(6), t = sqrt(18), p = 1 - sqrt(18 / 20); two steps: t^2 = 72, p = 1 - sqrt(72 / 74)
    one, two = (difference(runs([k] * 3), runs([0] * 3), resolution=1) for k in (1, 2))
    assert one["sd"] == pytest.approx(1 / math.sqrt(6))
    assert one["p"] == pytest.approx(1 - math.sqrt(18 / 20)) == pytest.approx(0.0513, abs=1e-4)
    assert two["p"] == pytest.approx(1 - math.sqrt(72 / 74))
    # unpaired each side has h^2 / 12, so one difference has h^2 / 6 again, and 4 degrees of freedom
    apart = difference(runs([1] * 3), runs([0] * 3, first=9), resolution=1)
    assert apart["sd"] == pytest.approx(1 / math.sqrt(6))
    assert apart["p"] == pytest.approx(2 * scipy.stats.t.sf(math.sqrt(18), 4))


def test_seeds_that_overlap_in_part_are_refused_with_the_common_ones_named():
    with pytest.raises(BadOption, match=r"restrict both to \[1, 2\]"):
        difference(runs([1, 2, 3]), runs([1, 2, 3], first=1), resolution=1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_an_error_at_every_door(bad):
    with pytest.raises(BadOption, match="finite"):
        summary([1.0, bad])
    for first in (0, 9):
        with pytest.raises(BadOption, match="finite"):
            difference(runs([1, 2]), runs([1, bad], first=first), resolution=1)
    with pytest.raises(BadOption, match="finite"):
        difference(runs([bad, 2]), runs([1, 1]), resolution=1)
    with pytest.raises(BadOption, match="finite"):
        holm([0.1, bad])
    with pytest.raises(BadOption, match="finite"):
        ranks([{"a": 1.0, "b": bad}], ["task"])
    with pytest.raises(BadOption, match="finite"):
        detectable(bad, 3, paired=True)


@pytest.mark.parametrize(
    "call",
    [
        lambda: difference(runs([1]), runs([2]), resolution=1),
        lambda: difference(runs([1, 2]), runs([2], first=9), resolution=1),
        lambda: difference(runs([1, 2]), runs([2, 3]), resolution=0),
        lambda: difference(runs([1, 2]), runs([2, 3]), resolution=math.nan),
        lambda: difference(runs([1, 2]), runs([2, 3]), resolution=1, confidence=1.0),
        lambda: summary([1, 2], confidence=95),
        lambda: holm([1.2]),
        lambda: detectable(-1.0, 3, paired=True),
        lambda: detectable(1.0, 3, paired=True, alpha=0.0),
        lambda: detectable(1.0, 3, paired=True, alpha=0.5, power=0.4),
        lambda: ranks([], []),
        lambda: ranks([{"a": 1.0}, {"b": 1.0}], ["one", "two"]),
        lambda: ranks([{"a": 1.0}], []),
        lambda: sampling_error(1.1, 100),
        lambda: sampling_error(0.5, 0),
    ],
)
def test_numbers_outside_their_ranges_are_refused(call):
    with pytest.raises(BadOption):
        call()


def test_holm_worked_by_hand():
    # sorted .01 .02 .03 .04, times 4 3 2 1 = .04 .06 .06 .04; never below the one before: .04 .06 .06 .06
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_holm_rejects_exactly_what_the_step_down_procedure_rejects():
    random = np.random.default_rng(1)
    for _ in range(200):
        p_values = np.round(random.uniform(0, 0.15, size=random.integers(1, 9)), 2)  # rounded, so that some tie
        alpha = float(random.choice([0.051, 0.0999]))
        rejected, left = set(), sorted(range(len(p_values)), key=lambda i: p_values[i])
        while left and p_values[left[0]] * len(left) < alpha:
            rejected.add(left.pop(0))
        assert {i for i, p in enumerate(holm(list(p_values))) if p < alpha} == rejected


def test_holms_values_lie_between_the_raw_ones_and_bonferronis():
    p_values = list(np.random.default_rng(2).uniform(size=20) ** 3)
    for raw, adjusted in zip(p_values, holm(p_values), strict=True):
        assert raw <= adjusted <= min(1, 20 * raw)
    assert holm(p_values) != pytest.approx(list(scipy.stats.false_discovery_control(p_values)))


def test_the_detectable_difference_has_just_the_power_that_was_asked_for():
    # by the definition of the noncentral t: (normal + shift) / sqrt(chi-squared / degrees), integrated numerically
    for degrees, n, paired in ((2, 3, True), (9, 10, True), (4, 3, False)):
        for alpha in (0.05, 0.05 / 9):
            shift = detectable(2.0, n, paired=paired, alpha=alpha, power=0.7) * math.sqrt(n) / 2.0
            critical = scipy.stats.t.isf(alpha / 2, degrees)
            found = scipy.stats.chi2(degrees).expect(
                lambda v, critical=critical, degrees=degrees, shift=shift: scipy.stats.norm.sf(
                    critical * np.sqrt(v / degrees) - shift
                )
            )
            assert found == pytest.approx(0.7, abs=1e-6)


def test_the_detectable_difference_of_many_seeds_is_the_textbooks():
    # (z_0.975 + z_0.8) sd / sqrt(n) = 2.8016 sd / sqrt(n) once t has become normal
    assert detectable(1.0, 10_000, paired=True) * 100 == pytest.approx(1.959964 + 0.841621, rel=1e-3)


def test_the_detectable_difference_grows_with_spread_and_level_and_shrinks_with_seeds():
    assert detectable(2.0, 3, paired=True) == pytest.approx(2 * detectable(1.0, 3, paired=True))
    by_seeds = [detectable(1.0, n, paired=True) for n in (2, 3, 5, 10, 30)]
    assert by_seeds == sorted(by_seeds, reverse=True)
    assert detectable(1.0, 3, paired=True, alpha=0.05 / 30) > detectable(1.0, 3, paired=True)
    assert detectable(1.0, 3, paired=False) < detectable(1.0, 3, paired=True)
    assert detectable(0.0, 3, paired=True) == 0
    assert detectable(1.0, 1, paired=True) is None


@pytest.mark.parametrize("n", [3, 10])
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("resolution", [FINE, 1 / 360])
def test_a_pruner_against_itself_is_called_noise(n, paired, resolution):
    random = np.random.default_rng([n, paired])
    values = np.round(random.normal(0.9, 0.006, size=(1000, 2, n)) / resolution) * resolution
    second = 0 if paired else n
    noise = [difference(runs(a), runs(b, first=second), resolution=resolution)["p"] >= 0.05 for a, b in values]
    assert np.mean(noise) >= 0.93


@pytest.mark.parametrize("spread", [0.2, 0.5, 1.0])
def test_a_spread_of_a_single_step_makes_no_false_discoveries(spread):
    # Three runs often give one number, and without the floor three equal differences would be a discovery each time.
    values = np.round(np.random.default_rng(3).normal(90.25, spread, size=(1000, 2, 3)))
    noise = [difference(runs(a), runs(b), resolution=1)["p"] >= 0.05 for a, b in values]
    assert np.mean(noise) >= 0.93


@pytest.mark.parametrize(("n", "paired", "alpha"), [(3, True, 0.05), (10, True, 0.05 / 9), (10, False, 0.05)])
def test_a_difference_as_large_as_detectable_is_found_in_80_of_100_repetitions(n, paired, alpha):
    sd = 0.01  # of a difference of two runs
    true = detectable(sd, n, paired=paired, alpha=alpha, power=0.8)
    values = np.random.default_rng(n).normal(0, sd / math.sqrt(2), size=(1000, 2, n))
    values[:, 0] += true
    found = [difference(runs(a), runs(b, first=0 if paired else n), resolution=FINE)["p"] < alpha for a, b in values]
    assert 0.75 <= np.mean(found) <= 0.85


def test_ranks_worked_by_hand():
    # a is best twice; b and c tie once and share (2 + 3) / 2
    found = ranks([{"a": 0.9, "b": 0.8, "c": 0.8}, {"a": 0.7, "b": 0.6, "c": 0.5}], ["one", "two"])
    assert found["mean_rank"] == {"a": 1.0, "b": 2.25, "c": 2.75}


def test_demsars_table_of_critical_differences_is_met():
    # Demsar 2006, table 5(a): q at 0.05 is 2.343, 2.569, 3.164 for 3, 4, 10; CD = q sqrt(k (k + 1) / 6 N).
    for k, q in ((3, 2.343), (4, 2.569), (10, 3.164)):
        blocks = [{str(i): float(i) for i in range(k)}] * 14
        found = ranks(blocks, [str(i) for i in range(14)])
        assert found["critical_difference"] == pytest.approx(q * math.sqrt(k * (k + 1) / (6 * 14)), abs=2e-3)


def test_friedmans_p_is_scipys_where_each_group_is_one_block():
    table = np.random.default_rng(4).normal(size=(12, 5))
    blocks = [{str(i): float(v) for i, v in enumerate(row)} for row in table]
    found = ranks(blocks, [str(i) for i in range(12)])
    assert found["friedman_p"] == pytest.approx(scipy.stats.friedmanchisquare(*table.T).pvalue)


def test_more_budgets_of_one_task_are_no_more_evidence():
    block = {"a": 3.0, "b": 2.0, "c": 1.0}
    once = ranks([block, block], ["one", "two"])
    assert ranks([block] * 8, ["one"] * 5 + ["two"] * 3) == once
    assert ranks([block] * 8, ["one"] * 8)["friedman_p"] is None


def test_two_names_or_one_task_are_ranked_without_a_test():
    for blocks, groups in (
        ([{"a": 1.0, "b": 2.0}] * 3, ["one", "two", "three"]),
        ([{"a": 1.0, "b": 2.0, "c": 3.0}], ["one"]),
    ):
        found = ranks(blocks, groups)
        assert found["friedman_p"] is None
        assert found["critical_difference"] is None
        assert found["mean_rank"]["b"] < found["mean_rank"]["a"]


def test_pruners_that_tie_everywhere_share_their_rank_and_differ_in_nothing():
    block = {"a": 0.1 + 0.2, "b": 0.3, "c": 0.3}  # a differs by the rounding of a sum
    found = ranks([block] * 3, ["one", "two", "three"])
    assert found["mean_rank"] == {"a": 2.0, "b": 2.0, "c": 2.0}
    assert found["friedman_p"] == 1.0


@pytest.mark.parametrize(("correct", "n"), [(97, 100), (0, 50), (360, 360), (500, 1000)])
def test_the_sampling_error_is_half_of_scipys_wilson_interval(correct, n):
    interval = scipy.stats.binomtest(correct, n).proportion_ci(0.95, method="wilson")
    assert sampling_error(correct / n, n) == pytest.approx((interval.high - interval.low) / 2)


def test_one_erratic_group_does_not_make_the_typical_spread():
    random = np.random.default_rng(0)
    spreads = [(float(np.std(random.normal(0, 2.0, 3), ddof=1)), 2) for _ in range(400)]
    assert statistics.typical_sd(spreads) == pytest.approx(2.0, rel=0.1)
    assert statistics.typical_sd([*spreads, *[(1000.0, 2)] * 20]) == pytest.approx(2.0, rel=0.15)
    assert statistics.typical_sd([(3.0, 2), (4.0, 6)]) == pytest.approx(math.sqrt((9 * 2 + 16 * 6) / 8))
