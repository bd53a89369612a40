"""Sparse structure learning for spiking neural networks.

Connections and neurons are pruned and regrown while a network trains from scratch, and a weaker, sparser network
teaches a stronger one. The names below load their modules on first use, so importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Recipe": "snnsl_plugin.recipe.schema",
    "run": "snnsl_plugin.recipe.runner",
    "DynamicPruner": "snnsl_plugin.training.pruner",
    "ReverseDistiller": "snnsl_plugin.training.distiller",
    "SpikeRecorder": "snnsl_plugin.training.recorder",
}
__all__ = ["DynamicPruner", "Recipe", "ReverseDistiller", "SpikeRecorder", "__version__", "run"]

if TYPE_CHECKING:
    from snnsl_plugin.recipe.runner import run
    from snnsl_plugin.recipe.schema import Recipe
    from snnsl_plugin.training.distiller import ReverseDistiller
    from snnsl_plugin.training.pruner import DynamicPruner
    from snnsl_plugin.training.recorder import SpikeRecorder


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
