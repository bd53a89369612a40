"""Sixteen digits that are equal for recipes that give equal results."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from snnsl_plugin.recipe.folder import identity
from snnsl_plugin.recipe.schema import Recipe


def digest(recipe: Recipe) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of what a recipe says.

    Defaults are left out, so an option that is new tomorrow leaves the digests of today's recipes as they are; so is
    `tracking`, which does not change what is computed. A guide's run counts by its own digest and seed, not by the
    folder it lies in; before that run is there, by the folder's name.
    """
    said = recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"tracking"})
    guide = (said.get("distillation") or {}).get("guide")
    if isinstance(guide, dict) and guide.get("run") and (held := identity(Path(guide["run"]))):
        guide["run"] = {"digest": held["digest"], "seed": held["seed"]}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
