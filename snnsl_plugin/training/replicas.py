"""One network on every rank: wrapped for torch's data parallelism, and the same everywhere after each step."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from snnsl_plugin.errors import BadOption, RankFailed
from snnsl_plugin.training.ranks import Ranks


@runtime_checkable
class Shareable(Protocol):
    """Batches that ranks can share among themselves."""

    def shares(
        self, generator: torch.Generator, rank: int, world_size: int
    ) -> Iterator[tuple[Tensor, Tensor, int, int]]:
        """One pass: this rank's inputs and targets of each batch, how many they are, and how many the batch has.

        A rank for which a batch has no sample gets any one of it, and the number 0.
        """


class Whole(Protocol):
    """Batches for one process."""

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass."""


def shared(part: Whole, generator: torch.Generator, ranks: Ranks) -> Iterator[tuple[Tensor, Tensor, float]]:
    """One pass over a rank's share of each batch, with the weight of its mean loss.

    torch averages gradients over ranks, each counting the same. Weighted with n W / N (n of the batch's N samples, W
    ranks) the average is the gradient of the mean loss of the whole batch, also where shares differ in size. A rank
    without a sample has weight 0: it takes part in the average, and what it is given must not count anywhere else.

    Args:
        part: the batches.
        generator: of their order, the same on every rank.
        ranks: who shares them.

    Yields:
        Inputs (T, n, ...), targets (n,), the weight.

    Raises:
        BadOption: several ranks, and batches that cannot be shared.
    """
    if ranks.world_size == 1:
        for x, target in part.epoch(generator):
            yield x, target, 1.0
    elif isinstance(part, Shareable):
        for x, target, own, whole in part.shares(generator, ranks.rank, ranks.world_size):
            yield x, target, own * ranks.world_size / whole
    else:
        raise BadOption(
            f"{type(part).__name__} cannot share its batches among {ranks.world_size} processes: give it a method "
            "shares(generator, rank, world_size), as Loader has, or train in one process"
        )


def replicated(model: nn.Module, ranks: Ranks) -> nn.Module:
    """What to call in place of the model: itself, or torch's data-parallel wrapper around it.

    Buffers are left to `copy_buffers_`: the wrapper would send those of rank 0 before the next pass, and what looks at
    the network between two steps (a pruner, a guide that copies it) would find other ones on every rank.
    """
    return model if ranks.world_size == 1 else DistributedDataParallel(model, broadcast_buffers=False)


@torch.no_grad()
def copy_buffers_(model: nn.Module, ranks: Ranks) -> None:
    """Gives every rank the buffers of rank 0, such as a batch norm's running statistics, in place."""
    if ranks.world_size == 1:
        return
    by_kind: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for buffer in model.buffers():
        by_kind.setdefault((buffer.dtype, buffer.device), []).append(buffer)
    for buffers in by_kind.values():
        flat = torch.cat([buffer.flatten() for buffer in buffers])
        distributed.broadcast(flat, src=0)
        parts = torch.split(flat, [buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))


@torch.no_grad()
def average_beside_(optimizer: Optimizer, model: nn.Module, ranks: Ranks) -> None:
    """Averages over ranks the gradients of what is trained beside the network, which torch's wrapper does not know."""
    if ranks.world_size == 1:
        return
    inside = {id(parameter) for parameter in model.parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) not in inside and parameter.grad is not None:
                distributed.all_reduce(parameter.grad)
                parameter.grad /= ranks.world_size


def check_reached(model: nn.Module, ranks: Ranks) -> None:
    """Refuses, after the first backward pass, parameters without a gradient: torch waits for one from every rank.

    Raises:
        BadOption: with their names.
    """
    if ranks.world_size == 1:
        return
    left = [name for name, each in model.named_parameters() if each.requires_grad and each.grad is None]
    if left:
        raise BadOption(
            f"the loss does not reach {', '.join(left[:3])}{' and others' if len(left) > 3 else ''}, and data-parallel "
            "training needs a gradient of every parameter: take them out of the network, or train in one process"
        )


def check_same(model: nn.Module, ranks: Ranks, where: str) -> None:
    """Compares the parameters of all ranks, bit by bit.

    Args:
        model: the replica of this rank.
        ranks: who compares.
        where: when in the training this is, for the error.

    Raises:
        RankFailed: they differ.
    """
    if ranks.world_size == 1:
        return
    own = 0
    for parameter in model.parameters():
        own = zlib.crc32(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes(), own)
    sums: list[int] = [0] * ranks.world_size
    distributed.all_gather_object(sums, own)
    apart = [rank for rank, each in enumerate(sums) if each != sums[0]]
    if apart:
        raise RankFailed(
            f"{where}, rank {apart[0]} holds other weights than rank 0: a layer, criterion or growth draws random "
            "numbers of its own, or goes by what its own rank alone has seen"
        )
