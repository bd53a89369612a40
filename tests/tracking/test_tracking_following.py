from __future__ import annotations

import logging
from pathlib import Path

import pytest

from snnsl_plugin.tracking.following import new_lines
from snnsl_plugin.tracking.journal import Journal


def _steps(path: Path, offset: int, tail: str) -> tuple[list[int], int, str]:
    lines = new_lines(path, offset, tail)
    events = list(lines.events())
    end = events[-1][0] if events else offset
    return [event["step"] for _, event in events], end, lines.tail(end)


def test_each_line_comes_once_while_the_journal_grows(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    assert _steps(path, 0, "")[0] == []
    with Journal(path) as journal:
        journal.write("epoch", 1)
        journal.write("epoch", 2)
        steps, end, tail = _steps(path, 0, "")
        assert (steps, end) == ([1, 2], journal.offset)
        assert _steps(path, end, tail)[0] == []
        journal.write("epoch", 3, note="x" * 100_000)  # longer than the tail that is compared
        steps, end, tail = _steps(path, end, tail)
        assert steps == [3]
        journal.write("epoch", 4)
        assert _steps(path, end, tail)[0] == [4]


def test_a_line_that_is_still_being_written_waits(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    with Journal(path) as journal:
        journal.write("epoch", 1)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-1])
    steps, end, tail = _steps(path, 0, "")
    assert (steps, end) == ([1], len(whole))
    path.write_bytes(whole + whole)
    assert _steps(path, end, tail)[0] == [1]


@pytest.mark.parametrize("again", [1, 2, 9])
def test_a_journal_that_was_cut_back_is_read_from_its_beginning_however_long_it_is_by_now(
    tmp_path: Path, again: int
) -> None:
    path = tmp_path / "m.jsonl"
    with Journal(path) as journal:
        journal.write("epoch", 0)
        offset = journal.offset
        journal.write("epoch", 1)
        journal.write("epoch", 2)
    _, end, tail = _steps(path, 0, "")
    with Journal(path, offset) as journal:
        for step in range(1, again + 1):
            journal.write("epoch", step)
    assert new_lines(path, end, tail).rewound
    assert _steps(path, end, tail)[0] == list(range(again + 1))


def test_a_damaged_line_is_named_and_the_others_come(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "m.jsonl"
    with Journal(path) as journal:
        journal.write("epoch", 1)
    path.write_bytes(b"}{\n" + path.read_bytes())
    with caplog.at_level(logging.WARNING):
        assert _steps(path, 0, "")[0] == [1]
    assert "byte 0: not a line of a journal" in caplog.text
