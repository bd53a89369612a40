"""The recipes that travel with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from snnsl_plugin.errors import UnknownName


def folder() -> Path:
    """Where they lie: inside the installed package, or at the top of a checkout."""
    package = Path(str(files("snnsl_plugin")))
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def names() -> list[str]:
    """All names, sorted: `digits`, `bench/cifar100`, ..."""
    return sorted(path.relative_to(folder()).with_suffix("").as_posix() for path in folder().rglob("*.yaml"))


def path(name: str) -> Path:
    """The file of a name; a trailing `.yaml` may be there or not.

    Raises:
        UnknownName: with the nearest known name.
    """
    word = name.removesuffix(".yaml")
    if word not in names():
        raise UnknownName("recipe", name, names())
    return folder() / f"{word}.yaml"


def read(name: str) -> str:
    """The text of a shipped recipe.

    Raises:
        UnknownName: with the nearest known name.
    """
    return path(name).read_text(encoding="utf-8")


def summary(name: str) -> str:
    """The first line of its first comment."""
    first = next((line for line in read(name).splitlines() if line.startswith("#")), "")
    return first.lstrip("# ").strip()
