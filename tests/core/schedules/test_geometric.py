import math

import pytest

from snnsl_plugin.core.schedules.geometric import geometric
from snnsl_plugin.errors import BadOption


def test_each_third_of_the_way_leaves_a_half_by_hand() -> None:
    schedule = geometric(first=0.8, last=0.1)
    assert [schedule(done / 3) for done in range(4)] == pytest.approx([0.8, 0.4, 0.2, 0.1], abs=1e-12)


def test_with_a_ratio_the_share_that_is_gone_is_that_of_a_density() -> None:
    gone = geometric(first=0.0, last=1.0, ratio=0.05)
    for done in (0.0, 0.2, 0.55, 0.9, 1.0):
        density = math.exp(done * math.log(0.05))  # geometric from 1 to 0.05
        assert 1.0 - 0.95 * gone(done) == pytest.approx(density, abs=1e-12)


def test_an_end_at_zero_has_a_ratio_of_its_own() -> None:
    for first, last in ((0.0, 1.0), (1.0, 0.0)):
        one, other = geometric(first=first, last=last), geometric(first=first, last=last, ratio=0.05)
        assert one(0.4) == other(0.4)


def test_ends_that_are_equal_stay_and_a_ratio_of_one_is_a_line() -> None:
    assert geometric(first=0.3, last=0.3)(0.4) == 0.3
    assert geometric(first=0.0, last=1.0, ratio=1.0)(0.25) == 0.25


@pytest.mark.parametrize(("options", "words"), [
    ({"first": 1.0, "last": float("inf")}, "last=inf is not a finite number"),
    ({"first": 1.0, "last": 0.5, "ratio": 0.0}, "ratio=0"),
    ({"first": 1.0, "last": 0.5, "ratio": float("nan")}, "ratio=nan"),
])  # fmt: skip
def test_ends_and_ratios_that_are_none_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(BadOption, match=words):
        geometric(**options)
