"""Training on after a cut, with a weaker or sparser network, or a virtual teacher, as guide."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import ExitStack
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from snnsl_plugin import registry
from snnsl_plugin.anatomy import reset_
from snnsl_plugin.core.divergences.kl import kl
from snnsl_plugin.core.layer import Divergence
from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.distiller import ReverseDistiller
from snnsl_plugin.training.events import Epoch
from snnsl_plugin.training.guides._lesson import Guide
from snnsl_plugin.training.guides.sparse import sparse
from snnsl_plugin.training.loop import Pruner, Training, fit

Encoder = Callable[[Tensor], Tensor]


def reverse_kd_finetune(
    learner: nn.Module,
    guide: nn.Module | Guide | str,
    loader: Iterable[tuple[Tensor, Tensor]],
    validation: Iterable[tuple[Tensor, Tensor]] | None = None,
    *,
    epochs: int = 1,
    optimizer: Optimizer | None = None,
    lr: float | None = None,
    lr_schedule: Literal["cosine", "constant"] = "cosine",
    encode: Encoder | None = None,
    temperature: float = 4.0,
    weight: float = 0.3,
    divergence: Divergence | str = kl,
    per_step: bool = False,
    logit_scale: float = 1.0,
    clip: float | None = None,
    label_smoothing: float = 0.0,
    seed: int = 0,
    pruner: Pruner | None = None,
) -> list[Epoch]:
    """Trains a pruned network with reverse knowledge distillation (`training.distiller.ReverseDistiller`).

    Neurons are reset before every batch. What was cut stays cut. What a pruner of masks holds at zero stays so only if
    it is given: `SpikingDynamicPruner` then drops and regrows while the guide teaches. The caller's random state and
    the train flags are afterwards what they were before.

    Args:
        learner: from (T, N, ...) to logits of each step (T, N, K); trained in place, on its own device.
        guide: who teaches: a network, as a sparser one, asked in eval mode and at rest, never changed; a guide such as
            `virtual()`; or the name of one that needs no further options, `virtual` or `self`.
        loader: batches of inputs and classes (N,), with a length; a `DataLoader` will do.
        validation: the same; what the history measures after each epoch. Where omitted, that is the training part.
        epochs: passes over the loader.
        optimizer: over the learner's parameters as they are now; Adam where omitted.
        lr: of that Adam; 1e-3 where omitted.
        lr_schedule: `cosine` to 0 over all steps, or `constant`.
        encode: from a batch's inputs to (T, N, ...), e.g. `encoders.direct(T=4)`; none where the loader gives that.
        temperature: tau, > 0.
        weight: the guide's share of the loss, in [0, 1].
        divergence: between log-probabilities, a function or its registry name.
        per_step: whether every time step is taught, or the mean over time.
        logit_scale: what logits are multiplied with first, > 0.
        clip: largest gradient norm; None for no clipping.
        label_smoothing: of the cross-entropy, in [0, 1).
        seed: of each epoch's order, augmentation and random encoders.
        pruner: ends each step, as a `SpikingDynamicPruner` does.

    Returns:
        One `Epoch` each: loss and accuracy while training, and as validated.

    Raises:
        BadOption: an option out of range; an optimizer made before the cut; inputs that are not time first; a guide
            that is the learner.
        UnknownName: no guide of that name.
        Diverged: the loss is no longer finite.

    Example:
        >>> from spikingjelly.activation_based import layer, neuron
        >>> learner = nn.Sequential(layer.Linear(4, 8, step_mode="m"), neuron.LIFNode(step_mode="m"), nn.Linear(8, 3))
        >>> batches = [(torch.rand(2, 5, 4), torch.randint(0, 3, (5,)))]
        >>> history = reverse_kd_finetune(learner, "virtual", batches, epochs=2)
        >>> [epoch.epoch for epoch in history]
        [1, 2]
    """
    if epochs < 1:
        raise BadOption(f"epochs={epochs} must be at least 1")
    if not isinstance(loader, Sized) or not isinstance(validation or [], Sized):
        raise BadOption("a loader must have a length, for the learning rate's way to 0: pass a list or a DataLoader")
    optimizer = _optimizer(learner, optimizer, lr)
    device = next(learner.parameters()).device
    train = _TimeFirst(loader, encode)
    check = train if validation is None else _TimeFirst(validation, encode)
    if not len(train) or not len(check):
        raise BadOption("a loader has no batches: lower its batch size, or set drop_last=False")
    how = Training(
        epochs=epochs,
        seed=seed,
        lr_schedule=lr_schedule,
        clip=clip,
        label_smoothing=label_smoothing,
        device=device.type,
    )
    with ExitStack() as stack:
        for group in optimizer.param_groups:
            # The schedule starts from the rate that the caller sees in the optimizer, and leaves it there.
            group["initial_lr"] = group["lr"]
            stack.callback(group.__setitem__, "lr", group["lr"])
        for network in (learner, guide):
            if isinstance(network, nn.Module):
                _kept(network, stack, frozen=network is guide)
        distiller = ReverseDistiller(
            _guide(guide, learner, epochs, len(train)),
            temperature=temperature,
            weight=weight,
            divergence=divergence,
            per_step=per_step,
            logit_scale=logit_scale,
        )
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))
        events = list(fit(learner, train, check, optimizer, how, pruner=pruner, distiller=distiller))
    return [event for event in events if isinstance(event, Epoch)]


class _TimeFirst:
    """A loader as `fit` wants it; what its batches look like is checked."""

    def __init__(self, loader: Any, encode: Encoder | None) -> None:
        self._loader, self._encode = loader, encode

    def __len__(self) -> int:
        return len(self._loader)

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        # A DataLoader takes its order from the global generator, which is seeded for each epoch.
        own = getattr(self._loader, "epoch", None)
        for x, target in own(generator) if own else self._loader:
            if self._encode:
                x = self._encode(x)
            if x.dim() < 3 or x.shape[1] != len(target):
                raise BadOption(
                    f"inputs of shape {tuple(x.shape)} come with {len(target)} classes: they must be (T, N, ...); pass "
                    "encode=, e.g. snnsl_plugin.datasets.encoders.direct.direct(T=4), which repeats a picture T times"
                )
            yield x, target


def _optimizer(learner: nn.Module, given: Optimizer | None, lr: float | None) -> Optimizer:
    parameters = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    if not parameters:
        raise BadOption("no parameter of the learner is trainable: set requires_grad, or pass the other network")
    if given is None:
        return torch.optim.Adam(parameters, lr=1e-3 if lr is None else lr)
    if lr is not None:
        raise BadOption(f"lr={lr} belongs to the optimizer made here: leave it out, or leave out the optimizer")
    own = {id(parameter) for parameter in learner.parameters()}
    strange = [p for group in given.param_groups for p in group["params"] if id(p) not in own]
    if strange:
        raise BadOption(
            f"the optimizer holds {len(strange)} tensors that the learner does not have, as one made before the cut "
            "does: make a new one over learner.parameters()"
        )
    return given


def _guide(guide: Any, learner: nn.Module, epochs: int, batches: int) -> Guide:
    if isinstance(guide, nn.Module):
        shared = {id(p) for p in learner.parameters()} & {id(p) for p in guide.parameters()}
        if guide is learner or shared:
            raise BadOption(
                "guide and learner share weights, and a guide does not learn: pass copy.deepcopy(learner), or 'self'"
            )
        return sparse(guide)
    if not isinstance(guide, str):
        return guide  # type: ignore[no-any-return]
    make = registry.get("guides", guide)
    known = {"total_steps": epochs * batches, "steps_per_epoch": batches}
    parameters = inspect.signature(make).parameters
    missing = [p.name for p in parameters.values() if p.default is p.empty and p.name not in known]
    if missing:
        raise BadOption(f"guide {guide!r} needs {', '.join(missing)}: pass that network itself as the guide")
    made: Guide = make(**{word: value for word, value in known.items() if word in parameters})
    return made


def _kept(network: nn.Module, stack: ExitStack, *, frozen: bool) -> None:
    """Afterwards the network is at rest, and flags are as before."""
    for module in network.modules():
        stack.callback(setattr, module, "training", module.training)
    for parameter in network.parameters() if frozen else ():
        stack.callback(parameter.requires_grad_, parameter.requires_grad)
    stack.callback(reset_, network)
