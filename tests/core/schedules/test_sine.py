import pytest

from snnsl_plugin.core.schedules.sine import sine


def test_a_quarter_of_the_way_by_hand() -> None:
    schedule = sine(first=0.0, last=2.0)
    assert schedule(0.0) == 0.0
    assert schedule(0.25) == pytest.approx(0.292893218813, abs=1e-12)
    assert schedule(1.0) == 2.0
