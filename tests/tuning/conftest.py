"""Tiny studies of the digits, as commands of their own, and a PostgreSQL server of the tests' own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgresql_server import server
from study_process import RECIPE, Study


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def start(recipe: Path, tmp_path: Path) -> Iterator[Callable[..., Study]]:
    """Starts a study of the tiny recipe; the name is that of its folder."""
    begun: list[Study] = []

    def starting(name: str, *words: str, recipe: Path = recipe, **environment: str) -> Study:
        begun.append(Study(recipe, tmp_path / name, *words, **environment))
        return begun[-1]

    yield starting
    for each in begun:
        each.kill()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[..., str]]:
    """Gives the URL of a fresh database on a server of the tests' own."""
    try:
        with server() as fresh:
            yield fresh
    except FileNotFoundError as error:
        pytest.skip(str(error))
