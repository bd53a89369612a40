"""A training loss that NNI may patch: its pruners add terms through the evaluator's training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nni.compression import TorchEvaluator
from nni.compression.base.target_space import TargetType
from nni.compression.base.wrapper import ModuleWrapper
from torch import Tensor, nn

from snnsl_plugin.training.distiller import ReverseDistiller
from snnsl_plugin.training.losses import LossName, label_loss


def training_step(batch: tuple[Tensor, Tensor], loss: Callable[[], Tensor]) -> Tensor:
    """What an evaluator is made with: the loss that the loop computes."""
    return loss()


class PatchedLoss:
    """The loss of a distiller, or cross-entropy, as NNI's pruners patch it.

    Args:
        evaluator: bound to the model, made with `training_step`.
        distiller: makes the loss; cross-entropy where None.
        wrappers: of the bound model, by module name.
    """

    def __init__(
        self, evaluator: TorchEvaluator, distiller: ReverseDistiller | None, wrappers: Mapping[str, ModuleWrapper]
    ) -> None:
        self._evaluator, self._distiller, self._wrappers = evaluator, distiller, wrappers

    def loss(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        x: Tensor,
        label_smoothing: float = 0.0,
        loss: LossName = "cross_entropy",
    ) -> Tensor:
        """The loss of one batch.

        Args:
            logits: the learner's, (T, N, K).
            target: class indices, (N,).
            x: the learner's input, (T, N, ...).
            label_smoothing: of the cross-entropy, in [0, 1).
            loss: the labels' part.

        Returns:
            A scalar, the terms of NNI's pruner in it.
        """

        def ours() -> Tensor:
            if self._distiller:
                return self._distiller.loss(logits, target, x=x, label_smoothing=label_smoothing, loss=loss)
            return label_loss(loss, logits, target, label_smoothing=label_smoothing)

        patched: Tensor = self._evaluator._training_step((x, target), ours)
        return patched

    def observe(self, model: nn.Module, step: int) -> None:
        """Tells the guide that a step has passed."""
        if self._distiller:
            self._settle()
            self._distiller.observe(model, step)

    def state_dict(self) -> dict[str, Any]:
        """The guide's own state, where it has one."""
        return self._distiller.state_dict() if self._distiller else {}

    def load_state_dict(self, state: dict[str, Any], model: nn.Module) -> None:
        """Goes on from `state_dict`."""
        if self._distiller:
            self._distiller.load_state_dict(state, model)

    def _settle(self) -> None:
        # NNI's wrapper leaves a tensor with a graph behind as the module's weight, and a model that holds one cannot be
        # deep-copied, which is what the guide `self` does.
        for wrapper in self._wrappers.values():
            for name, space in wrapper.pruning_target_spaces.items():
                value = getattr(wrapper.module, name, None) if space.type is TargetType.PARAMETER else None
                if isinstance(value, Tensor) and value.grad_fn is not None:
                    setattr(wrapper.module, name, value.detach())
