"""Random numbers of a pruner's own, drawn from torch's global generators as other people's code does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from snnsl_plugin.training.seeds import derived


@contextmanager
def own_random_numbers(seed: int, *words: str | int) -> Iterator[None]:
    """Torch's global generators set for the time of a block, and afterwards as if it had drawn nothing.

    Args:
        seed: of the run.
        words: what the numbers are for; the same words give the same numbers.
    """
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    # A GPU that nobody uses stays untouched: asking for its state would take its memory.
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count())) if used else []):
        own = derived(seed, *words)
        torch.default_generator.manual_seed(own)
        if used:
            torch.cuda.manual_seed_all(own)
        yield
