"""Gradient rewiring: every connection has a fixed sign and a strength, and is there while the strength is positive."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from snnsl_plugin.core.layer import Layer, State
from snnsl_plugin.core.straight_through import straight_through
from snnsl_plugin.errors import BadOption

#: A connection comes and goes with every step of the optimizer.
EVERY = "1it"
#: What says how much is dropped, where there is no density to ask for.
STRENGTH = "penalty"


def grad_r(
    layers: Sequence[Layer], progress: float, *, penalty: float = 1e-3, sparsity: float = 0.95
) -> dict[str, State]:
    """One look at all layers (Grad R, Chen et al., IJCAI 2021).

    The network computes with w = s max(theta, 0): s is the sign of the first weight, for ever, and theta, the strength,
    begins as its size. The gradient of w passes to theta also where theta is negative, so a dormant connection goes on
    learning and can come back. After each step of the optimizer theta is pulled towards a Laplace prior whose share at
    or below zero is `sparsity`: theta falls (or rises) by lr penalty sign(theta - mu), mu = ln(2 (1 - sparsity)) /
    penalty, which is <= 0. The pull is not divided by Adam's second moment, as in the authors' code; theirs looks at
    theta before the step of the optimizer, ours after it. Density is an outcome here, not an input.

    Args:
        layers: all layers, those that are never pruned too; `weight` is s theta.
        progress: not used: the prior is always the same.
        penalty: alpha, the inverse scale of the prior, > 0; how hard theta is pulled.
        sparsity: the prior's share of dormant connections, in [0.5, 1).

    Returns:
        The new state of each layer: "mask" where theta > 0, and "sign".
    """
    return {
        layer.name: {"mask": layer.weight.detach() * layer.state["sign"] > 0, "sign": layer.state["sign"].clone()}
        if layer.prunable
        else layer.state
        for layer in layers
    }


def check(*, penalty: float, sparsity: float) -> None:
    """Refuses, before anything is trained, a prior that is none.

    Raises:
        BadOption: with the value.
    """
    if not (math.isfinite(penalty) and penalty > 0):
        raise BadOption(f"penalty is {penalty:g}: the prior's inverse scale must be above 0, e.g. 0.001")
    if not 0.5 <= sparsity < 1.0:
        raise BadOption(f"sparsity is {sparsity:g}: the prior's share of dormant connections must lie in [0.5, 1)")


def initial(weight: Tensor) -> State:
    """Every connection is there, but for a weight that is exactly 0; those have a positive sign.

    Args:
        weight: the first weights, any shape.
    """
    return {"mask": weight != 0, "sign": torch.where(weight < 0, -1.0, 1.0).to(weight)}


def effective(weight: Tensor, state: State) -> Tensor:
    """S max(theta, 0), with the gradient passed to s theta unchanged.

    Args:
        weight: s theta, any shape.
        state: holds "sign".
    """
    sign = state["sign"]
    return straight_through(weight, sign * (weight.detach() * sign).clamp_min(0))


def drift_(weight: Tensor, state: State, lr: float, *, penalty: float, sparsity: float) -> None:
    """Pulls strengths towards the prior, in place, after a step of the optimizer.

    Args:
        weight: s theta.
        state: holds "sign".
        lr: the learning rate of that step.
        penalty: see `grad_r`.
        sparsity: likewise.
    """
    sign, centre = state["sign"], math.log(2.0 * (1.0 - sparsity)) / penalty
    weight.sub_(sign * (weight * sign - centre).sign(), alpha=lr * penalty)
