"""What torch.nn.utils.prune leaves in a module while it prunes: `weight_orig`, `weight_mask`, and a hook."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

_ORIGINAL, _MASK = "_orig", "_mask"


def mask_of(module: nn.Module, name: str = "weight") -> Tensor:
    """Which entries of a parameter are at work, bool, its shape: those its mask keeps, or those that are not zero.

    Args:
        module: plain, parametrized, or pruned by torch.nn.utils.prune.
        name: of the parameter.
    """
    # A weight that is pruned this way is a tensor of the last forward pass, so it is not what the network has now.
    held = module._buffers.get(name + _MASK)
    return (getattr(module, name).detach() if held is None else held) != 0


def _hooks(model: nn.Module) -> list[tuple[nn.Module, prune.BasePruningMethod]]:
    return [
        (module, hook)
        for module in model.modules()
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, prune.BasePruningMethod)
    ]


@torch.no_grad()
def refresh_(model: nn.Module) -> None:
    """Computes the pruned parameters anew, in place, as the next forward pass would.

    In between they are those of the last pass and hang on its graph: whoever copies the network (a guide that is the
    network of an earlier day) could not, or would get an old one.
    """
    for module, hook in _hooks(model):
        hook(module, None)


def make_permanent_(model: nn.Module) -> None:
    """Ends all pruning by torch.nn.utils.prune, in place: parameters are plain again, and zero where masked."""
    for module, hook in _hooks(model):
        prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]


def made_permanent(state: Any) -> Any:
    """A nested state in which every pair `x_orig`, `x_mask` has become the plain tensor `x`, their product."""
    if not isinstance(state, dict):
        return state
    plain: dict[Any, Any] = {}
    for key, value in state.items():
        stem = str(key).removesuffix(_MASK)
        if isinstance(value, Tensor) and stem != key and stem + _ORIGINAL in state:
            continue
        stem = str(key).removesuffix(_ORIGINAL)
        if isinstance(value, Tensor) and stem != key and stem + _MASK in state:
            plain[stem] = value * state[stem + _MASK].to(value)
        else:
            plain[key] = made_permanent(value)
    return plain
