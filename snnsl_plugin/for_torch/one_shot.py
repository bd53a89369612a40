"""Masks that torch.nn.utils.prune makes once, in the middle of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune

from snnsl_plugin.anatomy import matched, weight_layers, weight_name
from snnsl_plugin.errors import BadCheckpoint, BadOption
from snnsl_plugin.for_torch.randomness import own_random_numbers
from snnsl_plugin.for_torch.torch_masks import make_permanent_, mask_of
from snnsl_plugin.training.duration import steps

#: prunes modules, each by an amount: of weights, or of output channels
Prune = Callable[[Sequence[nn.Module], Sequence[int]], None]


class OneShot:
    """Trains dense to a step, has the masks made there, and leaves them as they are.

    Torch's semantics hold: `weight_orig` is what the optimizer sees, has no gradient where it is masked, and moves
    there by old moments and by weight decay alone; what the network computes with is exactly zero.

    Args:
        model: masked in place.
        function: of torch.nn.utils.prune, on many modules at once.
        density: share of the prunable weights that is kept, in (0, 1].
        start: when the masks are made, a duration; `0it` is before training.
        layers: shell-style patterns of the convolutions and linear layers to prune.
        exclude: patterns to leave dense; where None the last layer if whole channels go, else none.
        total_steps: what a percentage refers to.
        steps_per_epoch: what epochs refer to.
        by_channel: whether the function is told how many output channels are to go.
        together: whether it is told of one amount, for all modules together.
        seed: of random choices.

    Raises:
        BadOption: a density outside (0, 1] or one that leaves a layer nothing, masks for nobody, a weight that torch
            cannot prune.
        NothingMatched: a pattern that matches no layer.
    """

    #: before `until` nothing is masked, after it all that will ever be
    at_once = True

    def __init__(
        self,
        model: nn.Module,
        function: Prune,
        *,
        density: float,
        start: str,
        layers: Sequence[str],
        exclude: Sequence[str] | None,
        total_steps: int,
        steps_per_epoch: int,
        by_channel: bool = False,
        together: bool = False,
        seed: int = 0,
    ) -> None:
        if not 0.0 < density <= 1.0:
            raise BadOption(f"density={density}: the share of weights kept must be in (0, 1]")
        self.until = _step(start, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
        self._model, self._prune, self._seed = model, function, seed
        modules = weight_layers(model)
        if exclude is None:
            exclude = list(modules)[-1:] if by_channel else []
        chosen = matched(list(modules), list(layers), list(exclude))
        self._modules = {name: modules[name] for name in chosen}
        _check_plain(self._modules)
        shapes = {name: module.weight.shape for name, module in self._modules.items()}
        if together:
            total = sum(shape.numel() for shape in shapes.values())
            self.kept, counts = _rounded("all layers together", total, density), {}
            self._amounts = [total - self.kept]
        else:
            # A whole number is what torch takes as it is; of a share it would round another way in each function.
            units = {name: shape[0] if by_channel else shape.numel() for name, shape in shapes.items()}
            stay = {name: _rounded(f"layer {name!r}", n, density) for name, n in units.items()}
            self._amounts = [n - stay[name] for name, n in units.items()]
            counts = {name: stay[name] * shapes[name].numel() // units[name] for name in units}
            self.kept = sum(counts.values())
        #: weights that stay, by layer; empty where layers share them by rank
        self.requested: dict[str, int] = counts
        self._done = 0
        if self.until == 0:
            self._make()

    @property
    def prunable(self) -> list[str]:
        """Dotted module names of the layers that are pruned."""
        return list(self._modules)

    def step(self) -> None:
        """Ends a step of the optimizer.

        Raises:
            BadOption: torch left another number of weights than it was asked to.
        """
        self._done += 1
        if self._done == self.until:
            self._make()

    def finish(self) -> None:
        """Makes the masks permanent, in place: parameters are plain again, masked ones are zero (`prune.remove`)."""
        make_permanent_(self._model)

    def state_dict(self) -> dict[str, Any]:
        """How far it is, and the masks, bool, by parameter name; none before they are made."""
        made = self._done >= self.until
        masks = {weight_name(name): mask_of(module) for name, module in self._modules.items()} if made else {}
        return {"step": self._done, "masks": masks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state_dict`: the masks are put into the network, its weights are loaded afterwards.

        Raises:
            BadCheckpoint: it is of other layers.
        """
        masks, own = state["masks"], {weight_name(name): module for name, module in self._modules.items()}
        if masks and masks.keys() != own.keys():
            raise BadCheckpoint("the masks are of other layers: resume with the model and options they were made by")
        make_permanent_(self._model)
        for name, mask in masks.items():
            prune.custom_from_mask(own[name], "weight", mask.to(own[name].weight))  # type: ignore[no-untyped-call]
        self._done = state["step"]

    def _make(self) -> None:
        modules = list(self._modules.values())
        with own_random_numbers(self._seed, "torch.nn.utils.prune"), torch.no_grad():
            self._prune(modules, self._amounts)
        counts = {name: int(mask_of(module).count_nonzero()) for name, module in self._modules.items()}
        if sum(counts.values()) != self.kept or (self.requested and counts != self.requested):
            raise BadOption(
                f"torch.nn.utils.prune was to leave {self.kept} weights and left {sum(counts.values())}, as it does "
                "where two random numbers are equal: choose another seed"
            )


def _step(start: str, *, total_steps: int, steps_per_epoch: int) -> int:
    at = steps(start, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    if at >= total_steps:
        raise BadOption(
            f"start is {start!r} (step {at}) and the training ends at step {total_steps}, so nothing would be trained "
            "with the masks: let it be earlier"
        )
    return at


def _rounded(where: str, units: int, density: float) -> int:
    stay = round(density * units)
    if stay < 1:
        raise BadOption(
            f"at density {density:g} {where} would keep none of {units}, so nothing could pass: raise the density, or "
            "exclude it"
        )
    return stay


def _check_plain(modules: Mapping[str, nn.Module]) -> None:
    owners: dict[int, str] = {}
    for name, module in modules.items():
        weight = module._parameters.get("weight")
        if weight is None:
            raise BadOption(
                f"the weight of {name!r} is computed from others (a parametrization, or a mask that is there already), "
                "and torch.nn.utils.prune takes plain parameters: remove that, or exclude the layer"
            )
        if (other := owners.setdefault(id(weight), name)) != name:
            raise BadOption(f"{other!r} and {name!r} share one weight, and torch would give each its own: exclude both")
