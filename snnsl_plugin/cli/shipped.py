"""`snnsl ls`, `snnsl cat`, `snnsl cp`: the recipes that travel with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from snnsl_plugin.cli.arguments import Json
from snnsl_plugin.errors import UsageError
from snnsl_plugin.recipe import catalog

Name = Annotated[str, typer.Argument(help="The name of a shipped recipe (snnsl ls).")]


def ls(as_json: Json = False) -> None:
    """List the shipped recipes."""
    found = {name: catalog.summary(name) for name in catalog.names()}
    if as_json:
        print(json.dumps([{"name": name, "summary": summary} for name, summary in found.items()], indent=1))
        return
    width = max(map(len, found), default=0)
    for name, summary in found.items():
        print(f"{name:{width}}  {summary}")


def cat(name: Name) -> None:
    """Print a shipped recipe."""
    print(catalog.read(name), end="")


def cp(name: Name, destination: Annotated[Path, typer.Argument(help="A new file, or a folder.")]) -> None:
    """Copy a shipped recipe, to change it. Nothing is overwritten."""
    text = catalog.read(name)
    target = destination / catalog.path(name).name if destination.is_dir() else destination
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{target}: there is such a file already; give another name") from None
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror or error}") from None
    print(target)
