"""STDS: dendritic spines that shrink below a rising threshold fall silent, and may cross it again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from snnsl_plugin.core.layer import Layer, Schedule, State
from snnsl_plugin.core.straight_through import straight_through
from snnsl_plugin.errors import BadOption

#: The source moves the threshold at every iteration.
EVERY = "1it"
#: What says how much is dropped, where there is no density to ask for.
STRENGTH = "threshold"


def stds(layers: Sequence[Layer], progress: float, *, threshold: Schedule) -> dict[str, State]:
    """One move of the threshold of all layers (Chen et al. 2022, "State transition of dendritic spines").

    The network computes with w = sign(theta) max(|theta| - d, 0), and the gradient of w passes to theta unchanged, so
    a spine in the dead zone keeps moving and can cross back: density is an outcome here, not an input, and may rise
    again late. The source's schedule is `sine` from 0 to D, D its only knob.

    Args:
        layers: all layers, those that are never pruned too; `weight` is theta.
        progress: fraction of the schedule that has passed, in [0, 1].
        threshold: d over progress, in units of the weight, >= 0.

    Returns:
        The new state of each layer: "mask" where |theta| > d, and "threshold", a scalar.

    Raises:
        BadOption: a negative threshold.
    """
    d = threshold(progress)
    if d < 0:
        raise BadOption(f"threshold is {d:.6g} at progress {progress:.4g}: it must stay >= 0")
    return {layer.name: _state(layer.weight.detach(), d) if layer.prunable else layer.state for layer in layers}


def check(*, threshold: Schedule) -> None:
    """Refuses, before anything is trained, a threshold that starts or ends below 0.

    Raises:
        BadOption: with the value.
    """
    for progress in (0.0, 1.0):
        stds([], progress, threshold=threshold)


def initial(weight: Tensor) -> State:
    """A threshold of zero: every weight is alive.

    Args:
        weight: theta, any shape.
    """
    return {
        "mask": torch.ones_like(weight, dtype=torch.bool),
        "threshold": torch.zeros_like(weight[(0,) * weight.dim()]),
    }


def effective(weight: Tensor, state: State) -> Tensor:
    """sign(theta) max(|theta| - d, 0) with a straight-through gradient (also at theta = 0, where the authors' is 0).

    Args:
        weight: theta, any shape.
        state: holds "threshold".
    """
    size = weight.detach()
    return straight_through(weight, size.sign() * (size.abs() - state["threshold"]).clamp_min(0))


def _state(theta: Tensor, d: float) -> State:
    threshold = torch.full_like(theta[(0,) * theta.dim()], d)
    return {"mask": theta.abs() > threshold, "threshold": threshold}
