"""The process group that torchrun asks for, and one voice for all of its processes."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import distributed

from snnsl_plugin.errors import BadOption, LostRank, SaidElsewhere, SnnslError
from snnsl_plugin.training.ranks import ALONE, Ranks, is_loss, lost

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

#: How long a rank waits for the others, at most: as long as rank 0 may write, or read a set that only it has cached.
PATIENCE = timedelta(minutes=10)


def from_environment() -> Ranks:
    """What torchrun's environment says of this process; `ALONE` without one.

    Raises:
        BadOption: half of it is there, or it is no number.
    """
    words = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    said = {word: os.environ[word] for word in words if word in os.environ}
    if "RANK" not in said or "WORLD_SIZE" not in said:
        return ALONE  # schedulers set one of them for purposes of their own
    try:
        found = Ranks(int(said["RANK"]), int(said["WORLD_SIZE"]), int(said.get("LOCAL_RANK", said["RANK"])))
    except ValueError:
        found = Ranks(-1, 1)
    if not 0 <= found.rank < found.world_size:
        raise BadOption(
            f"the environment says RANK={said['RANK']} and WORLD_SIZE={said['WORLD_SIZE']}: start the processes with "
            "torchrun, or unset both"
        )
    return found if found.world_size > 1 else ALONE


@contextmanager
def together(patience: timedelta = PATIENCE) -> Iterator[Ranks]:
    """Meets the other processes that torchrun has started, and parts from them at the end.

    The group talks by gloo between CPUs and by nccl between GPUs, and this process's GPU is the one of its local rank.
    Where a group is open already, it is used and stays open. Without torchrun, or with one process, nothing is opened.

    When the block raises, one rank raises what it met and the others `SaidElsewhere`, so that a command line that
    prints errors prints one. Within the block SIGTERM, by which torchrun ends the ranks that are left, is an interrupt.
    After an error it is ignored: the process is at its end, and has something to say first.

    Args:
        patience: how long one rank waits for the others before it gives up.

    Yields:
        The ranks, `ALONE` where there is one.

    Raises:
        LostRank: another rank is gone or silent.
        SaidElsewhere: another rank speaks for this one.
    """
    ranks = from_environment()
    if ranks.world_size == 1:
        yield ALONE
        return
    if not distributed.is_available():
        raise BadOption(
            f"this torch has no torch.distributed, and {ranks.world_size} processes were started: start one"
        )
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    if distributed.is_initialized():
        yield Ranks.of_group(ranks.local_rank)
        return
    with_gpu = torch.cuda.is_available() and ranks.local_rank < torch.cuda.device_count()
    store: Store | None = None
    heard = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _interrupt) if heard else None
    try:
        if with_gpu:
            torch.cuda.set_device(ranks.local_rank)
        store = next(rendezvous("env://", timeout=patience))[0]
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if with_gpu and distributed.is_nccl_available() else "gloo",
            store=PrefixStore("snnsl", store),
            rank=ranks.rank,
            world_size=ranks.world_size,
            timeout=patience,
        )
        yield ranks
    except BaseException as error:
        if heard:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if not _speaks(store):
            said = SaidElsewhere("another process of this run says what went wrong")
            said.exit_status = _status(error)
            raise said from error
        if is_loss(error):
            raise lost(ranks, error, "start the same command again, with --resume if the run had begun") from error
        raise
    # Only now: after an error the process ends, and taking leave of a rank that is gone can wait forever. Replicas hold
    # the group in cycles, and a group that outlives the interpreter aborts it: its threads then let go of tensors.
    gc.collect()
    distributed.destroy_process_group()
    if heard:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _speaks(store: Store | None) -> bool:
    """Whether this rank is the first that has something to say. torchrun's own process keeps the store."""
    if store is None:
        return True
    try:
        store.set_timeout(timedelta(seconds=5))
        return bool(store.add("said", 1) == 1)
    except RuntimeError:  # whoever kept it is gone
        return True


def _status(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return 130
    return error.exit_status if isinstance(error, SnnslError) else LostRank.exit_status
