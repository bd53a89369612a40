"""A teacher that is always right, and not quite sure."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.guides._lesson import Guide, Lesson, Softening


def virtual(*, correct: float = 0.99, compat: Literal["tfkd"] | None = None, multiplier: float = 1.0) -> Guide:
    """The manually designed teacher of Tf-KD (Yuan et al. 2020): p(true) = correct, the rest shared equally.

    It is softened as any teacher is, by p^(1/tau) normalised. At tau = 1 it is label smoothing with
    epsilon = weight (1 - correct) K / (K - 1). The authors' code differs; `compat="tfkd"` does what it does:
    softmax(p / tau), no temperature on the learner, no tau^2, a multiplier, and a mean over samples and classes.

    Args:
        correct: probability of the true class, in (0, 1).
        compat: `tfkd` for the authors' loss as coded.
        multiplier: of the authors' loss; only with compat.

    Raises:
        BadOption: a probability outside (0, 1); a multiplier without compat.
    """
    if not 0.0 < correct < 1.0:
        raise BadOption(f"correct={correct}: the probability of the true class must lie in (0, 1), e.g. 0.99")
    if compat not in (None, "tfkd"):
        raise BadOption(f"compat={compat!r}: the only other form is 'tfkd'")
    if multiplier != 1.0 and compat is None:
        raise BadOption(f"multiplier={multiplier} belongs to compat='tfkd'; otherwise use the distillation weight")

    def guide(x: Tensor, target: Tensor, classes: int, soften: Softening) -> Lesson:
        wrong = (1.0 - correct) / (classes - 1)
        tau = soften.temperature
        ours = compat is None
        logits = torch.full(
            (target.shape[0], classes), (math.log(wrong) if ours else wrong) / tau, device=target.device
        )
        logits[torch.arange(target.shape[0]), target] = (math.log(correct) if ours else correct) / tau
        answer = logits.log_softmax(-1)
        return Lesson(answer) if ours else Lesson(answer, learner_temperature=1.0, factor=multiplier / classes)

    return guide
