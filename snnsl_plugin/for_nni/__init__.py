"""NNI 3.0 extensions: a spiking-aware dynamic pruner and a reverse distiller for existing NNI pipelines.

The names below load their modules on first use: NNI gives a tuner ten seconds to start, and torch alone takes two.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "LightningEvaluator": "evaluators",
    "OptunaTuner": "tuner",
    "ReverseKDDistiller": "distiller",
    "SpikingSpace": "nas",
    "StructureLearningEvaluator": "nas",
    "TransformersEvaluator": "evaluators",
    "explore": "nas",
    "SpikingDynamicPruner": "pruner",
    "SpikingModelSpeedup": "speedup",
    "apply_masks_": "masks",
    "export_masks": "masks",
    "register_settings": "settings",
}
__all__ = [
    "LightningEvaluator",
    "OptunaTuner",
    "ReverseKDDistiller",
    "SpikingDynamicPruner",
    "SpikingModelSpeedup",
    "SpikingSpace",
    "StructureLearningEvaluator",
    "TransformersEvaluator",
    "apply_masks_",
    "explore",
    "export_masks",
    "register_settings",
]

if TYPE_CHECKING:
    from snnsl_plugin.for_nni.distiller import ReverseKDDistiller
    from snnsl_plugin.for_nni.evaluators import LightningEvaluator, TransformersEvaluator
    from snnsl_plugin.for_nni.masks import apply_masks_, export_masks
    from snnsl_plugin.for_nni.nas import SpikingSpace, StructureLearningEvaluator, explore
    from snnsl_plugin.for_nni.pruner import SpikingDynamicPruner
    from snnsl_plugin.for_nni.settings import register_settings
    from snnsl_plugin.for_nni.speedup import SpikingModelSpeedup
    from snnsl_plugin.for_nni.tuner import OptunaTuner


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
