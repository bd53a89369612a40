"""Counts added up: over calls, over all ranks, and on from where a run stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, distributed


def in_parallel() -> bool:
    """Whether this process trains with others: a process group of more than one is open."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def over_ranks(own: Mapping[str, tuple[Tensor, float]], device: torch.device) -> dict[str, tuple[Tensor, float]]:
    """Adds up counts and slots over all ranks; a rank that has not counted under a name counts as zero.

    A collective call where a process group is open, and the same as a copy where none is. Counts are whole numbers in
    float64, so their sums do not depend on the number of ranks or their order.

    Args:
        own: by name, counts (C,) in float64 and the slots that each had.
        device: where tensors of the network are.
    """
    if not in_parallel():
        return {name: (counts.clone(), slots) for name, (counts, slots) in own.items()}
    found: list[dict[str, int]] = [{} for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(found, {name: counts.numel() for name, (counts, _) in own.items()})
    sizes = {name: size for each in found for name, size in each.items()}
    if not sizes:
        return {}
    parts = []
    for name, size in sizes.items():
        counts, slots = own.get(name, (torch.zeros(size, dtype=torch.float64), 0.0))
        parts.append(torch.cat([counts.to(device), counts.new_tensor([slots]).to(device)]))
    total = torch.cat(parts)
    distributed.all_reduce(total)
    summed = torch.split(total, [size + 1 for size in sizes.values()])
    return {name: (part[:-1].clone(), float(part[-1])) for name, part in zip(sizes, summed, strict=True)}


def is_first() -> bool:
    """Whether this is the only process, or rank 0."""
    return not in_parallel() or distributed.get_rank() == 0


class Sums:
    """Named sums of vectors, each with the number of slots that it is over.

    Args:
        device: tells where tensors of the network are.

    Example:
        >>> sums = Sums(lambda: torch.device("cpu"))
        >>> sums.add("spikes", torch.tensor([1, 0]), 4)
        >>> sums.add("spikes", torch.tensor([1, 1]), 4)
        >>> sums.all()
        {'spikes': (tensor([2., 1.], dtype=torch.float64), 8.0)}
    """

    def __init__(self, device: Callable[[], torch.device]) -> None:
        self._device = device
        self._counts: dict[str, Tensor] = {}
        self._slots: dict[str, float] = {}

    def add(self, key: str, counts: Tensor, slots: float) -> None:
        """Adds counts (C,), whole numbers or multiples of a power of two, so that no order of adding rounds."""
        if key in self._counts:
            self._counts[key] = self._counts[key].to(counts.device) + counts
            self._slots[key] += slots
        else:
            self._counts[key] = counts.double()
            self._slots[key] = float(slots)

    def all(self, prefix: str = "") -> dict[str, tuple[Tensor, float]]:
        """Sums and slots over all ranks, of the names that begin so: a collective call where there are several."""
        # Without this every rank would make its own masks, and the replicas would part.
        own = {key: (counts, self._slots[key]) for key, counts in self._counts.items() if key.startswith(prefix)}
        return over_ranks(own, self._device())

    def of(self, key: str) -> tuple[Tensor, float] | None:
        """One of them over all ranks, where a call of this rank was counted under it: a collective call."""
        if key not in self._counts:
            return None
        return over_ranks({key: (self._counts[key], self._slots[key])}, self._device())[key]

    def clear(self) -> None:
        """Starts anew."""
        self._counts.clear()
        self._slots.clear()

    def state_dict(self) -> dict[str, Tensor | float]:
        """The sums so far, over all ranks: plain tensors and numbers."""
        totals = self.all()
        counts: dict[str, Tensor | float] = {f"counts/{key}": counted for key, (counted, _) in totals.items()}
        return counts | {f"slots/{key}": slots for key, (_, slots) in totals.items()}

    def load_state_dict(self, state: Mapping[str, Tensor | float]) -> None:
        """Goes on from `state_dict`, however many ranks made it.

        Rank 0 takes them all and the others start from nothing, so that the sum over ranks is right.
        """
        self.clear()
        for key, value in state.items() if is_first() else ():
            what, _, name = key.partition("/")
            if isinstance(value, Tensor):
                self._counts[name] = value.clone()
            elif what == "slots":
                self._slots[name] = value
