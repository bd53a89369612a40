"""Masks that leave NNI: as plain data, and as zeros in a model that is no longer wrapped."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from nni.compression.base.compressor import Pruner
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from snnsl_plugin.anatomy import parameter_of
from snnsl_plugin.errors import BadOption, NothingMatched, did_you_mean

Masks = Mapping[str, Mapping[str, Tensor | None]]


def export_masks(source: Pruner | Masks) -> dict[str, dict[str, Tensor]]:
    """The masks of a pruner as a plain dict.

    NNI's own are a `defaultdict`, which `torch.load(..., weights_only=True)` refuses.

    Args:
        source: any pruner of NNI, or the masks that its `compress()` returned.

    Returns:
        Module name -> target name -> mask of 0 and 1, the target's shape, on the CPU: NNI's format, as its
        `update_masks` and ModelSpeedup take it. Targets without a mask are left out.

    Example:
        >>> masks = {"fc": {"weight": torch.tensor([[1.0, 0.0]]), "bias": None}}
        >>> export_masks(masks)
        {'fc': {'weight': tensor([[1., 0.]])}}
    """
    masks: Masks = source.get_masks() if isinstance(source, Pruner) else source
    return {
        module: {name: mask.detach().cpu().clone() for name, mask in targets.items() if mask is not None}
        for module, targets in masks.items()
    }


def apply_masks_(model: nn.Module, masks: Masks, optimizer: Optimizer | None = None) -> RemovableHandle | None:
    """Makes pruned weights exactly zero, in place; and, with an optimizer, keeps them so while it trains.

    NNI's `unwrap_model()` gives back weights as they lay beneath the masks of its own pruners.

    Args:
        model: wrapped or not.
        masks: of 0 and 1 (or bool), as `export_masks` gives them; only parameters have zeros to keep, masks of inputs
            and outputs are refused.
        optimizer: over the model's parameters as they are now; after each of its steps the masks are applied again.

    Returns:
        With an optimizer, the handle whose `remove()` ends that.

    Raises:
        NothingMatched: a module or a parameter that the model does not have.
        BadOption: a mask of another shape than its parameter.
    """
    kept = list(_kept(model, masks))
    _zero_(kept)
    if optimizer is None:
        return None
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not any(id(parameter) in held for parameter, _ in kept):
        raise BadOption(
            "the optimizer holds none of the masked parameters (NNI makes new ones when it wraps and unwraps): make it "
            "from model.parameters() now, or pass no optimizer"
        )
    return optimizer.register_step_post_hook(lambda *_: _zero_(kept))


def _kept(model: nn.Module, masks: Masks) -> list[tuple[nn.Parameter, Tensor]]:
    modules = dict(model.named_modules())
    found = []
    for name, targets in masks.items():
        if name not in modules:
            raise NothingMatched(
                f"the masks speak of a module {name!r} that this model does not have{did_you_mean(name, modules)}"
            )
        for target, mask in targets.items():
            if mask is None or getattr(modules[name], target, mask) is None:
                continue
            if not isinstance(getattr(modules[name], target, None), Tensor):
                raise NothingMatched(f"module {name!r} has no parameter {target!r} to hold the zeros of its mask")
            parameter = parameter_of(modules[name], target)
            if parameter.shape != mask.shape:
                raise BadOption(
                    f"the mask of {name}.{target} is {tuple(mask.shape)}, the parameter {tuple(parameter.shape)}: "
                    "these are masks of another model"
                )
            found.append((parameter, mask.to(parameter.device, torch.bool)))
    return found


@torch.no_grad()
def _zero_(kept: list[tuple[nn.Parameter, Tensor]]) -> None:
    for parameter, mask in kept:
        parameter.masked_fill_(~mask, 0.0)
