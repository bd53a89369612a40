"""From one generation of sparse networks to the next: what is inherited, what mutates, who is chosen.

The paper says "evolutionary" and its equations are not public: mutation and choice as they are here are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from snnsl_plugin.core.distributions._shares import scaled, whole
from snnsl_plugin.core.masks import keep_top
from snnsl_plugin.errors import BadOption


def mutated(
    counts: Mapping[str, int],
    sizes: Mapping[str, int],
    generator: torch.Generator,
    *,
    spread: float,
    blocks: Sequence[Sequence[str]] = (),
    loss: float = 0.0,
) -> dict[str, int]:
    """Other weights per layer, as many in all.

    Each layer's odds, density / (1 - density), are multiplied by exp(spread x), x drawn from a normal distribution, and
    then all by one number, such that the total is the parent's. A block is lost with a chance of `loss`: its layers
    have nothing, and the others share what it had. A layer that has nothing stays so; one that has something keeps at
    least one weight. Of a full layer half a weight counts as missing, or it could never change.

    Args:
        counts: weights that the parent keeps, by layer; only layers that may change.
        sizes: all weights of each of these layers.
        generator: where x and the losses are drawn; it draws as often whatever the counts are.
        spread: standard deviation of the logarithm of the odds, >= 0.
        blocks: groups of layers that can be missing as a whole, as those of a residual branch.
        loss: chance of each block that is alive, in [0, 1]. It is spared where the others could not hold the total.

    Returns:
        Weights to keep per layer; their sum is the parent's.

    Raises:
        BadOption: spread or loss outside its range.

    Example:
        >>> mutated({"a": 10, "b": 30}, {"a": 40, "b": 60}, torch.Generator().manual_seed(0), spread=0.0)
        {'a': 10, 'b': 30}
    """
    if spread < 0 or not 0.0 <= loss <= 1.0:
        raise BadOption(f"spread={spread}, loss={loss}: a spread is at least 0, and a chance lies in [0, 1]")
    total = sum(counts.values())
    factors = (spread * torch.randn(len(counts), generator=generator, dtype=torch.float64)).exp().tolist()
    fates = torch.rand(len(blocks), generator=generator, dtype=torch.float64).tolist()
    wanted = {
        name: _changed(kept, sizes[name], factor)
        for (name, kept), factor in zip(counts.items(), factors, strict=True)
        if kept
    }
    for block, fate in zip(blocks, fates, strict=True):
        others = {name: density for name, density in wanted.items() if name not in block}
        if fate < loss and total <= sum(sizes[name] for name in others):
            wanted = others
    found = dict.fromkeys(counts, 0) | whole(
        scaled(wanted, sizes, total), {name: sizes[name] for name in wanted}, total
    )
    for name in [name for name in wanted if found[name] == 0]:
        giver = max(found, key=lambda each: found[each])
        found[giver], found[name] = found[giver] - 1, 1
    return found


def _changed(kept: int, size: int, factor: float) -> float:
    """A density whose odds are multiplied; as it is where nothing changes, to the last bit."""
    if factor == 1.0:
        return kept / size
    odds = factor * (kept / (size - kept) if kept < size else (size - 0.5) / 0.5)
    return odds / (1.0 + odds)


def heir_scores(mask: Tensor, weight: Tensor, generator: torch.Generator, *, exchange: float = 0.0) -> Tensor:
    """Scores by which a mask of any density inherits from a parent's: the best n are the heir's mask.

    The parent's connections come first, the largest weight before all others, then the rest of the layer in random
    order. So as many as the parent had are the parent's mask, fewer are its largest weights, and more are its mask
    grown at random. `exchange` sends a share of the parent's connections, drawn at random, behind all others.

    Args:
        mask: bool, the parent's.
        weight: the parent's weights, the mask's shape.
        generator: on the CPU.
        exchange: share of the parent's connections, rounded down, that others replace, in [0, 1].

    Returns:
        Scores for `keep_top`, the mask's shape: [1, 2] for what is inherited, [0, 1) for the rest, below 0 for what
        has been exchanged.

    Raises:
        BadOption: a share outside its range.
    """
    if not 0.0 <= exchange <= 1.0:
        raise BadOption(f"exchange is {exchange:.6g}: it is a share of the connections, in [0, 1]")
    drawn = torch.rand(mask.shape, generator=generator).to(weight.device)
    size = weight.detach().abs().double()  # so that no two sizes become one beside a much larger weight
    inherited = 1.0 + size / size.max().clamp_min(torch.finfo(size.dtype).tiny)
    gone = keep_top(drawn, math.floor(exchange * int(mask.count_nonzero())), among=mask)
    return torch.where(gone, drawn - 1.0, torch.where(mask, inherited, drawn))


@dataclass(frozen=True)
class Fitness:
    """What a candidate is chosen by.

    Attributes:
        accuracy: on the validation part, in [0, 1].
        synops: per sample of the validation part.
    """

    accuracy: float
    synops: float


def fittest(candidates: Mapping[int, Fitness]) -> int:
    """The number of the candidate with the highest accuracy; of equals that with fewest SynOps, then the first.

    Args:
        candidates: by their numbers; those that failed are not among them.

    Raises:
        BadOption: there is none.

    Example:
        >>> fittest({0: Fitness(0.9, 50.0), 1: Fitness(0.9, 40.0), 2: Fitness(0.8, 10.0)})
        1
    """
    if not candidates:
        raise BadOption("nobody to choose from: every candidate has failed")
    return min(candidates, key=lambda number: (-candidates[number].accuracy, candidates[number].synops, number))
