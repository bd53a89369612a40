"""The training loop: yields what happened, and knows neither progress bars nor journals."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.errors import Diverged
from snnsl_plugin.metrics.measure import measure
from snnsl_plugin.metrics.paths import live_paths
from snnsl_plugin.training.clipping import clip_
from snnsl_plugin.training.events import Epoch, Event, MaskUpdate, Step
from snnsl_plugin.training.health._care import Care
from snnsl_plugin.training.learning_rate import Restart, learning_rate
from snnsl_plugin.training.losses import LossName, label_loss
from snnsl_plugin.training.ranks import ALONE, Ranks
from snnsl_plugin.training.replicas import average_beside_, check_reached, check_same, copy_buffers_, replicated, shared
from snnsl_plugin.training.seeds import derived, generator


class Batches(Protocol):
    """What `fit` trains on: batches of (T, N, ...) inputs and (N,) class indices."""

    def __len__(self) -> int:
        """Batches an epoch."""

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass; the generator decides the order."""


class Pruner(Protocol):
    """What `fit` asks of a pruner: a `DynamicPruner`, or one that drives another host's."""

    @property
    def density(self) -> float:
        """Kept / all weights, in [0, 1]."""

    def step(self, *, applied: bool) -> MaskUpdate | None:
        """Ends one training step."""

    def by_parameter(self) -> dict[nn.Parameter, Tensor]:
        """The masks of parameters whose dead gradients are not to be counted."""


@runtime_checkable
class Regularizer(Protocol):
    """A pruner that has a say in the gradients before the optimizer takes its step."""

    def regularize_(self) -> None:
        """Adds to the gradients, in place."""


@runtime_checkable
class Learner(Protocol):
    """A pruner that learns something beside the weights."""

    def score_optimizer(self) -> Optimizer | None:
        """Whose gradients are scaled with the loss too; None where there is none now."""


@runtime_checkable
class Restarting(Protocol):
    """A pruner that may train a network over and over."""

    def round_position(self, step: int) -> float | None:
        """Where the learning rate stands after a step, in [0, 1]; None where that is the share of the training."""


class Loss(Protocol):
    """What `fit` asks of a distiller: a `ReverseDistiller`, or one that a host has patched."""

    def loss(self, logits: Tensor, target: Tensor, *, x: Tensor, label_smoothing: float, loss: LossName) -> Tensor:
        """The loss of one batch, a scalar."""

    def observe(self, model: nn.Module, step: int) -> None:
        """Is told that a step has passed."""


@dataclass(frozen=True)
class Training:
    """How to train.

    Attributes:
        epochs: passes over the training part, >= 1.
        seed: of batch order, augmentation and random encoders; each epoch has its own stream, so a resumed run needs
            no generator state.
        lr_schedule: `cosine` to 0 over all steps, `constant`, or a `Restart`. Where the pruner rewinds the network,
            each round follows it, from the step rewound to.
        clip: largest gradient norm, dead gradients not counted; None for no clipping.
        amp: automatic mixed precision: bfloat16 on a CPU, float16 with loss scaling on a GPU.
        label_smoothing: of the cross-entropy, in [0, 1).
        loss: what the labels say: `cross_entropy`, or `mse` for a readout that is a rate.
        device: where batches go.
        counted: numbers of the epochs after which connections and operations are counted as well.
    """

    epochs: int
    seed: int = 0
    lr_schedule: str | Restart = "cosine"
    clip: float | None = None
    amp: bool = False
    label_smoothing: float = 0.0
    loss: LossName = "cross_entropy"
    device: str = "cpu"
    counted: Collection[int] = ()


