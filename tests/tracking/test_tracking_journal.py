from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from snnsl_plugin.errors import BadCheckpoint, BadData, BadOption
from snnsl_plugin.tracking.journal import Journal, read


def _journal(path: Path, steps: range) -> Journal:
    journal = Journal(path)
    for step in steps:
        journal.write("epoch", step, {"loss": 1.0})
    return journal


def test_a_line_holds_time_event_step_metrics_and_facts(tmp_path: Path) -> None:
    before = time.time()
    with Journal(tmp_path / "new" / "metrics.jsonl") as journal:
        journal.write("started", 0, dataset={"name": "digits"}, folder=Path("x"))
        journal.write("epoch", 1, {"accuracy/validation": 0.5}, seconds=2.0)
    first, second = (tmp_path / "new" / "metrics.jsonl").read_text().splitlines()
    line = json.loads(first)
    assert before <= line.pop("time") <= time.time()
    assert line == {"event": "started", "step": 0, "metrics": {}, "dataset": {"name": "digits"}, "folder": "x"}
    line = json.loads(second)
    assert list(line) == ["time", "event", "step", "metrics", "seconds"]
    assert line["metrics"] == {"accuracy/validation": 0.5}


def test_a_line_can_be_read_by_others_before_the_journal_is_closed(tmp_path: Path) -> None:
    with _journal(tmp_path / "m.jsonl", range(2)):
        assert [event["step"] for event in read(tmp_path / "m.jsonl")] == [0, 1]


def test_numbers_that_are_not_finite_keep_the_file_strict_json_and_come_back(tmp_path: Path) -> None:
    with Journal(tmp_path / "m.jsonl") as journal:
        journal.write("epoch", 1, {"a": math.nan, "b": math.inf, "c": -math.inf}, worst=[math.inf, {"d": math.nan}])

    def refuse(word: str) -> None:
        raise AssertionError(word)

    line = json.loads((tmp_path / "m.jsonl").read_text(), parse_constant=refuse)
    assert line["metrics"] == {"a": "nan", "b": "inf", "c": "-inf"}
    assert line["worst"] == ["inf", {"d": "nan"}]
    metrics = next(read(tmp_path / "m.jsonl"))["metrics"]
    assert math.isnan(metrics["a"])
    assert (metrics["b"], metrics["c"]) == (math.inf, -math.inf)


def test_numpy_scalars_and_arrays_are_written_as_plain_numbers(tmp_path: Path) -> None:
    with Journal(tmp_path / "m.jsonl") as journal:
        journal.write("epoch", np.int64(3), {"a": np.float32(0.5)}, shape=np.array([2, 3]), kept=np.int64(7))
    line = json.loads((tmp_path / "m.jsonl").read_text())
    assert (line["step"], line["metrics"], line["shape"], line["kept"]) == (3, {"a": 0.5}, [2, 3], 7)


def test_the_offset_counts_the_bytes_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    with Journal(path) as journal:
        assert journal.offset == 0
        journal.write("epoch", 1, note="ä")
        assert journal.offset == path.stat().st_size
    with Journal(path) as journal:
        assert journal.offset == path.stat().st_size


def test_a_resumed_run_cuts_what_came_after_its_checkpoint_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    with _journal(path, range(3)) as journal:
        offset = journal.offset
        journal.write("epoch", 3)
    with path.open("ab") as file:
        file.write(b'{"time": 1, "eve')
    with Journal(path, offset) as journal:
        assert journal.offset == offset
        journal.write("epoch", 30)
    assert [event["step"] for event in read(path)] == [0, 1, 2, 30]


def test_offset_zero_starts_the_journal_again(tmp_path: Path) -> None:
    _journal(tmp_path / "m.jsonl", range(3)).close()
    Journal(tmp_path / "m.jsonl", 0).close()
    assert (tmp_path / "m.jsonl").read_bytes() == b""


def test_without_an_offset_only_a_half_written_last_line_goes(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    _journal(path, range(2)).close()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    assert [event["step"] for event in read(path)] == [0, 1]
    with Journal(path) as journal:
        journal.write("epoch", 2)
    assert [event["step"] for event in read(path)] == [0, 1, 2]


@pytest.mark.parametrize(("offset", "says"), [(10_000, "counts 10000 bytes"), (-1, "counts -1"), (5, "byte 5")])
def test_an_offset_that_does_not_fit_the_file_is_an_error_and_the_file_stays(
    tmp_path: Path, offset: int, says: str
) -> None:
    path = tmp_path / "m.jsonl"
    _journal(path, range(2)).close()
    before = path.read_bytes()
    with pytest.raises(BadCheckpoint, match=says):
        Journal(path, offset)
    assert path.read_bytes() == before


def test_a_damaged_line_before_the_last_is_an_error_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    _journal(path, range(1)).close()
    path.write_bytes(b"}{\n" + path.read_bytes())
    with pytest.raises(BadData, match=r"m\.jsonl:1: not a line of a journal"):
        list(read(path))


@pytest.mark.parametrize(
    ("metrics", "facts", "says"),
    [
        ({"a": "high"}, {}, "high"),
        ({"a": None}, {}, "NoneType"),
        ({}, {"x": object()}, "object"),
        ({}, {"time": 1}, "time"),
    ],
)
def test_what_json_cannot_hold_is_refused_and_leaves_no_half_line(
    tmp_path: Path, metrics: dict, facts: dict, says: str
) -> None:
    with _journal(tmp_path / "m.jsonl", range(1)) as journal:
        before = journal.offset
        with pytest.raises(BadOption, match=says):
            journal.write("epoch", 1, metrics, **facts)
        assert journal.offset == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file")
def test_a_disk_that_is_full_is_an_error_with_the_file_and_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    code = """
import errno, resource, sys
from pathlib import Path
from snnsl_plugin.tracking.journal import Journal
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # the 1001st byte is refused, as by a full disk
with Journal(Path(sys.argv[1])) as journal:
    try:
        for step in range(100):
            journal.write("epoch", step, {"loss": 1.0})
    except OSError as error:
        assert (error.errno, error.filename) == (errno.EFBIG, sys.argv[1]), error
        print(step, journal.offset)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    steps, offset = map(int, done.stdout.split())
    assert 0 < steps < 100
    assert offset == path.stat().st_size
    with Journal(path) as journal:  # room was made
        journal.write("epoch", steps)
    assert [event["step"] for event in read(path)] == list(range(steps + 1))
