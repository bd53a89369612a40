"""From a file, or the name of a shipped recipe, and overrides to a `Recipe`; every problem at once, with its place."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML

from snnsl_plugin.errors import BadRecipe, did_you_mean
from snnsl_plugin.recipe import catalog, space
from snnsl_plugin.recipe.document import (
    Document,
    KeyPath,
    Place,
    Problem,
    compose,
    dotted,
    laid_over,
    read,
    value_of,
)
from snnsl_plugin.recipe.problems import problems
from snnsl_plugin.recipe.schema import Recipe


def load(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads and checks a recipe.

    Args:
        recipe: a file, or the name of a shipped recipe; a file wins.
        overrides: `key.path=value`, the value in YAML; `~key.path` drops what the recipe says there, so that together
            they replace a block whole, also by another one of the same name.

    Raises:
        BadRecipe: with all problems, each as `file:line:col: key: message`.

    Example:
        >>> load("digits", ["seed=3"]).seed
        3
    """
    document = resolve(recipe, overrides)
    found = list(document.problems)
    validated = None
    try:
        validated = Recipe.model_validate(document.data)
    except ValidationError as error:
        found += problems(error, document, Recipe)
    if validated is not None:
        found += space.check(validated, document)
    if found or validated is None:
        raise BadRecipe([str(each) for each in sorted(found)])
    return validated


def resolve(recipe: str | Path, overrides: Sequence[str] = ()) -> Document:
    """The data of a recipe, its parents laid under it and the overrides over it; not checked against the schema.

    Raises:
        BadRecipe: a file that is missing or is not a YAML mapping, a cycle in `extends`, a malformed override.
    """
    document = _with_parents(find(recipe), ())
    parsed, malformed = _overrides([text for text in overrides if not text.startswith("~")])
    for text in overrides:
        if text.startswith("~"):
            malformed += _drop_(document, text, parsed)
    changed = laid_over(document, parsed)
    # A block made by an override alone has no place of its own: it gets that of the first override inside it.
    for path in list(parsed.places):
        for length in range(1, len(path)):
            changed.places.setdefault(path[:length], parsed.places[path])
    changed.problems += malformed
    return changed


def find(recipe: str | Path) -> Path:
    """The file of a recipe.

    Raises:
        BadRecipe: there is neither such a file nor such a shipped recipe.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    if str(recipe).removesuffix(".yaml") in catalog.names():
        return catalog.path(str(recipe))
    what = "is a folder, not a recipe" if path.is_dir() else "there is no such file, and no shipped recipe of that name"
    hint = did_you_mean(path.stem, catalog.names()) or did_you_mean(str(recipe), catalog.names())
    raise BadRecipe([f"{recipe}: {what}{hint} (shipped: {', '.join(catalog.names()) or 'none'})"])


def dump(recipe: Recipe) -> str:
    """The whole recipe as YAML, defaults included; loading it gives an equal recipe."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    data = _name_first(recipe.model_dump(mode="json", by_alias=True))
    # A next-line character (U+0085) written as it is would be read as a line break.
    yaml.allow_unicode = json.dumps(data, ensure_ascii=False).isprintable()
    stream = io.StringIO()
    yaml.dump(data, stream)
    return stream.getvalue()


def _with_parents(path: Path, below: tuple[Path, ...]) -> Document:
    document = read(path)
    parent = document.data.pop("extends", None)
    if parent is None:
        return document
    place = document.places[("extends",)]
    if not isinstance(parent, str):
        raise BadRecipe([f"{place}: extends: must be one file or the name of a shipped recipe, not {parent!r}"])
    beside = path.parent / parent
    try:
        target = beside if beside.is_file() else find(parent)
    except BadRecipe as error:
        raise BadRecipe([f"{place}: extends: {error}"]) from None
    chain = (*below, path)
    if target.resolve() in {each.resolve() for each in chain}:
        shown = " -> ".join(each.name for each in (*chain, target))
        raise BadRecipe([f"{place}: extends: these recipes extend one another in a circle: {shown}"])
    return laid_over(_with_parents(target, chain), document)


def _drop_(document: Document, text: str, instead: Document) -> list[Problem]:
    """Drops a key from a document in place; one that is not there is a problem unless it is written anew."""
    place, key = Place(f"command line: {text}"), text.removeprefix("~")
    path: KeyPath = tuple(key.split("."))
    if "=" in key or not all(path):
        return [Problem(place, "", "what drops a key is written ~key.path, e.g. ~distillation")]
    node: Any = document.data
    for part in path[:-1]:
        node = node.get(part) if isinstance(node, dict) else None
    if isinstance(node, dict) and path[-1] in node:
        del node[path[-1]]
        for old in [old for old in document.places if old[: len(path)] == path]:
            del document.places[old]
    elif not any(written[: len(path)] == path for written in instead.places):
        return [Problem(place, key, "the recipe does not say this, so there is nothing to drop")]
    return []


def _overrides(overrides: Sequence[str]) -> tuple[Document, list[Problem]]:
    """All overrides as one document, so that their order does not matter, and what is wrong with them."""
    document, wrong = Document({}, {}), []
    for text in overrides:
        place = Place(f"command line: {text}")
        key, equals, written = text.partition("=")
        path: KeyPath = tuple(key.split("."))
        if not equals or not all(path):
            wrong.append(Problem(place, "", "an override is written key.path=value, e.g. train.epochs=3"))
        elif key == "extends" or path[0] == "extends":
            wrong.append(Problem(place, key, "extends belongs in a file"))
        elif clash := _clash(path, document):
            wrong.append(Problem(place, key, f"the command line says this twice (also {clash.source}): keep one"))
        else:
            try:
                value, inner = _parsed(written, place)
            except BadRecipe as error:
                wrong.append(Problem(place, key, str(error).removeprefix(f"{place}: ")))
                continue
            wrong += [each._replace(key=dotted((*path, *filter(None, [each.key])))) for each in inner]
            document.places[path] = place
            node: dict[str, Any] = document.data
            for part in path[:-1]:
                node = node.setdefault(str(part), {})
            node[str(path[-1])] = value
    return document, wrong


def _clash(path: KeyPath, document: Document) -> Place | None:
    for other, place in document.places.items():
        shared = min(len(path), len(other))
        if path[:shared] == other[:shared]:
            return place
    return None


def _parsed(written: str, place: Place) -> tuple[Any, list[Problem]]:
    node = compose(written, place)
    if node is None:
        return None, []
    document = Document({}, {(): place})
    return value_of(node, document, ()), document.problems


def _name_first(value: Any) -> Any:
    if isinstance(value, dict):
        ordered = sorted(value, key=lambda key: key not in ("schema", "name", "type"))
        return {key: _name_first(value[key]) for key in ordered}
    return value
