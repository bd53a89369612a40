"""Points of a search space: recipes that differ from another in a few keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from snnsl_plugin.errors import BadOption, BadRecipe, did_you_mean
from snnsl_plugin.recipe.document import Document, Place, Problem, dotted
from snnsl_plugin.recipe.problems import problems
from snnsl_plugin.recipe.rungs import epochs_of
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.recipe.tune_types import AnyParameter, Pick

#: What no trial may change: it does not change what a run computes, or says how it is shown.
_FIXED = ("schema", "threads", "dense_baseline", "tracking", "compare", "tune", "evolution")


def changed(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe of one training, with other values at some keys; nothing else changes.

    A value that is a block replaces the block that stands there. Blocks that only say how runs are chosen or shown
    (`tune`, `compare`, `tracking`, `evolution`, the dense baseline) are left out.

    Args:
        recipe: that is changed; it is left as it is.
        values: by dotted key, e.g. `{"pruning.density.last": 0.05}`.

    Raises:
        BadRecipe: the values do not go together; the problems name the recipe's keys.

    Example:
        >>> from snnsl_plugin.recipe.load import load
        >>> changed(load("digits"), {"pruning.density.last": 0.05}).pruning.density.last
        0.05
    """
    data, start = _plain(recipe), Place("a point of the space")
    # Blocks first, so that a key inside one that is replaced lands in the new one.
    for key in sorted(values, key=lambda each: (each.count("."), each)):
        _set_(data, key, values[key])
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise BadRecipe([str(each) for each in problems(error, Document(data, {(): start}), Recipe)]) from error


def value_at(recipe: Recipe, key: str) -> Any:
    """What a recipe says at a dotted key, as plain data.

    Raises:
        KeyError: it says nothing there.
    """
    node: Any = _plain(recipe)
    for part in key.split("."):
        if isinstance(node, str) and part == "name":
            continue
        if not isinstance(node, Mapping) or part not in node:
            raise KeyError(key)
        node = node[part]
    return node


def check(recipe: Recipe, document: Document) -> list[Problem]:
    """What is wrong with a recipe's search space: each end of each parameter must make a recipe.

    Args:
        recipe: with a `tune` block.
        document: where it was read from, for the places.
    """
    found: list[Problem] = []
    if why := _late(recipe, recipe.train.epochs):
        keys = ("tune", "stop", "rungs")
        found.append(Problem(document.place(keys), dotted(keys), why))
    for key, parameter in recipe.tune.space.items() if recipe.tune else ():
        place, path = document.place(("tune", "space", key)), dotted(("tune", "space", key))
        if key.partition(".")[0] in _FIXED:
            why = (
                "trials are single trainings, which take no notice of it"
                if key.startswith("evolution")
                else ("does not change what is computed")
            )
            found.append(Problem(place, path, f"{why}, so it cannot be searched"))
            continue
        if key.partition(".")[0] not in Recipe.model_fields:
            known = [each for each in Recipe.model_fields if each not in (*_FIXED, "schema_version")]
            hint = did_you_mean(key.partition(".")[0], known) or f" (known: {', '.join(known)})"
            found.append(Problem(place, path, f"unknown key {key.partition('.')[0]!r}{hint}"))
            continue
        for value in _ends(parameter):
            try:
                epochs = changed(recipe, {**parameter.when, key: value}).train.epochs
                if epochs != recipe.train.epochs and (why := _late(recipe, epochs)):
                    found.append(Problem(place, path, f"{value!r} leaves no trial to be stopped: {why}"))
                    break
            except BadRecipe as error:
                why = error.problems[0].removeprefix("a point of the space: ")
                found.append(Problem(place, path, f"{value!r} makes no recipe: {why}"))
                break
    return found


def _late(recipe: Recipe, epochs: int) -> str:
    """Why no rung of the recipe falls before the last of so many epochs; empty where one does, or none is asked for."""
    try:
        if recipe.tune and recipe.tune.stop:
            epochs_of(recipe.tune.stop, epochs)
    except BadOption as error:
        return str(error)
    return ""


def _ends(parameter: AnyParameter) -> list[Any]:
    return list(parameter.values) if isinstance(parameter, Pick) else [parameter.low, parameter.high]


def _plain(recipe: Recipe) -> dict[str, Any]:
    data = recipe.model_dump(mode="json", by_alias=True)
    return data | {"tune": None, "compare": None, "evolution": None, "tracking": {"mlflow": False},
                   "dense_baseline": False}  # fmt: skip


def _set_(data: dict[str, Any], key: str, value: Any) -> None:
    node, parts = data, key.split(".")
    for part in parts[:-1]:
        below = node.get(part)
        if not isinstance(below, dict):  # a bare name stands for a block without options
            below = {"name": below} if isinstance(below, str) else {}
            node[part] = below
        node = below
    node[parts[-1]] = value
