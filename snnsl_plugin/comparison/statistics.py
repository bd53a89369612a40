"""The statistics of a comparison: numbers in, numbers out; scipy does the work.

A value is what one run measured, and its seed is its name. Every interval and every test here takes runs with
different seeds as independent draws and holds the test set fixed: it answers "would this pruner win again with new
seeds, on these very samples?". What the test set's size adds is another question, with its own answer:
`sampling_error`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypedDict

import numpy as np
import scipy  # stats, special and optimize are loaded by their first use

from snnsl_plugin.errors import BadOption


class Summary(TypedDict):
    """A mean with its t interval; `low`, `high` and `sd` are None where there is but one value."""

    mean: float
    low: float | None
    high: float | None
    sd: float | None
    n: int


class Difference(TypedDict):
    """First minus second. `sd` is that of one difference, no smaller than the measurement's resolution allows."""

    mean: float
    low: float
    high: float
    sd: float
    p: float
    n: int
    paired: bool


class Ranks(TypedDict):
    """Mean ranks (1 is best), and the two figures of Friedman's and Nemenyi's tests where there are enough blocks."""

    mean_rank: dict[str, float]
    friedman_p: float | None
    critical_difference: float | None


def summary(values: Sequence[float], confidence: float = 0.95) -> Summary:
    """Mean, standard deviation (n - 1 in the denominator) and the mean's t interval.

    Raises:
        BadOption: no value, one that is not finite, or a confidence outside (0, 1).

    Example:
        >>> summary([1.0])
        {'mean': 1.0, 'low': None, 'high': None, 'sd': None, 'n': 1}
    """
    _check_share("confidence", confidence)
    numbers = _finite("a summary", values)
    if not len(numbers):
        raise BadOption("a summary of no value at all: pass at least one")
    mean, variance = _moments(numbers)
    n = len(numbers)
    if n < 2:
        return {"mean": mean, "low": None, "high": None, "sd": None, "n": n}
    half = _quantile(confidence, n - 1) * math.sqrt(variance / n)
    return {"mean": mean, "low": mean - half, "high": mean + half, "sd": math.sqrt(variance), "n": n}


