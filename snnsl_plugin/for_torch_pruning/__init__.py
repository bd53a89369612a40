"""Torch-Pruning 1.6 extensions: its pruners and importances for spiking networks, and one that prunes and regrows.

The names below load their modules on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "SpikingBNScalePruner": "pruners",
    "SpikingDynamicPruner": "dynamic",
    "SpikingGroupNormPruner": "pruners",
    "SpikingGrowingRegPruner": "pruners",
    "SpikingImportance": "importance",
    "SpikingPruner": "pruners",
    "calibrate": "calibration",
    "install": "installation",
    "reverse_kd_finetune": "finetuning",
    "uninstall": "installation",
}
__all__ = [
    "SpikingBNScalePruner",
    "SpikingDynamicPruner",
    "SpikingGroupNormPruner",
    "SpikingGrowingRegPruner",
    "SpikingImportance",
    "SpikingPruner",
    "calibrate",
    "install",
    "reverse_kd_finetune",
    "uninstall",
]

if TYPE_CHECKING:
    from snnsl_plugin.for_torch_pruning.calibration import calibrate
    from snnsl_plugin.for_torch_pruning.dynamic import SpikingDynamicPruner
    from snnsl_plugin.for_torch_pruning.finetuning import reverse_kd_finetune
    from snnsl_plugin.for_torch_pruning.importance import SpikingImportance
    from snnsl_plugin.for_torch_pruning.installation import install, uninstall
    from snnsl_plugin.for_torch_pruning.pruners import (
        SpikingBNScalePruner,
        SpikingGroupNormPruner,
        SpikingGrowingRegPruner,
        SpikingPruner,
    )


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
