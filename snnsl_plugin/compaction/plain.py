"""Tensors that a module owns alone and as they are, which is what can be cut."""

from __future__ import annotations

from torch import nn

from snnsl_plugin.anatomy import LAYERS
from snnsl_plugin.training.affine import NORMS

CUTTABLE = (*LAYERS, nn.modules.conv._ConvNd, *NORMS)


def shared_parameters(model: nn.Module) -> dict[int, list[str]]:
    """Names of parameters that are one tensor under several names, by its id."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {key: known for key, known in names.items() if len(set(known)) > 1}


def why_not(module: nn.Module, shared: dict[int, list[str]]) -> str | None:
    """Why the tensors of a module cannot be cut, in a few words; None where they can.

    Args:
        module: of any kind.
        shared: of the model it is in.
    """
    for parameter in module.parameters(recurse=False):
        if id(parameter) in shared:
            return f"{' and '.join(sorted(set(shared[id(parameter)])))} are one tensor, which a cut would make two"
    if isinstance(module, CUTTABLE):
        for word in ("weight", "bias"):
            if hasattr(module, word) and word not in module._parameters and getattr(module, word) is not None:
                return (
                    f"its {word} is computed from other tensors: make it permanent first (torch.nn.utils.prune.remove, "
                    "remove_parametrizations, a pruner's finish() or unwrap_model())"
                )
    return None
