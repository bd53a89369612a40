"""What passes between a guide and the distiller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Softening:
    """How logits become soft answers.

    Attributes:
        temperature: > 0; above 1 flattens.
        per_step: whether each time step answers for itself, or the mean over time does.
        logit_scale: what logits are multiplied with first; a rate readout in [0, 1] needs one, or a temperature of 3
            makes it almost uniform.
    """

    temperature: float
    per_step: bool
    logit_scale: float

    def __call__(self, logits: Tensor) -> Tensor:
        """Log-probabilities: (T, N, K) -> (N, K), or (T, N, K) per step."""
        answer = logits if self.per_step else logits.mean(0)
        return F.log_softmax(answer * self.logit_scale / self.temperature, dim=-1)


@dataclass(frozen=True)
class Lesson:
    """A guide's answer.

    Attributes:
        answer: log-probabilities, (N, K) or (T, N, K), without gradient.
        learner_temperature: the learner's temperature, where it is not the guide's.
        factor: what the mean divergence is multiplied with, where it is not temperature^2.
        matched: what is added to the loss besides, a scalar with a gradient: the distance of hidden features.
    """

    answer: Tensor
    learner_temperature: float | None = None
    factor: float | None = None
    matched: Tensor | None = None


class Guide(Protocol):
    """Who teaches."""

    def __call__(self, x: Tensor, target: Tensor, classes: int, soften: Softening) -> Lesson | None:
        """The guide's answer to a batch; None where it has nothing to say yet.

        Args:
            x: the learner's input, (T, N, ...).
            target: class indices, (N,).
            classes: K.
            soften: turns logits into log-probabilities.
        """