def fit(
    model: nn.Module,
    train: Batches,
    validation: Batches,
    optimizer: Optimizer,
    how: Training,
    *,
    pruner: Pruner | None = None,
    distiller: Loss | None = None,
    scaler: GradScaler | None = None,
    health: Sequence[Care] = (),
    epochs_done: int = 0,
    ranks: Ranks = ALONE,
) -> Iterator[Event]:
    """Trains, and yields a `Step` a batch, a `MaskUpdate` where one was due, and an `Epoch` after each validation.

    Each epoch seeds torch's global generator. While the caller holds an `Epoch`, nothing is half done: that is the
    moment to write a checkpoint.

    Several ranks share each batch of `train` and take the same steps. Random numbers of augmentation, encoders and
    dropout differ from rank to rank; buffers are those of rank 0. A `Step` has the loss of the rank's own share, an
    `Epoch` that of all. Every rank validates on the whole part, so that none waits long for another, and tells what
    rank 0 has found.

    Args:
        model: takes (T, N, ...), returns (T, N, K) logits; its neurons are reset before every batch.
        train: the training part.
        validation: the held-out part.
        optimizer: over the model's parameters; its learning rates are the schedule's start.
        how: epochs, seed, schedule and so on.
        pruner: ends each step, if given.
        distiller: makes the loss, if given.
        scaler: scales the loss; `scaler_for(how)` where omitted. To resume under `amp` on a GPU, pass one and keep its
            state.
        health: who looks after the signal; entered by the caller.
        epochs_done: epochs that a resumed run has behind it.
        ranks: the processes that train this network together; each calls `fit` and takes every event.

    Raises:
        BadOption: an unknown learning rate schedule; several ranks, and batches or a network that they cannot share.
        Diverged: the loss is not finite.
    """
    total = how.epochs * len(train)
    schedule = learning_rate(how.lr_schedule, total_steps=total, steps_per_epoch=len(train))
    scaler = scaler or scaler_for(how)
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    regularizer = pruner if isinstance(pruner, Regularizer) else None
    rounds = pruner if isinstance(pruner, Restarting) else None
    replica = replicated(model, ranks)
    own_stream = ("rank", ranks.rank) if ranks.rank else ()
    step = epochs_done * len(train)
    if distiller and step == 0:
        distiller.observe(model, 0)
    for epoch in range(epochs_done + 1, how.epochs + 1):
        torch.manual_seed(derived(how.seed, "epoch", epoch, *own_stream))
        model.train()
        began, losses, right, seen = time.perf_counter(), 0.0, 0.0, 0.0
        for x, target, weight in shared(train, generator(how.seed, "order", epoch), ranks):
            x, target = x.to(how.device), target.to(how.device)
            position = rounds.round_position(step) if rounds else None
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * schedule(step / total if position is None else position)
            reset_(model)
            for care in health:
                care.before_step(step + 1)
            # What a rank without a sample is given must not be counted, and statistics go by uncounted in eval mode.
            if ranks.world_size > 1:
                model.train(weight > 0)
            with torch.autocast(how.device, enabled=how.amp):
                logits = replica(x)
                if distiller:
                    loss = distiller.loss(logits, target, x=x, label_smoothing=how.label_smoothing, loss=how.loss)
                else:
                    loss = label_loss(how.loss, logits, target, label_smoothing=how.label_smoothing)
            for care in health:
                if (penalty := care.penalty()) is not None:
                    loss = loss + penalty
            mean = ranks.sum(float(loss.detach()) * weight if weight else 0.0)[0] / ranks.world_size
            if not math.isfinite(mean):
                raise Diverged(
                    f"the loss is {mean} at step {step + 1} (epoch {epoch}): lower "
                    "train.optimizer.lr, or set train.clip, e.g. 1.0"
                )
            scaler.scale(loss * weight).backward()  # type: ignore[no-untyped-call]
            if step == epochs_done * len(train):
                check_reached(model, ranks)
            average_beside_(optimizer, model, ranks)
            scaler.unscale_(optimizer)  # clipping, criteria and growths want the gradients as they are
            if isinstance(pruner, Learner) and (scores := pruner.score_optimizer()):
                scaler.unscale_(scores)
            if regularizer:
                regularizer.regularize_()
            if how.clip is not None:
                # Asked for anew: a pruner that cuts channels leaves other parameters behind.
                parameters = [p for group in optimizer.param_groups for p in group["params"]]
                clip_(parameters, how.clip, pruner.by_parameter() if pruner else {})
            scaler.step(optimizer)
            scale = scaler.get_scale()
            scaler.update()
            step += 1
            copy_buffers_(model, ranks)
            change = pruner.step(applied=scaler.get_scale() >= scale) if pruner else None
            if change:
                for care in health:
                    care.after_update(step)
            if distiller:
                distiller.observe(model, step)
            optimizer.zero_grad()
            if weight:
                losses += float(loss.detach()) * len(target)
                right += int((logits.detach().mean(0).argmax(-1) == target).sum())
                seen += len(target)
            yield Step(step, total, loss.detach())
            if change:
                yield change
        seconds = time.perf_counter() - began
        losses, right, seen = ranks.sum(losses, right, seen)
        check_same(model, ranks, f"after epoch {epoch}")
        reset_(model)
        counted = epoch in how.counted
        checked = measure(model, batches(validation, how.device), synops=counted)
        event = Epoch(
            epoch=epoch,
            epochs=how.epochs,
            step=step,
            loss=losses / seen,
            accuracy=right / seen,
            validation_loss=checked.loss,
            validation_accuracy=checked.accuracy,
            density=pruner.density if pruner else 1.0,
            rates=checked.firing_rate,
            lr=optimizer.param_groups[0]["lr"],
            seconds=seconds,
            connections=_connections(model, validation, how.device) if counted else None,
            synops_per_sample=checked.synops_per_sample,
            energy_pj_per_sample=checked.energy_pj_per_sample.get("total"),
            silent=checked.silent,
        )
        yield ranks.first(lambda event=event: event)  # type: ignore[misc]


def _connections(model: nn.Module, part: Batches, device: str) -> int:
    with closing(batches(part, device)) as drawn:
        return live_paths(model, next(drawn)[0][:, :1]).connections


def scaler_for(how: Training) -> GradScaler:
    """The loss scaler of a training: at work only under `amp` on a GPU."""
    return GradScaler(how.device, enabled=how.amp and how.device != "cpu")


def batches(part: Batches, device: str, seed: int = 0) -> Generator[tuple[Tensor, Tensor], None, None]:
    """One pass over a part, always the same one, on a device.

    Random encoders draw from the global generator, which is set for the pass and restored after it.
    """
    before = torch.get_rng_state()
    torch.manual_seed(derived(seed, "evaluation"))
    try:
        for x, target in part.epoch(generator(seed, "evaluation")):
            yield x.to(device), target.to(device)
    finally:
        torch.set_rng_state(before)
