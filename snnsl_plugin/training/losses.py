"""What the labels say about the logits of every step."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor

from snnsl_plugin.errors import BadOption

LossName: TypeAlias = Literal["cross_entropy", "mse"]


def label_loss(
    name: LossName, logits: Tensor, target: Tensor, *, per_step: bool = False, label_smoothing: float = 0.0
) -> Tensor:
    """The loss of a name.

    Args:
        name: `cross_entropy` or `mse`.
        logits: (T, N, K).
        target: class indices, (N,).
        per_step: whether every step answers for itself, or the mean over time does.
        label_smoothing: of the cross-entropy, in [0, 1).

    Returns:
        A scalar.

    Raises:
        BadOption: another name, or label smoothing without cross-entropy.
    """
    if name == "cross_entropy":
        return cross_entropy(logits, target, per_step=per_step, label_smoothing=label_smoothing)
    if name != "mse":
        raise BadOption(f"loss={name!r}: choose 'cross_entropy' or 'mse'")
    if label_smoothing:
        raise BadOption(f"label_smoothing={label_smoothing} belongs to cross-entropy: leave it out with loss='mse'")
    return mse(logits, target, per_step=per_step)


def cross_entropy(logits: Tensor, target: Tensor, *, per_step: bool = False, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of (T, N, K) logits: of the mean over time, or per step and averaged.

    Returns:
        A scalar, in nats.
    """
    if not per_step:
        return F.cross_entropy(logits.mean(0), target, label_smoothing=label_smoothing)
    steps = logits.shape[0]
    return F.cross_entropy(logits.flatten(0, 1), target.repeat(steps), label_smoothing=label_smoothing)


def mse(rates: Tensor, target: Tensor, *, per_step: bool = False) -> Tensor:
    """Squared error to one-hot targets, averaged over samples and classes, of a readout that is a rate in [0, 1].

    Args:
        rates: (T, N, K), e.g. the votes of spiking output neurons.
        target: class indices, (N,).
        per_step: whether every step is compared, or the rate over all steps, as is usual.

    Returns:
        A scalar.
    """
    wanted = F.one_hot(target, rates.shape[-1]).to(rates.dtype)
    return F.mse_loss(rates, wanted.expand_as(rates)) if per_step else F.mse_loss(rates.mean(0), wanted)
