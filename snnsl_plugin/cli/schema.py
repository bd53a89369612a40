"""`snnsl schema`: the format of recipes as JSON Schema, for editors."""

from __future__ import annotations

import json


def schema() -> None:
    """Print the JSON Schema of a recipe."""
    from snnsl_plugin.recipe.schema import Recipe

    print(json.dumps(Recipe.model_json_schema(), indent=1))
