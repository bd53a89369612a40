"""A pruner of NNI in a training loop of one's own: the loop stays, and NNI's machinery begins and ends inside it."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import nni
import torch
from nni.compression import TorchEvaluator
from nni.compression.base.apply_method import pruning_apply_methods
from nni.compression.base.compressor import Pruner
from nni.compression.base.target_space import PruningTargetSpace, TargetType
from nni.compression.base.wrapper import ModuleWrapper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from snnsl_plugin.anatomy import LAYERS, weight_layers, weight_name
from snnsl_plugin.core import masks as mask_functions
from snnsl_plugin.errors import BadOption
from snnsl_plugin.for_nni.builtin import Course
from snnsl_plugin.for_nni.masks import apply_masks_, export_masks
from snnsl_plugin.for_nni.patched_loss import PatchedLoss, training_step
from snnsl_plugin.for_nni.settings import register_settings
from snnsl_plugin.training.distiller import ReverseDistiller
from snnsl_plugin.training.events import MaskUpdate

_log = logging.getLogger(__name__)


class DrivenPruner(ABC):
    """A pruner of NNI, driven by the steps of a loop that is not NNI's; `DrivenBuiltin` and `DrivenDynamic` are such.

    `compress()` trains inside and gives the loop back only at its end. Here its parts run where they belong: the model
    is wrapped and the evaluator bound at once, NNI's hooks are put in when their time has come, and taken out after the
    last update. Which weights are masked is decided by the pruner's own code alone.

    Train with `optimizer`, which NNI makes for the parameters of the wrapped model, and with the loss of `patched`;
    call `step()` after `optimizer.step()`, and `finish()` in the end.

    Args:
        model: from (T, N, ...) to (T, N, K); wrapped in place, by the pruner that `_host` is given.
        optimizer: its class; NNI makes it anew.
        optimizer_options: of that class.
        course: when the pruner acts.
        begins_at: the step after which its machinery begins; 0 is before training.
        total_steps: of the whole training.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: type[Optimizer],
        optimizer_options: Mapping[str, Any],
        course: Course,
        *,
        begins_at: int,
        total_steps: int,
    ) -> None:
        self._model, self._course, self._begins_at, self._total = model, course, begins_at, total_steps
        self._modules = weight_layers(model)
        self._shapes = {name: layer.weight.shape for name, layer in self._modules.items()}
        # NNI knows a class by its name, and asserts on one that only inherits from torch's.
        register_settings(*{type(module) for module in model.modules() if isinstance(module, (*LAYERS, _NormBase))})
        traced = nni.trace(optimizer)(model.parameters(), **optimizer_options)
        self._evaluator = TorchEvaluator(_nobody_trains, traced, training_step)
        self._density: float | None = None
        self._prunable: list[str] = []
        self.step_number = self.born = self._skipped = 0

    # -------------------------------------------------------------------------------------------- what a loop needs

    @property
    def masks(self) -> dict[str, Tensor]:
        """The mask of every layer, bool, by unwrapped dotted parameter name; all True where nothing is pruned."""
        return {weight_name(name): self._mask(name) for name in self._modules}

    @property
    def density(self) -> float:
        """Kept / all weights over all convolutions and linear layers, in [0, 1]."""
        return mask_functions.density(self.masks.values())

    @property
    def prunable(self) -> list[str]:
        """Dotted module names of the layers that are pruned."""
        return list(self._prunable)

    @property
    def target(self) -> float | None:
        """What the density of the prunable weights comes to over all layers, in (0, 1]; None where it is an outcome."""
        if self._density is None:
            return None
        dropped = (1.0 - self._density) * sum(self._shapes[name].numel() for name in self._prunable)
        return round(1.0 - dropped / sum(shape.numel() for shape in self._shapes.values()), 12)

    @property
    def until(self) -> int:
        """The step of the update that reaches the goal."""
        return min(self._course.until + self._skipped, self._total)

    @property
    @abstractmethod
    def requested(self) -> dict[str, int]:
        """Weights asked for, by layer."""

    @abstractmethod
    def planned_density(self, step: int) -> float | None:
        """The density over all layers asked for after a step, in (0, 1]; None where it is an outcome."""

    @abstractmethod
    def planned_counts(self) -> dict[str, int]:
        """Weights to keep at the end, by layer; empty where that is an outcome."""

    def by_parameter(self) -> dict[nn.Parameter, Tensor]:
        """Masks of the parameters that have gradients where they are masked: none, NNI multiplies them with zero."""
        return {}

    def patched(self, distiller: ReverseDistiller | None) -> PatchedLoss:
        """The loss to train with: a distiller's, or cross-entropy, and what the pruner adds to it."""
        return PatchedLoss(self._evaluator, distiller, self._wrappers)

    def step(self, *, applied: bool = True) -> MaskUpdate | None:
        """Ends one training step.

        Args:
            applied: False where the optimizer skipped it (loss scaling met an overflow). NNI counts steps of the
                optimizer, so all that is to come is a step later then.

        Returns:
            What an update changed, which may be nothing; None where no update was due.
        """
        self.step_number += 1
        if not applied:
            self._skipped += 1
            return None
        self._begin_if_due()
        own = self.step_number - self._skipped
        if self._course.settled and own >= self._course.until:
            self._end()
        return self._looked(own)

    def finish(self) -> None:
        """Unwraps the model, in place: what it computed with become its weights, and masked ones are zero."""
        if self.step_number - self._skipped < self._course.until:
            _log.warning(
                "training ended at step %d, before the masks were at their goal at step %d of the optimizer: train on",
                self.step_number,
                self._course.until,
            )
        self._end()
        with torch.no_grad():
            for space in self._spaces():
                if space.target is not None and space.mask is not None:
                    # Not the mask alone: SlimPruner computes with a factor that `unwrap_model()` would forget.
                    space.target.copy_(pruning_apply_methods[space.apply_method](space.target, space))
        masks = export_masks(self._pruner) | self._implied()
        self._pruner.unwrap_model()
        apply_masks_(self._model, masks)

    def state_dict(self) -> dict[str, Any]:
        """How far it is. NNI keeps its state in closures, so there is no going on from it."""
        return {"step": self.step_number}

    # ------------------------------------------------------------------------------------------ what each kind says

    @abstractmethod
    def _mask(self, name: str) -> Tensor:
        """The mask of a layer, bool, the weight's shape."""

    @abstractmethod
    def _looked(self, own: int) -> MaskUpdate | None:
        """What is told of a step of the optimizer."""

    def _begin(self) -> None:
        for compressor in self._pruner.fused_compressors:
            compressor._fuse_preprocess(self._evaluator)

    def _implied(self) -> dict[str, dict[str, Tensor]]:
        """Masks in NNI's format that follow from NNI's own and change no output."""
        return {}

    # ------------------------------------------------------------------------------------------------------- inside

    def _host(self, pruner: Pruner) -> None:
        self._pruner, self._bound, self._begun = pruner, True, False
        self._evaluator.bind_model(self._model, pruner._get_param_names_map())
        #: over the parameters of the wrapped model
        self.optimizer: Optimizer = self._evaluator._optimizers[0]

    def _begin_if_due(self) -> None:
        if not self._begun and self.step_number - self._skipped >= self._begins_at:
            self._begun = True
            self._begin()

    def _end(self) -> None:
        """Takes NNI's patches off the optimizer and the loss; the masks stay at work."""
        if not self._bound:
            return
        self._bound = False
        if self._begun:
            for compressor in self._pruner.fused_compressors:
                compressor._fuse_postprocess(self._evaluator)
        self._evaluator.unbind_model()

    @property
    def _wrappers(self) -> Mapping[str, ModuleWrapper]:
        wrappers: Mapping[str, ModuleWrapper] = self._pruner._module_wrappers
        return wrappers

    def _spaces(self) -> Sequence[PruningTargetSpace]:
        every = [space for wrapper in self._wrappers.values() for space in wrapper.pruning_target_spaces.values()]
        return [space for space in every if space.type is TargetType.PARAMETER]


def _nobody_trains(*_: Any) -> None:
    raise BadOption("this evaluator trains nothing: the loop that drives the pruner does")
