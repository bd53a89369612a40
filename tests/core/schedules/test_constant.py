import pytest

from snnsl_plugin.core.schedules.constant import constant


def test_a_quarter_of_the_way_by_hand() -> None:
    schedule = constant(value=0.3)
    assert schedule(0.0) == 0.3
    assert schedule(0.25) == pytest.approx(0.3, abs=1e-12)
    assert schedule(1.0) == 0.3
