"""The less confident time steps of a network teach its confident ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.guides._lesson import Lesson, Softening


def weak_to_strong() -> WeakToStrong:
    """Each time step is taught by the mean answer of the steps that are less confident of that sample.

    "Synergy between the strong and the weak" (arXiv 2510.07924) reads the time steps of a spiking network as
    sub-models ranked by confidence, and lets the weak teach the strong. Its code is not public and only its abstract
    was known to us, so what follows is our reading:

    * confidence is the probability of the most likely class, before softening, for each sample and step, to six digits;
    * with `per_step` a step learns from the mean of the softened probabilities of all steps below it; the least
      confident step, and steps as confident as it, have no teacher and learn nothing;
    * without `per_step` the mean over time is the strong one, and the least confident step of each sample, the first
      of several, teaches it.

    No second network is asked, and the weak do not move: their answers carry no gradient.
    """
    return WeakToStrong()


@dataclass(frozen=True)
class WeakToStrong:
    """See `weak_to_strong`; a class because the distiller has to be told what it looks at."""

    #: the learner's own logits (T, N, K) are what it is called with, not the input
    reads_logits: ClassVar[bool] = True

    @torch.no_grad()
    def __call__(self, x: Tensor, target: Tensor, classes: int, soften: Softening) -> Lesson:
        """What weaker steps say.

        Args:
            x: the learner's logits of every step, (T, N, K).
            target: not used.
            classes: not used.
            soften: turns logits into log-probabilities.

        Raises:
            BadOption: a single time step, which has nobody to learn from.
        """
        if x.shape[0] < 2:
            raise BadOption(
                "guide 'weak_to_strong' was given a single time step, and no step is weaker than another: use T of at "
                "least 2, or another guide"
            )
        each = replace(soften, per_step=True)
        # To six digits: which of two equal answers is the surer must not hang on the order of their sums.
        sure = (replace(each, temperature=1.0)(x).max(-1).values.exp() * 1e6).round()
        answers = each(x)
        if not soften.per_step:
            weakest = sure.argmin(0)
            return Lesson(answers[weakest, torch.arange(x.shape[1], device=x.device)])
        weaker = (sure.unsqueeze(0) < sure.unsqueeze(1)).to(answers.dtype)
        mean = torch.einsum("tsn,snk->tnk", weaker, answers.exp()) / weaker.sum(1).clamp_min(1.0).unsqueeze(-1)
        taught = weaker.sum(1).unsqueeze(-1) > 0
        return Lesson(torch.where(taught, mean.clamp_min(torch.finfo(mean.dtype).tiny).log(), answers))
