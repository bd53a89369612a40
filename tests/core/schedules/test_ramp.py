import pytest

from snnsl_plugin.core.schedules._ramp import ramp
from snnsl_plugin.errors import BadOption


def test_the_last_value_is_exact_where_addition_would_round() -> None:
    assert 1.0 + (0.1 - 1.0) != 0.1
    assert ramp(1.0, 0.1, lambda done: done)(1.0) == 0.1


def test_an_end_that_is_not_finite_is_refused_with_its_value() -> None:
    with pytest.raises(BadOption, match="last=nan is not a finite number"):
        ramp(0.0, float("nan"), lambda done: done)
