"""Lets a package offer the functions of its files: `schedules.cubic` is the function of `schedules/cubic.py`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable


def functions(package: str, path: Iterable[str]) -> dict[str, object]:
    """The function of each file of a folder, by name.

    Args:
        package: the package's dotted name (`__name__`).
        path: the package's `__path__`.
    """
    stems = [module.name for module in pkgutil.iter_modules(list(path)) if not module.name.startswith("_")]
    return {stem: getattr(importlib.import_module(f"{package}.{stem}"), stem) for stem in stems}
