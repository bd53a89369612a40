import pytest

from snnsl_plugin.core.schedules.linear import linear


def test_a_quarter_of_the_way_by_hand() -> None:
    schedule = linear(first=1.0, last=0.2)
    assert schedule(0.0) == 1.0
    assert schedule(0.25) == pytest.approx(0.8, abs=1e-12)
    assert schedule(1.0) == 0.2
