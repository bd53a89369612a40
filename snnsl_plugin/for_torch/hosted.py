"""A pruner that only masks, in the training loop: what it leaves in the network is all that is asked of it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import weight_layers, weight_name
from snnsl_plugin.core import masks as mask_functions
from snnsl_plugin.errors import BadCheckpoint, BadOption, CannotCut
from snnsl_plugin.for_torch.randomness import own_random_numbers
from snnsl_plugin.for_torch.torch_masks import make_permanent_, mask_of, refresh_
from snnsl_plugin.metrics.paths import live_paths
from snnsl_plugin.training.events import MaskUpdate

_log = logging.getLogger(__name__)
#: Of a pruner that changes something at every step is told every so many.
_TELL_EVERY = 10


class Steps(Protocol):
    """The least that a pruner is; what it may have besides is named in `HostedPruner`."""

    def step(self) -> None:
        """Is called after each step of the optimizer, while the gradients are still there."""


def nobody_asks() -> None:
    """What is called where nobody wants to know."""


class HostedPruner:
    """Gives a loop all that it asks of a pruner, from one that has no more than `step()`.

    A connection is pruned where the weight that the network computes with is exactly zero, or where a mask of
    torch.nn.utils.prune says so. Masks are read after each step, and a change of them is told. Whatever the pruner
    draws from torch's global generators comes from a stream of its own.

    The pruner may have, and is believed:
        until: the step after which its masks stay; the end of the training where it is missing.
        at_once: True where there is nothing masked before `until`.
        prunable: names of the layers it prunes; all where it is missing.
        requested: weights that are to be left, by layer; an outcome where it is missing or empty.
        finish(): makes what it has put into the network permanent; what torch.nn.utils.prune has put there is anyway.
        state_dict(), load_state_dict(state): plain data and tensors. The weights are loaded afterwards: to load is to
            put masks, hooks or parametrizations back. Without the two a run that was killed begins anew.

    Args:
        make: puts the pruner to work on the model and returns it.
        model: from (T, N, ...) to (T, N, K); masked in place.
        name: what it is called in sentences.
        example: an input of the model, (T, N, ...).
        total_steps: of the whole training.
        seed: of what it draws.
        density: share of the prunable weights it was asked to leave, in (0, 1]; None where that is an outcome.

    Raises:
        BadOption: what was made has no `step()`.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        model: nn.Module,
        *,
        name: str,
        example: Tensor,
        total_steps: int,
        seed: int = 0,
        density: float | None = None,
    ) -> None:
        self._model, self.name, self._seed = model, name, seed
        self._example, self._total, self._density = example[:, :1].detach().clone(), total_steps, density
        self._modules = weight_layers(model)
        self._shapes = {key: module.weight.shape for key, module in self._modules.items()}
        self._keys = set(model.state_dict())
        self.step_number = self.born = self._skipped = self._told = 0
        # Masks that were made before training are told of after its first step.
        self._seen = {weight_name(key): torch.ones(shape, dtype=torch.bool) for key, shape in self._shapes.items()}
        self._since_event: dict[str, Counter[str]] = {"born": Counter(), "dropped": Counter()}
        with own_random_numbers(seed, name, 0):
            self._pruner: Steps = make()
        if not callable(getattr(self._pruner, "step", None)):
            raise BadOption(
                f"pruner {name!r} gave something of type {type(self._pruner).__name__}: let it return an object with "
                "step()"
            )
        refresh_(model)

    # -------------------------------------------------------------------------------------------- what a loop needs

    @property
    def masks(self) -> dict[str, Tensor]:
        """The mask of every layer, bool, by unwrapped dotted parameter name; all True where nothing is pruned."""
        return {weight_name(name): mask_of(module) for name, module in self._modules.items()}

    @property
    def density(self) -> float:
        """Kept / all weights over all convolutions and linear layers, in [0, 1]."""
        return mask_functions.density(self.masks.values())

    @property
    def prunable(self) -> list[str]:
        """Dotted module names of the layers that are pruned."""
        return list(getattr(self._pruner, "prunable", self._modules))

    @property
    def target(self) -> float | None:
        """What the density of the prunable weights comes to over all layers, in (0, 1]; None where it is an outcome."""
        if self._density is None:
            return None
        dropped = (1.0 - self._density) * sum(self._shapes[name].numel() for name in self.prunable)
        return round(1.0 - dropped / self._weights, 12)

    @property
    def until(self) -> int:
        """The step of the last change of the masks."""
        return min(self._own_until + self._skipped, self._total)

    @property
    def requested(self) -> dict[str, int]:
        """Weights that are to be left, by layer; empty where that is an outcome."""
        return dict(getattr(self._pruner, "requested", {}))

    @property
    def resumable(self) -> bool:
        """Whether a run can go on from its middle."""
        return all(callable(getattr(self._pruner, word, None)) for word in ("state_dict", "load_state_dict"))

    def planned_density(self, step: int) -> float | None:
        """The density over all layers asked for after a step, in (0, 1]; None where only the pruner knows."""
        if step < self.until:
            return 1.0 if getattr(self._pruner, "at_once", False) else None
        if self.requested:
            sizes = {name: shape.numel() for name, shape in self._shapes.items()}
            return sum((sizes | self.requested).values()) / self._weights
        return self.target

    def planned_counts(self) -> dict[str, int]:
        """Weights that are to be left, by layer; empty where that is an outcome."""
        return self.requested

    def by_parameter(self) -> dict[nn.Parameter, Tensor]:
        """Masks of the parameters whose dead gradients are not to be counted: those of plain weights."""
        # Beneath a mask of torch.nn.utils.prune there is no gradient where nothing is kept.
        plain = {name: module._parameters.get("weight") for name, module in self._modules.items()}
        return {weight: mask_of(self._modules[name]) for name, weight in plain.items() if weight is not None}

    def step(self, *, applied: bool = True) -> MaskUpdate | None:
        """Ends one training step.

        Args:
            applied: False where the optimizer skipped it (loss scaling met an overflow). The pruner is told nothing of
                it, so all that is to come is a step later then.

        Returns:
            What an update changed; None where there was none.

        Raises:
            CannotCut: a weight has another shape now.
        """
        self.step_number += 1
        if not applied:
            self._skipped += self._own_step < self._own_until
            return None
        with own_random_numbers(self._seed, self.name, self.step_number):
            self._pruner.step()
        refresh_(self._model)
        return self._looked()

    def finish(self) -> None:
        """Makes the masks permanent, in place: what is left is the network that was given, with zeros in it."""
        if callable(finish := getattr(self._pruner, "finish", None)):
            with own_random_numbers(self._seed, self.name, "finish"):
                finish()
        make_permanent_(self._model)
        if left := sorted(set(self._model.state_dict()) ^ self._keys):
            _log.warning(
                "%s leaves a network that is not the one it was given (%s): let its finish() take out what it has put "
                "in, or its checkpoint cannot be loaded",
                self.name,
                ", ".join(left[:3]),
            )

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs beside the network, in plain data and tensors."""
        return {
            "step": self.step_number,
            "skipped": self._skipped,
            "told": self._told,
            "born": self.born,
            "seen": dict(self._seen),
            "since_event": {word: dict(counts) for word, counts in self._since_event.items()},
            "pruner": self._pruner.state_dict() if self.resumable else {},  # type: ignore[attr-defined]
        }

    def load_state_dict(self, state: Mapping[str, Any], *, while_plain: Callable[[], None] = nobody_asks) -> None:
        """Goes on from `state_dict`: puts into the model what the pruner had put there, its weights not yet loaded.

        Args:
            state: of a pruner with the same options of the same model.
            while_plain: is called when the model holds no mask of torch.nn.utils.prune, and before the pruner's turn.

        Raises:
            BadCheckpoint: it belongs to another model, or the pruner can load nothing.
        """
        if not self.resumable:
            raise BadCheckpoint(f"{self.name} has no state_dict() and load_state_dict(): start anew")
        if state["seen"].keys() != self._seen.keys():
            raise BadCheckpoint(f"this state of {self.name} is of another model: resume with the one it was made by")
        make_permanent_(self._model)
        while_plain()
        with own_random_numbers(self._seed, self.name, "load"):
            self._pruner.load_state_dict(state["pruner"])  # type: ignore[attr-defined]
        self.step_number, self._skipped = state["step"], state["skipped"]
        self._told, self.born, self._seen = state["told"], state["born"], dict(state["seen"])
        self._since_event = {word: Counter(counts) for word, counts in state["since_event"].items()}

    # ------------------------------------------------------------------------------------------------------- inside

    @property
    def _weights(self) -> int:
        return sum(shape.numel() for shape in self._shapes.values())

    @property
    def _own_step(self) -> int:
        return self.step_number - self._skipped

    @property
    def _own_until(self) -> int:
        return int(getattr(self._pruner, "until", self._total))

    def _looked(self) -> MaskUpdate | None:
        masks = self.masks
        for name in self._modules:
            key = weight_name(name)
            now, before = masks[key], self._seen[key].to(masks[key].device)
            if now.shape != before.shape:
                raise CannotCut(
                    f"{self.name} gave the weight of {name!r} the shape {tuple(now.shape)} instead of "
                    f"{tuple(before.shape)}: let it mask channels and not cut them, or use torch_pruning.*"
                )
            self._since_event["born"][name] += int(mask_functions.grown(before, now).count_nonzero())
            self._since_event["dropped"][name] += int(mask_functions.grown(now, before).count_nonzero())
            self._seen[key] = now
        changed = sum(counts.total() for counts in self._since_event.values())
        last = self.step_number in (self.until, self._total)
        if not changed or (self._told and self.step_number - self._told < _TELL_EVERY and not last):
            return None
        self._told = self.step_number
        counts, self._since_event = self._since_event, {"born": Counter(), "dropped": Counter()}
        self.born += counts["born"].total()
        live = live_paths(self._model, self._example, masks=masks).live
        return MaskUpdate(
            step=self.step_number,
            progress=min(1.0, self._own_step / self._own_until) if self._own_until else 1.0,
            density=mask_functions.density(masks.values()),
            layers={name: mask_functions.density([masks[weight_name(name)]]) for name in self._modules},
            connections=sum(int(mask.count_nonzero()) for mask in live.values()),
            born={name: counts["born"][name] for name in self._modules},
            dropped={name: counts["dropped"][name] for name in self._modules},
        )
