"""UPR: every weight and every neuron has a mask that is soft, learns, pays for its operations, and hardens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from snnsl_plugin.core.layer import Layer, State
from snnsl_plugin.errors import BadOption

#: The sharpness rises with every step.
EVERY = "1it"
#: What says how much is dropped, where there is no density to ask for.
STRENGTH = "price"
#: sigmoid(x) is exactly 1 at this x, and exactly 0 at its negative, in any floating type.
_HARD = 1e4


def upr(
    layers: Sequence[Layer],
    progress: float,
    *,
    price: float = 1e-11,
    beta_first: float = 5.0,
    beta_last: float = 1000.0,
    score_lr: float = 1e-3,
    neurons: bool = True,
) -> dict[str, State]:
    """One look at all layers (UPR, Shi et al., ICLR 2024): unstructured masks of weights and of neurons.

    While it trains, the network computes with w sigmoid(beta m), and a neuron's output is multiplied by its own
    sigmoid(beta m), one m per neuron of the feature map; while it is evaluated, with 1[m > 0] in their place. The
    scores m begin at 0, all of them learn by Adam from the gradient of loss + `penalty`, and beta rises exponentially.
    At the end of the schedule the masks are 1[m > 0] for good, and the rest of the training tunes what is left.
    Density is an outcome here, not an input.

    Ours: beta moves at every step, the rate of the scores stays as it is, and an m of exactly 0 is dropped in the end
    as it is while the network is evaluated. `score_lr` is the authors' on DVS-CIFAR10, `price` theirs on CIFAR-10,
    where they search for 800 epochs: a short training needs a larger one.

    Args:
        layers: all layers, those that are never pruned too, or all neuron layers, whose weight is 1 a neuron.
        progress: fraction of the search that has passed, in [0, 1].
        price: lambda, what a synaptic operation costs in units of the loss, >= 0.
        beta_first: sharpness of the masks at the start, > 0.
        beta_last: sharpness at the end, at least `beta_first`.
        score_lr: learning rate of the scores, > 0.
        neurons: whether neurons have masks too; without, only weights.

    Returns:
        The new state of each layer: "score" (m), "beta" (a scalar), and "mask", all True until the end.
    """
    if progress >= 1.0:
        return {layer.name: _hardened(layer.state) if layer.prunable else layer.state for layer in layers}
    beta = beta_first * (beta_last / beta_first) ** progress
    return {
        layer.name: layer.state | {"beta": torch.full_like(layer.state["beta"], beta)}
        if layer.prunable
        else layer.state
        for layer in layers
    }


def check(*, price: float, beta_first: float, beta_last: float, score_lr: float) -> None:
    """Refuses, before anything is trained, what cannot be searched with.

    Raises:
        BadOption: with the value.
    """
    if not (math.isfinite(price) and price >= 0):
        raise BadOption(f"price is {price:g}: what an operation costs must be at least 0, e.g. 1e-8")
    if not 0 < beta_first <= beta_last <= _HARD:
        raise BadOption(
            f"beta_first is {beta_first:g} and beta_last {beta_last:g}: the masks get sharper from a value above 0 to "
            f"one of at most {_HARD:g}, e.g. from 5 to 1000"
        )
    if not (math.isfinite(score_lr) and score_lr > 0):
        raise BadOption(f"score_lr is {score_lr:g}: the learning rate of the scores must be above 0, e.g. 0.001")


def initial(weight: Tensor, *, beta_first: float = 5.0) -> State:
    """Scores of 0: every mask is one half.

    Args:
        weight: the first weights, any shape.
        beta_first: see `upr`.
    """
    return {
        "mask": torch.ones_like(weight, dtype=torch.bool),
        "score": torch.zeros_like(weight),
        "beta": weight.new_full((), beta_first),
    }


def effective(weight: Tensor, state: State) -> Tensor:
    """W sigmoid(beta m), differentiable in w and in m.

    Args:
        weight: w, any shape that the score's broadcasts to: spikes (T, N, C, ...) for the score of neurons (C, ...).
        state: holds "score" and "beta".
    """
    return weight * torch.sigmoid(state["beta"] * state["score"])


def evaluated(weight: Tensor, state: State) -> Tensor:
    """W where m > 0, else 0: what the network is evaluated with.

    Args:
        weight: as for `effective`.
        state: holds "score".
    """
    return weight * (state["score"].detach() > 0)


def penalty(layers: Sequence[Layer], progress: float, *, price: float) -> Tensor:
    """Price times the synaptic operations that weights and neurons drive, each counted as far as it is there.

    Args:
        layers: those with a score, neuron layers among them; `drives` is c.
        progress: not used: the price does not change.
        price: see `upr`.

    Returns:
        price * sum of c sigmoid(beta m), a scalar.
    """
    paid = [
        (layer.need("drives") * torch.sigmoid(layer.state["beta"] * layer.state["score"])).sum() for layer in layers
    ]
    return price * torch.stack(paid).sum()


def learner(scores: Sequence[Tensor], *, score_lr: float) -> Optimizer:
    """What moves the scores.

    Args:
        scores: of all layers.
        score_lr: see `upr`.
    """
    return Adam(scores, lr=score_lr)


def _hardened(state: State) -> State:
    mask = state["score"] > 0
    return {
        "mask": mask,
        "score": torch.where(mask, 1.0, -1.0).to(state["score"]),
        "beta": torch.full_like(state["beta"], _HARD),
    }
