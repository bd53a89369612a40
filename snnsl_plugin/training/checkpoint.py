"""Nested state in one file: tensors as safetensors, the rest as plain JSON inside it. Nothing is ever unpickled."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from snnsl_plugin.errors import BadCheckpoint

_TENSOR = "__tensor__"


def save(path: Path, tree: dict[str, Any]) -> None:
    """Writes a nested dict of tensors and plain data, all or nothing.

    The plain data travels in the file's own metadata, so a kill cannot part it from the tensors; `state.json` beside
    it is the same data for people to read.

    Args:
        path: ends in `.safetensors`.
        tree: dicts with string or integer keys, lists, numbers, strings, None, tensors.

    Raises:
        OSError: the disk is full or gone; an earlier file stays as it was.
    """
    tensors: dict[str, Tensor] = {}
    plain = json.dumps(_split(tree, "", tensors), sort_keys=True)
    write_tensors(path, tensors, {"state": plain})
    write_text(path.with_name("state.json"), json.dumps(json.loads(plain), indent=1))


def load(path: Path) -> dict[str, Any]:
    """Reads what `save` wrote.

    Raises:
        BadCheckpoint: there is no such file, or it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        tree = _join(json.loads(metadata["state"]), tensors)
    except (SafetensorError, FileNotFoundError, KeyError, ValueError) as error:
        raise BadCheckpoint(
            f"{path}: cannot be read as a checkpoint ({error}): start the run anew in another folder with --run-dir"
        ) from error
    if not isinstance(tree, dict):
        raise BadCheckpoint(f"{path}: holds no run state: start the run anew in another folder with --run-dir")
    return tree


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes a safetensors file, all or nothing, down to the disk.

    Raises:
        OSError: the disk is full or gone; nothing half written stays behind to fill it.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        save_file(tensors, partial, metadata=metadata)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (SafetensorError, OSError) as error:
        partial.unlink(missing_ok=True)
        # safetensors says what the operating system said in its text alone.
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def write_text(path: Path, text: str) -> None:
    """Writes a text file, all or nothing."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _split(node: Any, key: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, Tensor):
        # A view or a shared tensor would be refused or stored twice; a checkpoint owns its data.
        tensors[key] = node.detach().cpu().clone().contiguous()
        return {_TENSOR: key}
    if isinstance(node, dict):
        return {"items": [[name, _split(value, f"{key}/{name}".lstrip("/"), tensors)] for name, value in node.items()]}
    if isinstance(node, (list, tuple)):
        return [_split(value, f"{key}/{i}".lstrip("/"), tensors) for i, value in enumerate(node)]
    return node


def _join(node: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, dict):
        if _TENSOR in node:
            return tensors[node[_TENSOR]]
        return {name: _join(value, tensors) for name, value in node["items"]}
    if isinstance(node, list):
        return [_join(value, tensors) for value in node]
    return node
