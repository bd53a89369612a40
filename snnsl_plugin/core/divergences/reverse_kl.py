"""Kullback-Leibler from the learner to the guide."""

from __future__ import annotations

from torch import Tensor

from snnsl_plugin.core.divergences.kl import kl


def reverse_kl(guide: Tensor, learner: Tensor) -> Tensor:
    """Sum over classes of learner (log learner - log guide): seeks one mode instead of covering all.

    This reverses the divergence. *Reverse distillation* reverses the roles, whichever divergence it uses.

    Args:
        guide: log-probabilities, (..., K).
        learner: log-probabilities, (..., K).

    Returns:
        Shape (...), in nats, >= 0.
    """
    return kl(learner, guide)
