"""How many time steps are enough for an answer that is near that of all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from snnsl_plugin.core.divergences.kl import kl
from snnsl_plugin.errors import BadOption, Diverged

#: The source asks from two steps on.
FIRST = 2


def divergences(logits: Tensor) -> Tensor:
    """KL(out_T || out_t) for t = 2 .. T - 1, summed over samples, in nats (Kim et al., ECCV 2022).

    Out_t is the softmax of the mean of the logits of the first t steps.

    Args:
        logits: (T, N, K).

    Returns:
        Shape (T - 2,), float64.

    Raises:
        BadOption: fewer than 4 steps: of one candidate the normalised divergence is always 1.
    """
    steps = logits.shape[0]
    if logits.dim() != 3 or steps < FIRST + 2:
        raise BadOption(
            f"logits of shape {tuple(logits.shape)}: early_time chooses among 2 to T - 1 steps of (T, N, K) logits, T "
            "at least 4; leave it out, or give the input more steps"
        )
    means = logits.detach().double().cumsum(0) / torch.arange(1, steps + 1, device=logits.device).view(-1, 1, 1)
    answers = means.log_softmax(-1)
    return torch.stack([kl(answers[-1], answers[t - 1]).sum() for t in range(FIRST, steps)])


def early(found: Tensor, threshold: float) -> int:
    """The fewest steps t whose divergence, as a share of the largest, is below a threshold; T where none is.

    Args:
        found: what `divergences` gave, (T - 2,), or sums of that.
        threshold: in (0, 1].

    Raises:
        Diverged: a divergence is not finite.

    >>> early(torch.tensor([4.0, 2.0, 1.0]), 0.6)
    3
    """
    if not bool(torch.isfinite(found).all()):
        raise Diverged("the answers of the network are not finite: lower the learning rate or clip gradients")
    near = (found < threshold * found.max()) | (found == 0)
    return FIRST + (int(near.nonzero()[0]) if bool(near.any()) else len(found))
