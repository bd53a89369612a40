"""Names and values as MLflow takes them."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

LONGEST_NAME = 250
LONGEST_VALUE = 6000


def allowed(name: str) -> str:
    """The name, or the nearest one that MLflow takes, followed by a checksum so that two names never become one.

    MLflow takes letters, digits, `_ - .`, spaces and slashes, at most 250 of them, and no empty, `.` or `..` part
    between slashes. A colon is left out as well: a server on Windows refuses it.

    >>> allowed("density/features.0"), allowed("rate/layer[0]")
    ('density/features.0', 'rate/layer_0_-fe6fe870')
    """
    parts = [part for part in re.sub(r"[^/\w.\- ]", "_", name).split("/") if part not in ("", ".", "..")]
    plain = "/".join(parts)
    if name and plain == name and len(name) <= LONGEST_NAME:
        return name
    return f"{plain[: LONGEST_NAME - 9]}-{zlib.crc32(name.encode()):08x}"


def flattened(recipe: Mapping[str, Any]) -> dict[str, str]:
    """The recipe as dotted names and text values; a list of mappings is numbered, any other list stays one value.

    A value above 6000 characters ends in a note that says so: MLflow would cut it without a trace.

    >>> flattened({"model": {"name": "vgg9", "T": 4}, "stages": [{"lr": 0.1}], "seeds": [0, 1]})
    {'model.name': 'vgg9', 'model.T': '4', 'stages.0.lr': '0.1', 'seeds': '[0, 1]'}
    """
    return {allowed(name): text(value) for name, value in _leaves("", recipe)}


def text(value: Any) -> str:
    """A value of the recipe as MLflow takes it; one above 6000 characters ends in a note that says so."""
    whole = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    if len(whole) <= LONGEST_VALUE:
        return whole
    note = f" [cut: {len(whole)} characters, whole in recipe.yaml]"
    return whole[: LONGEST_VALUE - len(note)] + note


def _leaves(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        entries = [(str(name), entry) for name, entry in value.items()]
    elif isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        entries = [(str(index), entry) for index, entry in enumerate(value)]
    else:
        return [(prefix, value)]
    return [leaf for name, entry in entries for leaf in _leaves(f"{prefix}.{name}" if prefix else name, entry)]
