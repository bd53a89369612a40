"""Processes that train one network together: who is who, and the few things that they tell one another."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import torch
from torch import distributed

from snnsl_plugin import errors
from snnsl_plugin.errors import LostRank, RankFailed, SnnslError

Made = TypeVar("Made")


@dataclass(frozen=True)
class Ranks:
    """The processes of one training as one of them sees them; the default is a process of its own.

    With several ranks a process group is open that takes tensors on the CPU (gloo, or gloo beside nccl), and each
    method below but `leads` is a collective call: every rank makes it, in the same order.

    Attributes:
        rank: this process, from 0.
        world_size: how many there are.
        local_rank: this process among those of its machine, from 0; the number of its GPU.

    Example:
        >>> Ranks().sum(1.5, 2)
        [1.5, 2.0]
        >>> Ranks().first(lambda: "made by rank 0")
        'made by rank 0'
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @classmethod
    def of_group(cls, local_rank: int = 0) -> Ranks:
        """The ranks of the process group that the caller has opened."""
        return cls(distributed.get_rank(), distributed.get_world_size(), local_rank)

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, the one that writes."""
        return self.rank == 0

    def sum(self, *numbers: float) -> list[float]:
        """Sums over all ranks, in float64."""
        totals = torch.tensor(numbers, dtype=torch.float64)
        if self.world_size > 1:
            distributed.all_reduce(totals)
        return list(totals.tolist())

    def first(self, make: Callable[[], Made]) -> Made:
        """What rank 0 makes, on every rank; what it raises, every rank raises.

        Args:
            make: called on rank 0 alone; what it returns must be picklable.
        """
        if self.world_size == 1:
            return make()
        box: list[Any] = [None, None]
        failed: Exception | None = None
        if self.leads:
            try:
                box[0] = make()
            except Exception as error:
                failed, box[1] = error, _told(error)
        distributed.broadcast_object_list(box, src=0)
        if failed:
            raise failed
        if box[1]:
            _raise(0, box[1])
        made: Made = box[0]
        return made

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """A block without collective calls that ends well on every rank, or raises on every rank."""
        if self.world_size == 1:
            yield
            return
        failed: Exception | None = None
        try:
            yield
        except Exception as error:
            failed = error
        if not self.sum(float(failed is not None))[0]:  # far cheaper than to send objects, and the usual case
            return
        told: list[tuple[str, str, int] | None] = [None] * self.world_size
        distributed.all_gather_object(told, failed and _told(failed))
        if failed:
            raise failed
        for rank, each in enumerate(told):
            if each:
                _raise(rank, each)

    @contextmanager
    def running(self, way_out: str, at_end: Callable[[BaseException], None]) -> Iterator[None]:
        """A block after whose failure something is written down, also where another rank is gone.

        torchrun ends the ranks that are left with SIGTERM a moment after one has ended, so signals are ignored
        meanwhile.

        Args:
            way_out: how to go on, for the error.
            at_end: is told what the block raises.

        Raises:
            LostRank: another rank is gone, or did not answer in the time that the process group allows.
        """
        try:
            yield
        except BaseException as error:
            with undisturbed() if self.world_size > 1 else nullcontext():
                if self.world_size > 1 and is_loss(error):
                    gone = lost(self, error, way_out)
                    at_end(gone)
                    raise gone from error
                at_end(error)
            raise


#: A process of its own.
ALONE = Ranks()


def is_loss(error: BaseException) -> bool:
    """Whether an error of torch says that another rank is gone or silent."""
    if isinstance(error, distributed.DistError):
        return True
    # gloo throws plain runtime errors, which name the source file they come from.
    return type(error) is RuntimeError and "gloo" in str(error)


def lost(ranks: Ranks, error: BaseException, way_out: str) -> LostRank:
    """The error of a rank that another one has left alone."""
    late = "timed out" in str(error).lower() or "timeout" in str(error).lower()
    what = "did not answer in time" if late else "has ended"
    return LostRank(f"another of the {ranks.world_size} processes of this run {what}, and rank {ranks.rank} cannot go "
                    f"on alone: {way_out}")  # fmt: skip


@contextmanager
def undisturbed() -> Iterator[None]:
    """A block in which interrupts and torchrun's SIGTERM are ignored, for the last words of a process."""
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's own
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _told(error: Exception) -> tuple[str, str, int]:
    if not isinstance(error, SnnslError):
        return "", f"{type(error).__name__}: {error}", 2
    # A class of the caller's own, such as a reason to stop, goes by the name of ours that it is built on.
    known = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return known.__name__, str(error), error.exit_status


def _raise(rank: int, told: tuple[str, str, int]) -> NoReturn:
    """Raises what another rank has met; as the same class, where that takes nothing but a sentence."""
    name, sentence, status = told
    kind = getattr(errors, name, None)
    if kind is not None and "__init__" not in vars(kind):
        raise kind(sentence)
    error = RankFailed(f"rank {rank}: {sentence}")
    error.exit_status = status
    raise error
