import pytest

from snnsl_plugin.core.schedules.cubic import cubic


def test_a_quarter_of_the_way_by_hand() -> None:
    schedule = cubic(first=1.0, last=0.2)
    assert schedule(0.0) == 1.0
    assert schedule(0.25) == pytest.approx(0.5375, abs=1e-12)
    assert schedule(1.0) == 0.2
