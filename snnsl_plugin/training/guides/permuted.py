"""A network teaches whose opinion of the wrong classes is shuffled: the control that tells knowledge from smoothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnsl_plugin.training.guides._lesson import Lesson, Softening
from snnsl_plugin.training.guides._network import NetworkGuide
from snnsl_plugin.training.seeds import generator


def permuted(network: nn.Module, *, run: str | None = None, seed: int = 0) -> PermutedGuide:
    """A frozen network as guide, with the probabilities of the wrong classes in random order.

    The true class keeps its probability, so the answer is as confident and as uneven as before, and says nothing about
    which classes are alike ("dark knowledge"; permuted as by Furlanello et al. 2018). Every sample, and with `per_step`
    every time step, has an order of its own, drawn anew at each training step.

    Args:
        network: the trained network; frozen in place. A recipe loads it from `run`.
        run: the finished run folder it comes from.
        seed: of the orders.
    """
    return PermutedGuide(network, seed)


class PermutedGuide(NetworkGuide):
    """Asks a network, and shuffles what it thinks of wrong classes.

    Args:
        network: see `permuted`.
        seed: likewise.
    """

    def __init__(self, network: nn.Module, seed: int) -> None:
        super().__init__(network)
        self._seed, self._step = seed, 0

    def observe(self, model: nn.Module, step: int) -> None:
        """Takes another order for the coming step; a resumed run goes on with the one it would have had."""
        self._step = step

    @torch.no_grad()
    def __call__(self, x: Tensor, target: Tensor, classes: int, soften: Softening) -> Lesson:
        """The network's softened answer to a batch, its wrong classes shuffled."""
        answer = super().__call__(x, target, classes, soften).answer
        wrong = torch.arange(answer.shape[-1], device=answer.device) != target.unsqueeze(-1)
        wrong = wrong.expand_as(answer)
        others = answer[wrong].view(*answer.shape[:-1], -1)
        # Drawn on the CPU, so that a GPU run has the same orders.
        order = torch.rand(others.shape, generator=generator(self._seed, "permuted", self._step)).argsort(-1)
        shuffled = answer.clone()
        shuffled[wrong] = others.gather(-1, order.to(others.device)).flatten()
        return Lesson(shuffled)

    def state_dict(self) -> dict[str, int]:
        """The step that has passed."""
        return {"step": self._step}

    def load_state_dict(self, state: dict[str, int], model: nn.Module) -> None:
        """Goes on from `state_dict`."""
        self._step = state["step"]
