"""Sixteen digits that are equal for recipes that give equal results."""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path

from pydantic import BaseModel

from snnsl_plugin import registry
from snnsl_plugin.recipe.folder import identity
from snnsl_plugin.recipe.options import Choice
from snnsl_plugin.recipe.schema import Recipe

#: Blocks that do not change what a run computes.
_NOT_COMPUTED = ("tracking", "compare", "tune")


def digest(recipe: Recipe) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of what a recipe says.

    Defaults are left out, so an option that is new tomorrow leaves the digests of today's recipes as they are; so are
    `tracking`, `compare`, `tune` and `data.workers`, which do not change what a run computes. The run of a guide or a
    parent counts by its own digest and seed, not by the folder it lies in; before that run is there, by the folder's
    name. A checkpoint counts by its content, and a function of another distribution by the file it is written in.
    """
    said = recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=set(_NOT_COMPUTED))
    said.get("data", {}).pop("workers", None)
    for named in ((said.get("distillation") or {}).get("guide"), said.get("parent")):
        if isinstance(named, dict) and named.get("run") and (held := identity(Path(named["run"]))):
            named["run"] = {"digest": held["digest"], "seed": held["seed"]}
        if isinstance(named, dict) and named.get("checkpoint") and (file := Path(named["checkpoint"])).is_file():
            named["checkpoint"] = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    if joined := _joined(recipe):
        said["joined"] = joined
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _joined(block: BaseModel) -> dict[str, str]:
    """Of each joined function that a block names the SHA-256 of its file, so that other code has another digest."""
    found: dict[str, str] = {}
    if isinstance(block, Choice) and block.registered_name in registry.joined(block.registered_kind):
        path = inspect.getsourcefile(inspect.unwrap(block.registered_function))
        code = Path(path).read_bytes() if path else b""
        found[f"{block.registered_kind}.{block.registered_name}"] = hashlib.sha256(code).hexdigest()[:16]
    for key in type(block).model_fields:
        value = getattr(block, key)
        if isinstance(value, BaseModel) and key not in _NOT_COMPUTED:
            found |= _joined(value)
    return found
