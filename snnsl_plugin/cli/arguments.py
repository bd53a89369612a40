"""The arguments and flags that several verbs share."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from snnsl_plugin.errors import BadOption, UnknownName

Recipe: TypeAlias = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one (snnsl ls).")]
Overrides: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Changes, e.g. train.epochs=3.")
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON alone to stdout.")]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Verbose: TypeAlias = Annotated[bool, typer.Option("--verbose", "-v", help="Log messages, and tracebacks.")]
Model: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="PACKAGE.MODULE:FUNCTION",
        help="A network of your own instead of the recipe's: function(input_shape, classes) gives a module from "
        "(T, N, ...) to (T, N, classes). Imports and runs that code, from the current folder or installed.",
    ),
]
DataSource: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME[:PATH]",
        help="Another data set instead of the recipe's, e.g. image_folder:PATH, event_folder:PATH, cifar100:PATH or "
        "digits; its options as data.KEY=VALUE.",
    ),
]

#: Side in pixels of the pictures of `--data image_folder:PATH` where no `data.size` is given.
SIZE = 32


def own(model: str | None, data: str | None, *, recipe: str | None = None, overrides: Sequence[str] = ()) -> list[str]:
    """What the flags `--model` and `--data` change in a recipe, as further overrides; each replaces its block whole.

    `--model` is the user's word that this code may be imported: it is permitted in this process from here on. A recipe
    that names the same network with its source, as that of a run folder does, is left as it is, so that its run can go
    on, or is refused where the code has changed since.

    Args:
        model: the value of `--model`; None where it was not given.
        data: the value of `--data`; None where it was not given.
        recipe: the recipe that is changed, a file or a shipped name.
        overrides: the user's own; what they give of the data's options is not added again.

    Returns:
        Overrides to append to the user's, e.g. `["~data", 'data.name="digits"']`; none without flags.

    Raises:
        BadOption: a malformed value, a network that cannot be imported, a data set without a folder or with options
            that are required and missing.
        UnknownName: no such data set.
    """
    given = {text.partition("=")[0] for text in overrides}
    found: list[str] = []
    if model is not None:
        from snnsl_plugin.models._permission import permit
        from snnsl_plugin.models._target import source_of

        permit(model)
        if recipe is None or not _named(model, recipe, overrides):
            block = {"name": "imported", "target": model, "source": source_of(model)}
            found += _block("model", block, given)
    if data is not None:
        found += _block("data", _data(data, given), given)
    return found


def _block(key: str, values: dict[str, Any], given: set[str]) -> list[str]:
    # JSON is YAML, and quotes what YAML would take for something else: a source of digits only, a path with a colon.
    written = {f"{key}.{option}": json.dumps(value, ensure_ascii=False) for option, value in values.items()}
    return [f"~{key}", *(f"{path}={value}" for path, value in written.items() if path not in given)]


def _named(model: str, recipe: str, overrides: Sequence[str]) -> bool:
    from snnsl_plugin.recipe.load import resolve

    block = resolve(recipe, overrides).data.get("model")
    return isinstance(block, dict) and block.get("target") == model and block.get("source") is not None


def _data(data: str, given: set[str]) -> dict[str, Any]:
    from snnsl_plugin import registry
    from snnsl_plugin.recipe.docstrings import options as described

    name, colon, path = data.partition(":")
    if name not in registry.names("datasets"):
        raise UnknownName("data set", name, registry.names("datasets"))
    options = registry.options("datasets", name)
    values: dict[str, Any] = {"name": name}
    if colon and "root" not in options:
        raise BadOption(f"--data {data}: {name} is not read from a folder of yours: write --data {name}")
    if colon and not path:
        raise BadOption(f"--data {data}: the folder is missing: write --data {name}:PATH")
    if colon:
        values["root"] = path
    if name == "image_folder":
        values["size"] = SIZE
    for option, parameter in options.items():
        if parameter.default is not parameter.empty or option in values or f"data.{option}" in given:
            continue
        if option == "root":
            raise BadOption(f"--data {data}: {name} needs a folder: write --data {name}:PATH")
        says = described(registry.get("datasets", name)).get(option, "it has no default")
        raise BadOption(f"--data {data}: {name} needs {option} as well: add data.{option}=VALUE ({says.rstrip('.')})")
    return values


def name_of(recipe: Path) -> str:
    """What the run is called: like its recipe file, or, for the recipe in a run folder, like that run."""
    from snnsl_plugin.recipe import folder

    held = folder.identity(recipe.parent) if recipe.name == folder.RECIPE else None
    return str(held["name"]) if held else recipe.stem


def started_with() -> list[str]:
    """The words that started this command, as far as a user would repeat them."""
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1") if "RANK" in os.environ else "1"
    return ["snnsl"] if processes == "1" else ["torchrun", "--nproc-per-node", processes, "-m", "snnsl_plugin"]
