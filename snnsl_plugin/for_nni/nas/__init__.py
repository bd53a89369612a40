"""NNI's architecture search over spiking networks whose connections are learned: width, depth, time steps, density.

NNI's own experiment, sequential engine and evolution strategy run it; a space and an evaluator are ours. The names
below load their modules on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Candidate": "candidate",
    "SpikingNetwork": "space",
    "SpikingSpace": "space",
    "StructureLearningEvaluator": "evaluator",
    "best": "candidate",
    "explore": "exploration",
    "load_best": "records",
    "table": "candidate",
}
__all__ = [
    "Candidate",
    "SpikingNetwork",
    "SpikingSpace",
    "StructureLearningEvaluator",
    "best",
    "explore",
    "load_best",
    "table",
]

if TYPE_CHECKING:
    from snnsl_plugin.for_nni.nas.candidate import Candidate, best, table
    from snnsl_plugin.for_nni.nas.evaluator import StructureLearningEvaluator
    from snnsl_plugin.for_nni.nas.exploration import explore
    from snnsl_plugin.for_nni.nas.records import load_best
    from snnsl_plugin.for_nni.nas.space import SpikingNetwork, SpikingSpace


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
