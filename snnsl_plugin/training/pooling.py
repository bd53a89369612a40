"""Spike counts of all ranks, added up."""

from __future__ import annotations

from collections.abc import Mapping

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
