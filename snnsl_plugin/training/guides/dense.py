"""A dense network of an earlier run teaches: the ordinary direction, to compare with."""

from __future__ import annotations

from torch import nn

from snnsl_plugin.training.guides._network import NetworkGuide


def dense(network: nn.Module, *, run: str | None = None) -> NetworkGuide:
    """A frozen network as guide, as large as the learner or larger (Hinton et al. 2015).

    What is computed is what `sparse` computes; the word says which way knowledge goes.

    Args:
        network: the trained network; frozen in place. A recipe loads it from `run`.
        run: the finished run folder it comes from.
    """
    return NetworkGuide(network)
