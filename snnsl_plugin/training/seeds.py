"""One seed, many independent streams."""

from __future__ import annotations

import zlib

import torch


def derived(seed: int, *words: str | int) -> int:
    """A seed for one purpose, e.g. `derived(0, "epoch", 3)`: the same in every process, unlike `hash`."""
    # crc32 and 32 bits: hash() differs between processes, and torch seeds a CPU generator with the low 32 bits only.
    return zlib.crc32("/".join(map(str, (seed, *words))).encode())


def generator(seed: int, *words: str | int) -> torch.Generator:
    """A CPU generator for one purpose."""
    return torch.Generator().manual_seed(derived(seed, *words))
