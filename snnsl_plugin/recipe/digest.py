"""Sixteen digits that are equal for recipes that give equal results."""

from __future__ import annotations

import hashlib
import json

from snnsl_plugin.recipe.schema import Recipe


def digest(recipe: Recipe) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of what a recipe says.

    Defaults are left out, so an option that is new tomorrow leaves the digests of today's recipes as they are; so is
    `tracking`, which does not change what is computed.
    """
    said = recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"tracking"})
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
