import pytest

from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.duration import steps


def test_by_hand() -> None:
    assert steps("100it") == 100
    assert steps("2ep", steps_per_epoch=30) == 60
    assert steps("80%", total_steps=253) == 202
    assert steps("12.5%", total_steps=8) == 1
    assert steps("100%", total_steps=7) == 7


@pytest.mark.parametrize("wrong", ["80", "101%", "-1it", "2 ep", "1e3it", "", 80])
def test_another_form_is_refused_with_the_three_right_ones(wrong: str) -> None:
    with pytest.raises(BadOption, match="is not a duration: write steps as '100it', epochs as '2ep', a share as '80%'"):
        steps(wrong, total_steps=10, steps_per_epoch=10)


def test_a_unit_without_its_reference_says_what_to_pass() -> None:
    with pytest.raises(BadOption, match="pass steps_per_epoch"):
        steps("2ep")
    with pytest.raises(BadOption, match="pass total_steps"):
        steps("50%")
