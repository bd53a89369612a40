import pytest

from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.timetable import Timetable


def test_updates_by_hand() -> None:
    when = Timetable(start=3, until=16, every=5)
    assert [step for step in range(1, 21) if when.due(step)] == [3, 8, 13, 16]
    assert [when.last_due(step) for step in (2, 3, 7, 8, 15, 16, 20)] == [None, 3, 3, 8, 13, 16, 16]
    assert [when.progress(step) for step in (1, 3, 16, 20)] == [0.0, 0.0, 1.0, 1.0]
    assert when.progress(8) == 5 / 13


def test_durations_become_steps() -> None:
    when = Timetable.of(start="1ep", until="80%", every="10it", total_steps=200, steps_per_epoch=20)
    assert when == Timetable(20, 160, 10)


def test_there_is_always_an_update_at_the_end_and_never_after_it() -> None:
    for every in range(1, 12):
        when = Timetable(0, 11, every)
        due = [step for step in range(1, 30) if when.due(step)]
        assert due[-1] == 11
        assert all(step % every == 0 for step in due[:-1])


@pytest.mark.parametrize(("wrong", "words"), [
    ({"every": "0it"}, "every='0it' must be at least one step"),
    ({"start": "8it"}, r"until='8it' \(step 8\) must come after start='8it'"),
    ({"until": "11it"}, "is step 11, after the end of the training at step 10"),
    ({"until": "2ep"}, "pass steps_per_epoch"),
])  # fmt: skip
def test_an_order_that_cannot_be_is_a_sentence(wrong: dict[str, str], words: str) -> None:
    with pytest.raises(BadOption, match=words):
        Timetable.of(**({"start": "0it", "until": "8it", "every": "1it", "total_steps": 10} | wrong))
