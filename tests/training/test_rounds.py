import math
from itertools import pairwise

import pytest

from snnsl_plugin.training.rounds import Rounds


def test_three_rounds_by_hand() -> None:
    # To the nearest, 4 goes into 10 steps 2 times: prunings at 3 + 5 and 3 + 10.
    when = Rounds(start=3, until=13, every=4)
    assert when.times == 2
    assert [step for step in range(1, 21) if when.due(step)] == [3, 8, 13]
    assert [when.last_due(step) for step in (2, 3, 7, 8, 12, 13, 20)] == [None, 3, 3, 8, 8, 13, 13]
    assert [when.progress(step) for step in (1, 3, 7, 8, 12, 13, 20)] == [0.0, 0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    # The first round has 8 steps, then each begins at 3 again; the last has 7 of its own.
    assert [when.position(step, 20) for step in (0, 3, 7, 8, 12, 13, 19, 20)] == [
        0.0, 3 / 8, 7 / 8, 3 / 8, 7 / 8, 3 / 10, 9 / 10, 1.0
    ]  # fmt: skip
    assert [when.position(step, None) for step in (13, 17, 18, 25)] == [3 / 8, 7 / 8, 1.0, 1.0]


def test_the_prunings_are_those_of_a_slow_count_and_no_short_round_is_left() -> None:
    for start in (0, 2):
        for span in range(1, 40):
            for every in range(1, span + 3):
                when = Rounds(start, start + span, every)
                times = max(1, math.floor(span / every + 0.5) if (span / every) % 1 != 0.5 else round(span / every))
                ends = [start + math.floor(span * i / times) for i in range(times + 1)]
                assert [step for step in range(start + span + 5) if when.due(step)] == ends
                assert [when.progress(step) for step in ends] == [i / times for i in range(times + 1)]
                lengths = [b - a for a, b in pairwise(ends)]
                assert max(lengths) - min(lengths) <= 1


def test_every_round_ends_where_the_schedule_ends() -> None:
    when = Rounds(start=5, until=85, every=20)
    positions = [when.position(step, 105) for step in range(105)]
    for first in (0, 25, 45, 65, 85):
        last = 25 if first == 0 else first + 20
        assert positions[last - 1] == pytest.approx(24 / 25)
        assert all(a < b for a, b in zip(positions[first:last], positions[first + 1 : last], strict=False))
