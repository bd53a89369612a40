"""Runs whose network gets smaller: how one goes on from its checkpoint, and how its end is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import nn

from snnsl_plugin.errors import BadCheckpoint
from snnsl_plugin.recipe import folder

if TYPE_CHECKING:
    from snnsl_plugin.compaction.history import History
    from snnsl_plugin.for_nni.patched_loss import PatchedLoss
    from snnsl_plugin.training.distiller import ReverseDistiller


@runtime_checkable
class Cutting(Protocol):
    """A pruner that leaves a smaller network behind."""

    #: what has been cut
    history: History

    def load_state_dict(self, state: dict[str, Any], *, at_each_cut: Callable[[], None]) -> None:
        """Goes on from `state_dict`: cuts the dense model as it was cut, in place, and tells of each cut."""


def go_on_(
    pruner: Cutting, model: nn.Module, distiller: ReverseDistiller | PatchedLoss | None, tree: dict[str, Any]
) -> None:
    """Cuts a fresh network as that of a checkpoint was cut, in place; its weights are loaded by the caller.

    Args:
        pruner: of this network.
        model: the dense network.
        distiller: whose guide may be the network as it was before, between or after the cuts.
        tree: the checkpoint.

    Raises:
        BadCheckpoint: it belongs to another network.
    """
    waiting = distiller

    def try_guide() -> None:
        nonlocal waiting
        if waiting is None:
            return
        try:
            waiting.load_state_dict(tree["distiller"], model)
        except RuntimeError:  # other shapes: the guide is of a later day
            return
        waiting = None

    try_guide()
    pruner.load_state_dict(tree["pruner"], at_each_cut=try_guide)
    if waiting is not None:
        raise BadCheckpoint("the guide of this checkpoint is of another network: start anew with another --run-dir")


def save(run_dir: Path, model: nn.Module, pruner: Cutting) -> None:
    """Writes the network that is left, in a file that a fresh dense network can be cut by."""
    from snnsl_plugin.compaction.checkpoint import save_compact

    save_compact(run_dir / folder.COMPACT, model, pruner.history)