def difference(
    first: Mapping[int, float], second: Mapping[int, float], *, resolution: float, confidence: float = 0.95
) -> Difference:
    """First minus second by a two-sided t test: paired where both have the same seeds, Welch's where none is shared.

    Runs that share a seed share initial weights and batch order, so they are compared pair by pair. Seeds that
    overlap in part are refused: leaving the others out is the caller's choice, which a report must show.

    A number read in steps of h carries a rounding of variance h^2 / 12 (JCGM 100:2008, F.2.2.1), and a difference of
    two h^2 / 6. No variance is taken to be smaller than that, or three equal differences would be infinite evidence:
    three times one step is then p = 0.051, three times two steps p = 0.014.

    Args:
        first: seed -> value.
        second: seed -> value.
        resolution: the step h of a value, above 0; 1 / n for an accuracy over n samples.
        confidence: of the interval [`low`, `high`], in (0, 1); for this difference alone, whatever else is tested.

    Returns:
        `n` is the number of pairs or, unpaired, that of the smaller side; `sd` is the standard deviation of a
        difference of two single runs.

    Raises:
        BadOption: fewer than two values on a side, seeds that overlap in part, a value that is not finite, a
            resolution that is not above 0.
    """
    _check_share("confidence", confidence)
    if not (math.isfinite(resolution) and resolution > 0):
        raise BadOption(f"a resolution of {resolution}: pass the step of a value, such as 1 / 360 for 360 test samples")
    common = first.keys() & second.keys()
    if common and first.keys() != second.keys():
        raise BadOption(
            f"seeds {sorted(first)} and {sorted(second)} overlap in part: restrict both to {sorted(common)}, "
            "or give them no seed in common"
        )
    if min(len(first), len(second)) < 2:
        raise BadOption(f"a difference needs two values on each side, and got {len(first)} and {len(second)}")
    seeds = sorted(first)
    one = _finite("a difference", [first[seed] for seed in seeds])
    if common:
        other = _finite("a difference", [second[seed] for seed in seeds])
        n, degrees = len(one), float(len(one) - 1)
        mean, variance = _moments(one - other)
        variance = max(variance, resolution**2 / 6)
        error = math.sqrt(variance / n)
    else:
        other = _finite("a difference", list(second.values()))
        (mean_one, variance_one), (mean_other, variance_other) = _moments(one), _moments(other)
        floored = [max(v, resolution**2 / 12) for v in (variance_one, variance_other)]
        shares = [floored[0] / len(one), floored[1] / len(other)]
        degrees = sum(shares) ** 2 / (shares[0] ** 2 / (len(one) - 1) + shares[1] ** 2 / (len(other) - 1))
        n, mean, variance, error = (
            min(len(one), len(other)),
            mean_one - mean_other,
            sum(floored),
            math.sqrt(sum(shares)),
        )
    half = _quantile(confidence, degrees) * error
    p = float(2 * scipy.special.stdtr(degrees, -abs(mean) / error))
    return {
        "mean": mean,
        "low": mean - half,
        "high": mean + half,
        "sd": math.sqrt(variance),
        "p": p,
        "n": n,
        "paired": bool(common),
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given (Holm 1979): rejecting those below alpha keeps the chance of any
    false rejection below alpha, however the tests depend on each other.

    By hand: scipy 1.17 has `false_discovery_control`, which bounds the share of false rejections, a weaker promise.

    Raises:
        BadOption: a value outside [0, 1].
    """
    values = _finite("Holm's correction", p_values)
    if ((values < 0) | (values > 1)).any():
        raise BadOption(f"p values lie in [0, 1], and these are {list(p_values)}")
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(p) for p in adjusted]


def detectable(sd: float, n: int, *, paired: bool, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """The true difference whose sign a two-sided t test at level `alpha` finds with probability `power`.

    Args:
        sd: standard deviation of a difference of two single runs, as `difference` gives it.
        n: pairs or, unpaired, values on each side.
        paired: n - 1 degrees of freedom, or 2n - 2: Welch's test has these at most, where both sides vary alike.
        alpha: level of the one test, in (0, 1); divide it first where several are made.
        power: in (alpha, 1).

    Returns:
        The difference, at least 0, in the unit of `sd`; None where n is below 2.

    Raises:
        BadOption: a negative or infinite `sd`, or shares outside their ranges.
    """
    _check_share("alpha", alpha)
    _check_share("power", power)
    if power <= alpha:
        raise BadOption(f"a power of {power} is had without any difference at alpha {alpha}: ask for more than alpha")
    if not (math.isfinite(sd) and sd >= 0):
        raise BadOption(f"a standard deviation of {sd}: it must be finite and not negative")
    return None if n < 2 else sd / math.sqrt(n) * _standard_detectable(n - 1 if paired else 2 * n - 2, alpha, power)


def typical_sd(spreads: Sequence[tuple[float, int]]) -> float:
    """The standard deviation of a typical group: robust against a few groups that spread far more.

    The median of variances, each divided by the median that a variance of 1 would have with its degrees of freedom
    (chi-squared / degrees), for a variance of few values lies below the true one more often than above. Fewer than
    three groups have no median to speak of, and are pooled.

    Args:
        spreads: standard deviation and degrees of freedom, >= 1, of each group; at least one.

    Example:
        >>> round(typical_sd([(0.83, 2), (0.83, 2), (40.0, 2)]), 2)
        1.0
    """
    from scipy.stats import chi2

    if len(spreads) < 3:
        return math.sqrt(sum(sd**2 * degrees for sd, degrees in spreads) / sum(degrees for _, degrees in spreads))
    return math.sqrt(float(np.median([sd**2 * degrees / chi2.median(degrees) for sd, degrees in spreads])))


def ranks(blocks: Sequence[Mapping[str, float]], groups: Sequence[str], alpha: float = 0.05) -> Ranks:
    """Mean ranks over groups, Friedman's test and Nemenyi's critical difference (Demsar 2006, JMLR 7).

    Both tests need independent data sets. Blocks of one group (budgets of one task) share their data and would be
    counted as evidence several times, so their ranks are averaged first and each group counts once.

    Args:
        blocks: for each block, name -> value; a larger value is better, equal ones share their mean rank.
        groups: for each block, the group it belongs to.
        alpha: level of the critical difference, in (0, 1).

    Returns:
        `mean_rank` in the order of the first block; `friedman_p` (by the chi-squared approximation, a rough one below
        ten groups) and `critical_difference` are None below three names or two groups.

    Raises:
        BadOption: no block, blocks with different names, or a value that is not finite.
    """
    _check_share("alpha", alpha)
    if not blocks or len(blocks) != len(groups) or any(block.keys() != blocks[0].keys() for block in blocks):
        raise BadOption("ranks need at least one block, a group for each, and the same names in all of them")
    names = list(blocks[0])
    table = np.array([_finite("ranks", [block[name] for name in names]) for block in blocks])
    # Means that differ by the order of a sum alone are ties.
    by_block = scipy.stats.rankdata(-np.round(table, 12), axis=1)
    by_group = np.array([by_block[[g == group for g in groups]].mean(axis=0) for group in dict.fromkeys(groups)])
    mean_rank = {name: float(rank) for name, rank in zip(names, by_group.mean(axis=0), strict=True)}
    n, k = by_group.shape
    if n < 2 or k < 3:
        return {"mean_rank": mean_rank, "friedman_p": None, "critical_difference": None}
    all_tied = bool((by_group == by_group[:, :1]).all())  # 0 / 0 in Friedman's statistic
    friedman_p = 1.0 if all_tied else float(scipy.stats.friedmanchisquare(*by_group.T).pvalue)
    studentized = float(scipy.stats.studentized_range.ppf(1 - alpha, k, np.inf))
    critical = studentized / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n))
    return {"mean_rank": mean_rank, "friedman_p": friedman_p, "critical_difference": critical}


def sampling_error(accuracy: float, n_test: int, confidence: float = 0.95) -> float:
    """Half the width of Wilson's interval for one accuracy: what the size of the test set alone leaves open.

    The t tests over seeds hold the test set fixed and know nothing of this. It bounds what an accuracy says about
    samples nobody has seen; a difference of two pruners on the same samples varies less than two such accuracies,
    because both meet the same hard samples.

    Args:
        accuracy: in [0, 1]; a mean over seeds does, no whole number of samples is needed.
        n_test: number of test samples, at least 1.
        confidence: in (0, 1).

    Raises:
        BadOption: a number outside its range.
    """
    _check_share("confidence", confidence)
    if not 0 <= accuracy <= 1 or n_test < 1:
        raise BadOption(f"accuracy {accuracy} over {n_test} samples: it lies in [0, 1], over at least one sample")
    z = float(scipy.special.ndtri((1 + confidence) / 2))
    return z / (1 + z**2 / n_test) * math.sqrt(accuracy * (1 - accuracy) / n_test + z**2 / (4 * n_test**2))


def _check_share(what: str, value: float) -> None:
    if not 0 < value < 1:
        raise BadOption(f"{what} {value}: it lies between 0 and 1, both excluded")


def _finite(what: str, values: Sequence[float]) -> np.ndarray:
    numbers = np.asarray(values, dtype=float)
    if not np.isfinite(numbers).all():
        raise BadOption(f"{what} over {list(values)}: every value must be finite; leave out the run that has none")
    return numbers


def _moments(values: np.ndarray) -> tuple[float, float]:
    # Shifted by the first value: equal values then have exactly their value as mean, and a variance of exactly 0.
    shifted = values - values[0]
    variance = float(shifted.var(ddof=1)) if len(values) > 1 else math.nan
    return float(values[0] + shifted.mean()), variance


def _quantile(confidence: float, degrees: float) -> float:
    return float(scipy.special.stdtrit(degrees, (1 + confidence) / 2))


@lru_cache(maxsize=256)
def _standard_detectable(degrees: int, alpha: float, power: float) -> float:
    # In standard errors. Only rejections on the right side count; the other tail is below alpha / 2 and falls with the
    # difference, and scipy 1.17's nct.cdf is NaN there at the very points three seeds lead to (2 degrees, 0.05 / 9).
    critical = -float(scipy.special.stdtrit(degrees, alpha / 2))

    def lacking(shift: float) -> float:
        return float(scipy.stats.nct.sf(critical, degrees, shift)) - power

    above = critical + 1.0
    while lacking(above) < 0:
        above *= 2
    return float(scipy.optimize.brentq(lacking, 0, above))
