"""Reverse knowledge distillation: the weaker or sparser network teaches."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from snnsl_plugin import registry
from snnsl_plugin.core.divergences.kl import kl
from snnsl_plugin.core.layer import Divergence
from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.guides._lesson import Guide, Softening
from snnsl_plugin.training.losses import LossName, label_loss


class Taught(NamedTuple):
    """What one batch is taught; see `ReverseDistiller.lesson`."""

    factor: float
    divergence: Tensor
    matched: Tensor | None


class ReverseDistiller:
    """Mixes a guide's answers into the loss:

        L = (1 - a) CE + a tau^2 / (N T') sum over samples and steps of divergence(guide, learner)

    with softened answers softmax(z / tau) on both sides and T' = 1 for time-mean logits, T per step. *Reverse* means
    that the roles are swapped (the guide is weaker or sparser than the learner), not the direction of the divergence.

    Args:
        guide: who teaches, e.g. `guides.virtual.virtual()`.
        temperature: tau, > 0.
        weight: a, in [0, 1]; 0 is plain cross-entropy.
        divergence: between log-probabilities, a function or its registry name.
        per_step: whether every time step is taught (and cross-entropy averaged over steps), or the mean over time.
        logit_scale: what logits are multiplied with first, > 0; a rate readout in [0, 1] needs one.

    Raises:
        BadOption: an option outside its range.

    Example:
        >>> import torch
        >>> from snnsl_plugin.training.guides.virtual import virtual
        >>> distiller = ReverseDistiller(virtual(), temperature=1.0, weight=0.5)
        >>> logits = torch.zeros(4, 2, 10)
        >>> round(float(distiller.loss(logits, torch.tensor([1, 2]), x=logits)), 3)
        2.264
    """

    def __init__(
        self,
        guide: Guide,
        *,
        temperature: float = 4.0,
        weight: float = 0.3,
        divergence: Divergence | str = kl,
        per_step: bool = False,
        logit_scale: float = 1.0,
    ) -> None:
        if not temperature > 0 or not logit_scale > 0:
            raise BadOption(f"temperature={temperature} and logit_scale={logit_scale} must be above 0")
        if not 0.0 <= weight <= 1.0:
            raise BadOption(f"weight={weight}: the guide's share of the loss must lie in [0, 1]")
        if isinstance(guide, str) or guide in [registry.get("guides", name) for name in registry.names("guides")]:
            raise BadOption(f"guide={guide!r} is not a guide yet: make one, e.g. virtual() or sparse(network)")
        self.guide, self.weight = guide, weight
        self.soften = Softening(temperature, per_step, logit_scale)
        self._divergence = registry.get("divergences", divergence) if isinstance(divergence, str) else divergence

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
            logits: the learner's, (T, N, K), not scaled.
            target: class indices, (N,).
            x: the learner's input, (T, N, ...), which the guide sees too.
            label_smoothing: of the cross-entropy, in [0, 1).
            loss: the labels' part; `mse` compares rates, which are not scaled.

        Returns:
            A scalar.

        Raises:
            BadOption: logits that are not (T, N, K).
        """
        if logits.dim() != 3:
            raise BadOption(
                f"logits have shape {tuple(logits.shape)}: pass those of every step, (T, N, K), not their mean"
            )
        scaled = logits if loss == "mse" else logits * self.soften.logit_scale
        hard = label_loss(loss, scaled, target, per_step=self.soften.per_step, label_smoothing=label_smoothing)
        asked = self.weight > 0 or getattr(self.guide, "matches", False)
        lesson = self.lesson(logits, target, x=x) if asked else None
        if lesson is None:
            return hard
        mixed = (1.0 - self.weight) * hard + self.weight * lesson.factor * lesson.divergence
        return mixed if lesson.matched is None else mixed + lesson.matched

    def lesson(self, logits: Tensor, target: Tensor, *, x: Tensor) -> Taught | None:
        """What the guide has to say to one batch, without the labels' part.

        Args:
            logits: the learner's, (T, N, K), not scaled.
            target: class indices, (N,).
            x: what the guide is asked with.

        Returns:
            A factor (tau^2, where the guide names no other), the mean divergence, a scalar, and what is added besides;
            None where the guide has nothing to say yet.
        """
        seen = logits.detach() if getattr(self.guide, "reads_logits", False) else x
        lesson = self.guide(seen, target, logits.shape[-1], self.soften)
        if lesson is None:
            return None
        tau = self.soften.temperature if lesson.learner_temperature is None else lesson.learner_temperature
        learner = Softening(tau, self.soften.per_step, self.soften.logit_scale)(logits)
        factor = self.soften.temperature**2 if lesson.factor is None else lesson.factor
        if lesson.answer.shape[-1] != learner.shape[-1]:
            raise BadOption(
                f"the guide answers with {lesson.answer.shape[-1]} classes and the learner with {learner.shape[-1]}: "
                "they must have the same"
            )
        if lesson.answer.dim() == 3 and lesson.answer.shape[0] not in (1, learner.shape[0]):
            raise BadOption(
                f"the guide answers at {lesson.answer.shape[0]} time steps and the learner at {learner.shape[0]}: give "
                "both the same T, or compare the mean over time (per_step=False)"
            )
        divergence = self._divergence(lesson.answer.detach().expand_as(learner), learner).mean()
        return Taught(factor, divergence, lesson.matched)

    def parameters(self) -> list[nn.Parameter]:
        """What the optimizer is to train besides the learner; mostly nothing."""
        trained: list[nn.Parameter] = self.guide.trained() if hasattr(self.guide, "trained") else []
        return trained

    def finish(self) -> None:
        """Ends the lessons: a guide that listened to the learner takes its hooks away."""
        if hasattr(self.guide, "close"):
            self.guide.close()

    def observe(self, model: nn.Module, step: int) -> None:
        """Tells the guide that a step has passed, where it wants to know."""
        if hasattr(self.guide, "observe"):
            self.guide.observe(model, step)

    def state_dict(self) -> dict[str, Any]:
        """The guide's own state, where it has one."""
        state: dict[str, Any] = self.guide.state_dict() if hasattr(self.guide, "state_dict") else {}
        return state

    def load_state_dict(self, state: dict[str, Any], model: nn.Module) -> None:
        """Goes on from `state_dict`; the model gives the architecture of guides that copy it."""
        if hasattr(self.guide, "load_state_dict"):
            self.guide.load_state_dict(state, model)
