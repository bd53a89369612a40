"""The course of a row: which runs it asks for, and what it makes of those that fail."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from snnsl_plugin.comparison.courses import course
from snnsl_plugin.comparison.entrants import Entrant
from snnsl_plugin.comparison.strengths import SEARCH_TOLERANCE, Search

CUT_OFF = "layer 'conv1' would keep none of its 288 weights"


def row_of(budget: float, first: float) -> SimpleNamespace:
    """A row of single weights whose share is the outcome of a threshold."""
    return SimpleNamespace(
        name="stds", kind="unstructured", seeds=[3, 4], search=Search(budget, first, bounded=False), strength=None,
        budget=SimpleNamespace(kind="density", value=budget), error=None, epochs=None,
        compare=SimpleNamespace(seconds=None), run_name=lambda seed: f"stds-s{seed}",
        recipe=lambda seed, value=None, epochs=None: (seed, value),
        entrant=Entrant("stds", {"type": "snnsl.stds"}),
    )  # fmt: skip


def followed(row: SimpleNamespace, root: Path, share) -> tuple[list[float], list[str]]:
    """Plays the trainings of a course: the thresholds of its search, and the names of the runs that count."""
    going, failures, values = course(row, row, lambda name: root / name), None, []
    while True:
        runs = going.send(failures)
        if runs[0].turn:
            return values, [run.name for run in runs]
        failures = {}
        for run in runs:
            value = run.recipe[1]
            values.append(value)
            if (left := share(value)) is None:
                failures[run.name] = CUT_OFF
            else:
                (root / run.name).mkdir()
                result = {"status": "finished", "density": {"weights": {"achieved": left}}}
                (root / run.name / "result.json").write_text(json.dumps(result), encoding="utf-8")


def test_a_search_goes_on_where_a_training_failed_for_nothing_was_left(tmp_path):
    row = row_of(0.02, 0.1)
    values, counted = followed(row, tmp_path, lambda value: None if value > 0.4 else 0.6 * math.exp(-9.4 * value))
    assert any(value > 0.4 for value in values)  # it went too far once
    assert (row.error, row.strength.missed, row.strength.runs) == (None, False, len(values))
    assert 0.6 * math.exp(-9.4 * row.strength.value) == pytest.approx(0.02, rel=SEARCH_TOLERANCE)
    assert counted == ["stds-s3", "stds-s4"]


def test_a_search_whose_first_training_fails_is_the_rows_failure(tmp_path):
    row = row_of(0.02, 0.5)
    with pytest.raises(StopIteration):
        followed(row, tmp_path, lambda value: None)
    assert (row.error, row.strength) == (CUT_OFF, None)


def test_a_value_that_failed_is_never_the_best(tmp_path):
    row = row_of(0.02, 0.1)
    followed(row, tmp_path, lambda value: None if value > 0.11 else 0.9)
    assert row.strength.missed
    assert row.strength.value <= 0.11
