"""An evolution in MLflow: one parent run, and a run below it for each candidate of each generation."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from snnsl_plugin.tracking.family import members

PLACES = [f"generation-{generation}/candidate-{number}" for generation in (0, 1) for number in range(generation + 1)]


@pytest.fixture
def evolution(run_folder: Callable) -> SimpleNamespace:
    """Two generations, of which the last candidate is under way."""
    whole = run_folder("evolution")
    for generation in (0, 1):
        whole.journal.write("generation", generation, {"accuracy/validation": 0.9, "connections": 100.0})
    candidates = {place: run_folder(f"evolution/{place}") for place in PLACES}
    for place, each in candidates.items():
        each.epochs(range(2))
        if place != PLACES[-1]:
            each.result("finished")
    return SimpleNamespace(path=whole.path, whole=whole, candidates=candidates)


def test_a_member_for_each_candidate_below_the_evolution(evolution: SimpleNamespace) -> None:
    found = members(evolution.path)
    assert [each.name for each in found] == ["evolution", *(f"evolution/{place}" for place in PLACES)]
    assert [each.above for each in found[1:]] == [evolution.path] * len(PLACES)


def test_an_evolution_is_a_run_with_its_candidates_below_it(
    evolution: SimpleNamespace, mlflow_process: Callable
) -> None:
    with evolution.whole.lock:
        assert mlflow_process("sync", evolution.path)
        parent = mlflow_process.run(evolution.path)
        found = {place: mlflow_process.run(each.path) for place, each in evolution.candidates.items()}
    assert parent["status"] == "RUNNING"
    assert parent["steps"] == {"accuracy/validation": [0, 1], "connections": [0, 1]}
    assert [each["status"] for each in found.values()] == ["FINISHED", "FINISHED", "RUNNING"]
    assert all(each["tags"]["mlflow.parentRunId"] == parent["id"] for each in found.values())
    assert {each["tags"]["mlflow.runName"] for each in found.values()} == {f"evolution/{place}" for place in PLACES}
