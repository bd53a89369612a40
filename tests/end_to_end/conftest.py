"""Tiny real runs: the shipped digits recipe with a small network, so that a whole run takes a second or two."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snnsl_plugin.recipe.load import load
from snnsl_plugin.recipe.schema import Recipe

TINY = [
    "train.epochs=2",
    "train.optimizer.lr=0.02",
    "model.channels=[4, 8]",
    "model.hidden=16",
    "model.v_threshold=0.5",
    "data.encoder.T=2",
    "dense_baseline=false",
    "threads=1",
    "tracking.mlflow=false",
]
#: the fields that may differ between two runs of one recipe
VARYING = ("wall_s", "seconds_per_epoch", "peak_memory_mib", "mlflow_run_id", "versions")


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Recipe]:
    """The tiny recipe; what is given is laid over it."""
    return lambda *changes: load("digits", merged(changes))


@pytest.fixture(scope="session")
def tiny_words() -> Callable[..., list[str]]:
    """The overrides of the tiny recipe as words of a command line; those given replace those of the same key."""
    return lambda *changes: merged(changes)


@pytest.fixture(scope="session")
def comparable() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A result without what may differ on repetition, inside "dense" too."""

    def without(result: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in copy.deepcopy(result).items() if key not in VARYING}
        return kept | {"dense": without(kept["dense"])} if kept.get("dense") else kept

    return without


@pytest.fixture(scope="session")
def journal_lines() -> Callable[[Path], list[dict[str, Any]]]:
    """The lines of a journal without clock times and the state of the machine."""

    def lines(path: Path) -> list[dict[str, Any]]:
        read = [json.loads(line) for line in path.read_text().splitlines()]
        for line in read:
            del line["time"]
            line["metrics"] = {
                name: value
                for name, value in line["metrics"].items()
                if name != "seconds" and not name.startswith("system/")
            }
        return read

    return lines


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports take longer to draw than tiny networks to train."""
    monkeypatch.setattr("snnsl_plugin.recipe.report.write", lambda run_dir: None)


def merged(changes: tuple[str, ...]) -> list[str]:
    keys = {change.partition("=")[0] for change in changes}
    return [word for word in TINY if not any(overlap(word.partition("=")[0], key) for key in keys)] + list(changes)


def overlap(one: str, other: str) -> bool:
    """Whether one key is the other or lies below it."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
