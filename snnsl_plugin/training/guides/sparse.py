"""A sparse network of the last generation teaches."""

from __future__ import annotations

from torch import nn

from snnsl_plugin.training.guides._network import NetworkGuide


def sparse(network: nn.Module, *, run: str | None = None) -> NetworkGuide:
    """A frozen, pruned SNN as guide: the reverse of ordinary distillation, where the larger one teaches.

    The roles are those of Yuan et al. 2020 (Re-KD, the student teaches its teacher), with sparsity for weakness.

    Args:
        network: the pruned network; frozen in place. A recipe loads it from `run`.
        run: the finished run folder it comes from.
    """
    return NetworkGuide(network)
