"""What `fit` yields: plain facts, so that training knows neither progress bars nor journals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor


@dataclass(frozen=True)
class Step:
    """One optimizer step: its number since the start, from 1, how many there will be, and the loss, a scalar tensor."""

    step: int
    total: int
    loss: Tensor


@dataclass(frozen=True)
class MaskUpdate:
    """One update of the masks.

    Attributes:
        step: optimizer steps taken.
        progress: fraction of the pruning schedule that has passed, in [0, 1].
        density: kept / all weights over all layers, in [0, 1].
        layers: the same per layer.
        connections: weights on a live path, a count.
        born: connections grown per layer, a count.
        dropped: connections dropped per layer, a count.
        rates: firing rate of the inputs of each layer since the last update, per step, in [0, 1]; empty if unrecorded.
        spent: of the budget, by the masks before this update; None where there is no budget.
    """

    step: int
    progress: float
    density: float
    layers: dict[str, float]
    connections: int
    born: dict[str, int]
    dropped: dict[str, int]
    rates: dict[str, float] = field(default_factory=dict)
    spent: float | None = None


@dataclass(frozen=True)
class Epoch:
    """One pass over the training part, and the validation after it.

    Attributes:
        epoch: its number, from 1.
        epochs: how many there will be.
        step: optimizer steps taken.
        loss: mean training loss.
        accuracy: on the training part, while training, in [0, 1].
        validation_loss: mean cross-entropy on the validation part.
        validation_accuracy: in [0, 1].
        density: kept / all weights, in [0, 1].
        rates: firing rate of each neuron layer on the validation part, per step, in [0, 1].
        lr: learning rate of the first group at the end of the epoch.
        seconds: wall time of the training pass.
        connections: weights on a live path, a count; None after an epoch that is not to be counted.
        synops_per_sample: synaptic operations on the validation part; likewise.
        energy_pj_per_sample: the energy model's total there; likewise.
        elapsed: wall seconds of the run so far, those before an interruption too; known to runs of recipes.
        silent: share of the neurons of each neuron layer that never fired on the validation part, in [0, 1].
    """

    epoch: int
    epochs: int
    step: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    density: float
    rates: dict[str, float]
    lr: float
    seconds: float
    connections: int | None = None
    synops_per_sample: float | None = None
    energy_pj_per_sample: float | None = None
    elapsed: float = 0.0
    silent: dict[str, float] = field(default_factory=dict)


Event: TypeAlias = Step | MaskUpdate | Epoch
