"""What pydantic found wrong, as sentences with the place of the key they are about."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from snnsl_plugin.errors import did_you_mean
from snnsl_plugin.recipe.document import UNREADABLE, Document, KeyPath, Problem, dotted

_TAGS = ("name", "type")
#: pydantic's words -> ours
_WORDS = {
    "Input should be": "must be",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid string": "text",
    "a valid list": "a list",
    "a valid tuple": "a list",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
}


def problems(error: ValidationError, document: Document, root: type[BaseModel]) -> list[Problem]:
    """All problems of a document, each once.

    Args:
        error: what validating `document.data` against `root` raised.
        document: the data and the places of its keys.
        root: the model it was validated against.
    """
    found: dict[KeyPath, Problem] = {}
    meant: set[KeyPath] = set()
    for each in error.errors(include_url=False):
        if each["input"] is UNREADABLE:
            continue
        path = _path(each["loc"], document.data)
        message = _message(each)
        if each["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            known = _keys(path[:-1], document.data, root)
            hint = did_you_mean(str(path[-1]), known)
            message = f"unknown key {str(path[-1])!r}{hint or f' (known here: {_list(known)})'}"
            meant |= {(*path[:-1], key) for key in known if hint.endswith(f"{key!r}?")}
        if key := each.get("ctx", {}).get("key"):
            path = (*path, key)
        if path in found:
            message = f"{found[path].message}, or {message}"
        found[path] = Problem(document.place(path), dotted(path), message)
    # A misspelt key is one problem, not also a missing key.
    return [problem for path, problem in found.items() if path not in meant or path in document.places]


def _message(error: Any) -> str:
    kind, given = error["type"], error["input"]
    if kind == "recipe":
        return str(error["ctx"]["message"])
    if kind == "missing":
        return "this key is required and missing"
    if kind == "value_error":  # said by a block of options itself
        return str(error["ctx"]["error"])
    if kind in ("model_type", "model_attributes_type", "dict_type", "dataclass_type"):
        return f"must be a block of keys, not {_written(given)}"
    message = error["msg"]
    for word, ours in _WORDS.items():
        message = message.replace(word, ours)
    if kind == "string_pattern_mismatch" and "cuda" in message:
        message = "must be auto, cpu, cuda or cuda:<number>"
    return f"{message}, not {_written(given)}"


def _written(value: Any) -> str:
    """A value as YAML would write it, shortened."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."


def _path(location: tuple[int | str, ...], data: Any) -> KeyPath:
    """The key path of an error: pydantic's location without the tags of the choices on the way."""
    path: KeyPath = ()
    node, entered = data, False
    for part in location:
        if entered and (node == part or (isinstance(node, dict) and part in (node.get(tag) for tag in _TAGS))):
            node = node if isinstance(node, dict) else {}
            entered = False
        elif isinstance(node, dict):
            path, node, entered = (*path, part), node.get(str(part)), True
        elif isinstance(node, list) and isinstance(part, int):
            path, node, entered = (*path, part), node[part] if part < len(node) else None, True
        else:
            entered = False  # the name of a member of a union of plain types
    return path


def _keys(path: KeyPath, data: Any, root: type) -> list[str]:
    """The keys that are valid in the block at a path."""
    models, node, mapped = [root], data, False
    for part in path:
        if not mapped:
            known = {name: kind for each in models for name, kind in _fields(each).items()}
            annotation = known.get(str(part))
            models = list(_models(annotation))
        # The keys of a mapping such as `tune.space` are the user's own: the models are those of its values.
        mapped = not mapped and get_origin(annotation) is dict
        node = node[part]
        if mapped:
            continue
        tags = [node.get(tag) for tag in _TAGS] if isinstance(node, dict) else [node]
        models = [each for each in models if len(models) == 1 or any(word in tags for word in _literals(each))]
    keys = [name for each in models for name in _fields(each)]
    return [*keys, "extends"] if not path else keys


def _fields(block: type) -> dict[str, Any]:
    """The keys of a block, which is a model or a dataclass of options, and their types."""
    if issubclass(block, BaseModel):
        return {field.alias or name: field.annotation for name, field in block.model_fields.items()}
    return {field.name: field.type for field in fields(block)} if is_dataclass(block) else {}


def _models(annotation: Any) -> Iterable[type]:
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation)):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _literals(block: type) -> tuple[Any, ...]:
    kinds = _fields(block)
    return next((get_args(kinds[tag]) for tag in _TAGS if tag in kinds), ())


def _list(words: Iterable[str]) -> str:
    return ", ".join(sorted(words)) or "none"
