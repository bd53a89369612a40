"""Folders of folders: one folder per class, any files inside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from snnsl_plugin.errors import BadOption, did_you_mean


@dataclass(frozen=True)
class Tree:
    """The files of one part, sorted by class and name.

    Attributes:
        classes: names of the class folders, sorted.
        files: every file that is not hidden.
        labels: (N,) of int64, the class of each file.
    """

    classes: list[str]
    files: list[Path]
    labels: Tensor


def class_folders(folder: Path) -> list[str]:
    """The sorted names of the folders in `folder` that are not hidden; empty if it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def read_tree(folder: Path, classes: list[str]) -> Tree:
    """The files below `folder/<class>` for the given classes, at any depth, hidden files left out."""
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        members = [
            path
            for path in sorted((folder / name).rglob("*"))
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        ]
        files += members
        labels += [label] * len(members)
    return Tree(classes, files, torch.tensor(labels, dtype=torch.int64))


def choose_classes(known: list[str], wanted: list[str] | int | None) -> list[str]:
    """The classes asked for: all (None), the first so many in the order of `known`, or the named ones in that order.

    Raises:
        BadOption: a number outside 2 to all, or a name that is no class.
    """
    if wanted is None:
        return known
    if isinstance(wanted, int):
        if not 2 <= wanted <= len(known):
            raise BadOption(f"classes is {wanted}; this data has {len(known)}, so it is 2 to {len(known)}")
        return known[:wanted]
    for name in wanted:
        if name not in known:
            raise BadOption(f"unknown class {name!r}{did_you_mean(name, known)}")
    if len(set(wanted)) < 2:
        raise BadOption(f"classes is {wanted}; at least 2 different ones are needed")
    return [name for name in known if name in wanted]
