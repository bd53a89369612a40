"""A frozen network that teaches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.training.guides._lesson import Lesson, Softening


class NetworkGuide:
    """Asks a network in eval mode, without gradients, reset before every batch so that it never remembers the last.

    Args:
        network: takes (T, N, ...), returns (T, N, K) logits. It is frozen in place.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, x: Tensor, target: Tensor, classes: int, soften: Softening) -> Lesson:
        """The network's softened answer to a batch."""
        self.network.eval()
        reset_(self.network)
        answer = soften(self.network(x))
        reset_(self.network)
        return Lesson(answer)
