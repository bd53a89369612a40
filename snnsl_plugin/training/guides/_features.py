"""Outputs of hidden layers, brought into one form to be compared."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnsl_plugin.anatomy import as_found, unwrapped
from snnsl_plugin.errors import BadOption, MissingStatistic, NothingMatched, did_you_mean
from snnsl_plugin.training.seeds import generator


class Tap:
    """Keeps what a layer gives in a pass of its network, until it is asked.

    Args:
        network: whose pass; each new one forgets the last.
        layer: dotted module name.
        trained: whether passes without gradients, such as a validation, go by.
        timed: whether the network has time steps.

    Raises:
        NothingMatched: there is no such layer.
    """

    def __init__(self, network: nn.Module, layer: str, *, trained: bool = False, timed: bool = True) -> None:
        network = unwrapped(network)
        known = {name: module for name, module in network.named_modules() if name}
        if layer not in known:
            raise NothingMatched(
                f"{type(network).__name__} has no layer {layer!r}{did_you_mean(layer, known)} (layers: "
                f"{', '.join(known) or 'none'})"
            )
        self._layer, self._timed, outputs = layer, timed, list[Tensor]()
        own = known[layer]

        # Closures, so that a copy of the network carries neither this object nor what it keeps.
        def forget(module: nn.Module, args: Any) -> None:
            if module is network:
                outputs.clear()

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            if module is own and (torch.is_grad_enabled() or not trained):
                # A copy, because what follows may work in place, as ReLU does in torchvision's networks.
                outputs.append((output[0] if isinstance(output, tuple) else output).clone())

        self._outputs = outputs
        self._handles = [network.register_forward_pre_hook(forget), own.register_forward_hook(keep)]

    def mean(self, steps: int, samples: int) -> Tensor:
        """The mean over time of the last pass, (N, C, ...), which is then forgotten.

        Args:
            steps: T of that pass; a layer that ran once gave all of them, (T, N, ...) or (T N, ...), or one for all.
            samples: N of that pass.

        Raises:
            MissingStatistic: the layer did not run.
            BadOption: what it gave has neither steps nor samples in front.
        """
        outputs = list(self._outputs)
        self._outputs.clear()
        if not outputs:
            raise MissingStatistic(
                f"layer {self._layer!r} gave no output in this pass: name one that the network runs, and call the "
                "network itself before the loss, with gradients"
            )
        if len(outputs) > 1:
            if not self._timed or len(outputs) != steps:
                raise BadOption(
                    f"layer {self._layer!r} ran {len(outputs)} times in one pass of "
                    f"{f'{steps} steps' if self._timed else 'a network without steps'}: name one that runs once"
                    + (", or once a step" if self._timed else "")
                )
            return torch.stack(outputs).mean(0)
        (output,) = outputs
        if self._timed and output.shape[:2] == (steps, samples):
            return output.mean(0)
        if output.shape[0] == samples:
            return output
        if self._timed and output.shape[0] == steps * samples:
            return output.reshape(steps, samples, *output.shape[1:]).mean(0)
        raise BadOption(
            f"layer {self._layer!r} gives {tuple(output.shape)} for {steps} steps of {samples} samples: name one whose "
            "output begins with steps and samples"
        )

    def close(self) -> None:
        """Removes the hooks."""
        for handle in self._handles:
            handle.remove()


class Matching:
    """The squared distance of the learner's features from the guide's, both as means over time.

    Where the two have different widths, a 1x1 convolution without bias (for flat features a linear map) takes the
    learner's channels to the guide's; its weight is trained with the learner.

    Args:
        learner: takes (T, N, ...).
        network: the guide's, likewise.
        example: an input of both, (T, N, ...).
        layers: the learner's and the guide's.
        seed: of the first weights of the map.
        timed: whether the guide's network has time steps.

    Raises:
        NothingMatched: a layer that is not there.
        BadOption: features of other sites, such as maps of another size.
    """

    def __init__(
        self,
        learner: nn.Module,
        network: nn.Module,
        example: Tensor,
        layers: tuple[str, str],
        *,
        seed: int,
        timed: bool,
    ) -> None:
        mine, theirs = _shape(learner, layers[0], example), _shape(network, layers[1], example, timed=timed)
        if mine[1:] != theirs[1:]:
            raise BadOption(
                f"layer {layers[0]!r} of the learner gives {tuple(mine)} and layer {layers[1]!r} of the guide "
                f"{tuple(theirs)} a sample: name layers whose outputs differ in nothing but their channels"
            )
        #: (the guide's channels, the learner's), or None where they are as many
        self.align: nn.Parameter | None = None
        if mine != theirs:
            bound = 1.0 / math.sqrt(mine[0])
            drawn = torch.rand(theirs[0], mine[0], generator=generator(seed, "align", layers[0])) * 2 * bound - bound
            self.align = nn.Parameter(drawn.to(next(learner.parameters())))
        self._learner = Tap(learner, layers[0], trained=True)
        self._guide = Tap(network, layers[1], timed=timed)

    def distance(self, x: Tensor) -> Tensor:
        """Of the passes that both have made on a batch, the mean over samples and features: a scalar with a gradient.

        Args:
            x: what both were called with, (T, N, ...).
        """
        mine, theirs = (tap.mean(*x.shape[:2]) for tap in (self._learner, self._guide))
        if self.align is not None:
            mine = torch.einsum("gc,nc...->ng...", self.align, mine.to(self.align.dtype))
        return F.mse_loss(mine, theirs.detach().to(mine.dtype))

    def close(self) -> None:
        """Removes the hooks."""
        self._learner.close()
        self._guide.close()


@torch.no_grad()
def _shape(network: nn.Module, layer: str, example: Tensor, *, timed: bool = True) -> torch.Size:
    """Of one sample's features, (C, ...)."""
    tap = Tap(network, layer, timed=timed)
    try:
        with as_found(network):
            network.eval()
            network(example)
            return tap.mean(*example.shape[:2]).shape[1:]
    finally:
        tap.close()
