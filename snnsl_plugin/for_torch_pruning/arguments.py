"""What is given to a pruner of Torch-Pruning, in the form that it really takes, or refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from torch_pruning._helpers import UnwrappedParameters
from torch_pruning.pruner.importance import ActivationImportance, OBDCImportance

from snnsl_plugin.anatomy import time_first
from snnsl_plugin.errors import BadOption


def expanded(model: nn.Module, ignored: Sequence[Any] | None) -> list[Any]:
    """Ignored layers with types replaced by the modules of that type; Torch-Pruning drops types silently.

    Raises:
        BadOption: neither a module, nor a parameter, nor a type.
    """
    found: list[Any] = []
    for each in ignored or []:
        if isinstance(each, type) and issubclass(each, nn.Module):
            found.extend(module for module in model.modules() if isinstance(module, each))
        elif isinstance(each, nn.Module | nn.Parameter):
            found.append(each)
        else:
            raise BadOption(f"ignored_layers holds {each!r}: modules, types of modules and parameters can be ignored")
    return found


def pairs(unwrapped: Mapping[nn.Parameter, int] | Iterable[tuple[nn.Parameter, int]] | None) -> list[Any]:
    """Parameters outside of modules and the axis of their channels, in a list of its own.

    Torch-Pruning's docstring promises a dict, its code reads pairs and adds what it finds to the caller's list.
    """
    given = unwrapped.items() if isinstance(unwrapped, Mapping) else unwrapped or []
    return [UnwrappedParameters(*pair) for pair in given]


def check_ratios(given: Mapping[str, Any]) -> None:
    """Refuses ratios that are no shares, by which Torch-Pruning fails in the middle of a step.

    Args:
        given: arguments by name.

    Raises:
        BadOption: a ratio outside [0, 1].
    """
    words = {
        word: given.get(word) for word in ("pruning_ratio", "max_pruning_ratio", "head_pruning_ratio", "ch_sparsity")
    }
    for name in ("pruning_ratio_dict", "ch_sparsity_dict", "head_pruning_ratio_dict"):
        words |= {f"{name}[{module}]": ratio for module, ratio in (given.get(name) or {}).items()}
    for word, ratio in words.items():
        if ratio is not None and not 0 <= ratio <= 1:
            raise BadOption(f"{word}={ratio!r} is no share of channels: it must be in [0, 1]")


def check_importance(importance: Any, model: nn.Module) -> None:
    """Refuses importances of Torch-Pruning that cannot score a model.

    Args:
        importance: any.
        model: to be pruned.

    Raises:
        BadOption: OBDCImportance; or ActivationImportance over time.
    """
    if isinstance(importance, OBDCImportance):
        raise BadOption(
            "Torch-Pruning's OBDCImportance fails on every network without attention heads: choose "
            "GroupHessianImportance"
        )
    convolves = any(isinstance(module, nn.Conv2d) for module in model.modules())
    if isinstance(importance, ActivationImportance) and convolves and time_first(model):
        raise BadOption(
            "Torch-Pruning's ActivationImportance takes axis 1 for the channels, which is the batch in multi-step "
            "mode: choose SpikingImportance(statistic='input', weight_power=0.0), or single-step mode"
        )
