"""What changes where several processes train one recipe: what is refused, and that one of them keeps the folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from snnsl_plugin.errors import BadOption, BadRecipe
from snnsl_plugin.recipe import folder
from snnsl_plugin.recipe.digest import digest
from snnsl_plugin.recipe.nni_types import NniPruning
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.recipe.torch_pruning_types import Cut, SpikingDynamic
from snnsl_plugin.recipe.torch_types import HostedPruning
from snnsl_plugin.tracking.journal import Journal
from snnsl_plugin.training.pooling import in_parallel
from snnsl_plugin.training.ranks import Ranks


class Unwritten:
    """The journal of a rank that keeps none."""

    offset = 0

    def write(self, event: str, step: int, metrics: Any = None, **facts: Any) -> None:
        """Writes nothing."""

    def sync(self) -> None:
        """There is nothing to sync."""


def journal(path: Path, offset: int, ranks: Ranks) -> Journal | nullcontext[Unwritten]:
    """The journal of a run on rank 0, to be opened with `with`; elsewhere one that writes nothing."""
    return Journal(path, offset=offset) if ranks.leads else nullcontext(Unwritten())


@contextmanager
def held(run_dir: Path, ranks: Ranks) -> Iterator[None]:
    """Holds a run's folder by rank 0, for all.

    Raises:
        RunFolderInUse: another process holds it.
        BadOption: it cannot be written.
    """
    with ExitStack() as stack:
        ranks.first(lambda: stack.enter_context(folder.held(run_dir)))
        yield


def check(recipe: Recipe, ranks: Ranks) -> None:
    """Refuses what several processes cannot train, before anything is trained.

    Args:
        recipe: what is to be trained.
        ranks: who trains it; a collective call where they are several.

    Raises:
        BadOption: a pruning type of another host, a GPU by its number, fewer GPUs than processes; a process group is
            open of which the run was told nothing.
        BadRecipe: the ranks were given different recipes.
    """
    if ranks.world_size == 1:
        if in_parallel():
            raise BadOption(
                "a process group of several ranks is open and this run is to train alone, so its ranks would wait for "
                "one another: pass ranks=Ranks.of_group() on each of them, or close the group first"
            )
        return
    with ranks.agreed():
        _check_pruning(recipe, ranks)
        _check_device(recipe, ranks)
    own = digest(recipe)
    leading = ranks.first(lambda: own)
    with ranks.agreed():
        if own != leading:
            raise BadRecipe([f"rank {ranks.rank} was given another recipe than rank 0 (digest {own}, there {leading}): "
                             "start all processes with the same recipe and overrides"])  # fmt: skip


def _check_pruning(recipe: Recipe, ranks: Ranks) -> None:
    pruning = recipe.pruning
    if isinstance(pruning, NniPruning | Cut | SpikingDynamic | HostedPruning):
        raise BadOption(
            f"pruning.type {pruning.type} cannot be trained by {ranks.world_size} processes: its host keeps or changes "
            "the network in ways that replicas cannot follow; train it in one process, without torchrun, or choose "
            "dense or an snnsl.* rule"
        )


def _check_device(recipe: Recipe, ranks: Ranks) -> None:
    wanted = recipe.train.device
    if ":" in wanted:
        raise BadOption(
            f"train.device is {wanted!r}, one GPU for {ranks.world_size} processes: write 'cuda', and each process "
            "takes the GPU of its local rank"
        )
    on_gpu = wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available())
    if on_gpu and 0 < torch.cuda.device_count() <= ranks.local_rank:
        raise BadOption(
            f"train.device is {wanted!r} and this machine has {torch.cuda.device_count()} GPUs for at least "
            f"{ranks.local_rank + 1} processes: start as many processes as there are GPUs, or write 'cpu'"
        )
