"""A module wrapper of NNI that costs less, gives dense gradients, and can be copied after a training pass."""

from __future__ import annotations

from typing import Any

import torch
from nni.compression.base.apply_method import pruning_apply_methods
from nni.compression.base.target_space import PruningTargetSpace, TargetType
from nni.compression.base.wrapper import ModuleWrapper
from torch import Tensor

from snnsl_plugin.core.layer import State
from snnsl_plugin.core.straight_through import straight_through
from snnsl_plugin.training.options import Rule

#: How NNI knows that gradients are to reach masked weights too: the value of `apply_method`.
DENSE_GRADIENT = "snnsl_dense_gradient"
_STATE = "_snnsl_"


class LightWrapper(ModuleWrapper):
    """Computes what NNI's wrapper computes.

    NNI's forward copies the settings of every target twice and empties CUDA's cache at every call of every layer, which
    a network in single-step mode pays T times a sample. It leaves a tensor with a graph behind as the module's weight,
    so that a model cannot be deep-copied after a training pass. This one does neither. What only NNI's forward can do
    (quantization, masks on inputs or outputs, fused modules) is left to it.
    """

    def wrap(self) -> None:
        """Takes the module over, as NNI does, with the parameters that it has now.

        NNI goes on from those it had when the wrapper was made, and forgets what was trained since it was unwrapped.
        """
        if not hasattr(self.module, "_nni_wrapper"):
            self._look_at_parameters()
        super().wrap()
        self._masked: list[tuple[str, PruningTargetSpace]] = list(self.pruning_target_spaces.items())
        self._observed = bool(self.distillation_target_spaces)
        self._light = (
            not self.quantization_target_spaces
            and not self.fused_modules
            and all(space.type is TargetType.PARAMETER for space in self.pruning_target_spaces.values())
            and all(space.type is TargetType.OUTPUT for space in self.distillation_target_spaces.values())
            and len(self._track_funcs) == 1
        )

    @torch.no_grad()
    def _look_at_parameters(self) -> None:
        for name, space in self.pruning_target_spaces.items():
            own = self.module._parameters.get(name)
            if own is not None and isinstance(space.target, torch.nn.Parameter):
                space.target.copy_(own)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the module with its masked parameters."""
        if self._light:
            for name, space in self._masked:
                setattr(self.module, name, _masked(space))
            outputs = self.module_forward(*args, **kwargs)
            if self._observed:
                outputs = self.patch_outputs(outputs)
        else:
            outputs = super().forward(*args, **kwargs)
        for name, space in self._masked:
            if space.type is TargetType.PARAMETER and (value := getattr(self.module, name)) is not None:
                setattr(self.module, name, value.detach())
        return outputs


def lighten_(wrappers: dict[str, ModuleWrapper]) -> None:
    """Makes NNI's wrappers light, in place, before they wrap; those of other classes stay as they are."""
    for wrapper in wrappers.values():
        if type(wrapper) is ModuleWrapper:
            wrapper.__class__ = LightWrapper


def dense_gradient_(space: PruningTargetSpace) -> None:
    """From now on the target is masked forward, and its whole gradient comes back."""
    pruning_apply_methods[DENSE_GRADIENT] = _apply_dense_gradient
    space.apply_method = DENSE_GRADIENT


def effective_(space: PruningTargetSpace, rule: Rule, state: State) -> None:
    """From now on the target is computed by a rule; the wrapper holds the rule's state as buffers.

    Args:
        space: the target; changed in place.
        rule: has effective weights, and perhaps others in eval mode.
        state: tensors that the rule changes in place.
    """
    method = f"snnsl_rule_{rule.name}"
    effective: Any = rule.effective
    evaluated: Any = rule.evaluated or effective

    def apply(target: Tensor, space: PruningTargetSpace) -> Tensor:
        computed: Tensor = (effective if space._wrapper.training else evaluated)(target, state_of(space))
        return computed

    pruning_apply_methods[method] = apply
    for key, value in state.items():
        space._wrapper.register_buffer(f"{space._target_name}{_STATE}{key}", value)
    space.apply_method = method


def state_of(space: PruningTargetSpace) -> State:
    """The state that `effective_` put into the wrapper, or into its copy."""
    prefix = f"{space._target_name}{_STATE}"
    buffers = space._wrapper._buffers
    return {key.removeprefix(prefix): value for key, value in buffers.items() if key.startswith(prefix)}


def plain_(space: PruningTargetSpace) -> None:
    """Ends the two above, in place: a rule's state goes, and the target is masked as NNI masks.

    Masked weights then have no gradient, so that zeros stay zeros for whoever trains on.
    """
    for key in state_of(space):
        delattr(space._wrapper, f"{space._target_name}{_STATE}{key}")
    space.apply_method = "mul"


def _masked(space: PruningTargetSpace) -> Tensor | None:
    target = space.target
    if target is None:
        return None
    if space.mask is None:
        return target * 1.0
    # Not `space.apply_method`, which copies the whole setting to look one word up.
    masked: Tensor = pruning_apply_methods[space._setting.get("apply_method") or "mul"](target, space)
    return masked


def _apply_dense_gradient(target: Tensor, space: PruningTargetSpace) -> Tensor:
    """Masked forward, identity backward: what growth by gradient reads."""
    return straight_through(target, target.detach() * space.mask)
