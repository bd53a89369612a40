import pytest

from snnsl_plugin.core.schedules.cosine import cosine


def test_a_quarter_of_the_way_by_hand() -> None:
    schedule = cosine(first=0.4, last=0.0)
    assert schedule(0.0) == 0.4
    assert schedule(0.25) == pytest.approx(0.341421356237, abs=1e-12)
    assert schedule(1.0) == 0.0
