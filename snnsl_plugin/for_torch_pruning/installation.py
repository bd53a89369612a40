"""Puts the classes of this package under Torch-Pruning's own names, for scripts that look everything up there."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import torch_pruning as tp

from snnsl_plugin import for_torch_pruning
from snnsl_plugin.errors import BadOption

_PRUNERS = (
    "SpikingPruner",
    "SpikingGroupNormPruner",
    "SpikingBNScalePruner",
    "SpikingGrowingRegPruner",
    "SpikingDynamicPruner",
)


def install() -> list[str]:
    """Makes `tp.pruner.SpikingPruner`, `tp.importance.SpikingImportance` and their like this package's classes.

    Importing the package does not. A second call changes nothing.

    Returns:
        The names that are there now, such as `tp.pruner.SpikingPruner`.

    Raises:
        BadOption: Torch-Pruning has something else of one of these names; nothing was changed.

    Example:
        >>> import torch_pruning as tp
        >>> names = install()
        >>> tp.pruner.SpikingPruner.__module__
        'snnsl_plugin.for_torch_pruning.pruners'
        >>> names == uninstall(), hasattr(tp.pruner, "SpikingPruner")
        (True, False)
    """
    ours = list(_ours())
    for theirs, name, own in ours:
        if getattr(theirs, name, own) is not own:
            raise BadOption(
                f"{_shown(theirs, name)} is {getattr(theirs, name)!r} already and stays: import {name} from "
                "snnsl_plugin.for_torch_pruning instead"
            )
    for theirs, name, own in ours:
        setattr(theirs, name, own)
    return [_shown(theirs, name) for theirs, name, _ in ours]


def uninstall() -> list[str]:
    """Takes away what `install` put there; Torch-Pruning is as it was. Names that are not ours stay.

    Returns:
        The names that are gone.
    """
    gone = [(theirs, name) for theirs, name, own in _ours() if getattr(theirs, name, None) is own]
    for theirs, name in gone:
        delattr(theirs, name)
    return [_shown(theirs, name) for theirs, name in gone]


def _ours() -> Iterator[tuple[ModuleType, str, type]]:
    for name in _PRUNERS:
        yield tp.pruner, name, getattr(for_torch_pruning, name)
    yield tp.importance, "SpikingImportance", for_torch_pruning.SpikingImportance


def _shown(module: ModuleType, name: str) -> str:
    return f"tp.{module.__name__.rpartition('.')[2]}.{name}"
