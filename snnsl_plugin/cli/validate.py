"""`snnsl validate`: every problem of a recipe, or its digest."""

from __future__ import annotations

import json

import typer

from snnsl_plugin.cli.arguments import Json, Overrides, Recipe
from snnsl_plugin.errors import BadRecipe


def validate(recipe: Recipe, overrides: Overrides = None, as_json: Json = False) -> None:
    """Check a recipe; print every problem as file:line:col: key: message."""
    from snnsl_plugin.recipe.digest import digest
    from snnsl_plugin.recipe.load import load

    try:
        loaded = load(recipe, overrides or [])
    except BadRecipe as error:
        if not as_json:
            raise
        print(json.dumps({"valid": False, "problems": error.problems}, indent=1))
        raise typer.Exit(error.exit_status) from None
    if as_json:
        said = {"valid": True, "digest": digest(loaded), "recipe": loaded.model_dump(mode="json", by_alias=True)}
        print(json.dumps(said, indent=1))
    else:
        print(f"{recipe}: valid, digest {digest(loaded)}")
