"""Kullback-Leibler from the guide to the learner."""

from __future__ import annotations

from torch import Tensor


def kl(guide: Tensor, learner: Tensor) -> Tensor:
    """Sum over classes of guide (log guide - log learner): the loss of Hinton et al. 2015.

    Args:
        guide: log-probabilities, (..., K).
        learner: log-probabilities, (..., K).

    Returns:
        Shape (...), in nats, >= 0.
    """
    return (guide.exp() * (guide - learner)).sum(-1)
