"""Exact masks: keep so many, no more and no fewer, and say which one goes first when scores tie."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from snnsl_plugin.errors import BadOption, Diverged


def keep_top(scores: Tensor, n_keep: int, among: Tensor | None = None) -> Tensor:
    """A mask of exactly the `n_keep` largest scores; ties go to the lowest flat index.

    Spike statistics tie by the thousand (a silent neuron scores 0), so `scores > threshold` keeps the wrong number.
    The threshold is found by selection, in O(n), and the ties at the threshold are filled in flat order, which gives
    the mask of a stable descending sort.

    Args:
        scores: any shape, floating point, finite where they are compared; larger is better.
        n_keep: how many to keep, 0 to the number of candidates.
        among: bool, the shape of `scores`: the candidates. All of them where omitted.

    Returns:
        A bool tensor of the shape of `scores` with exactly `n_keep` True.

    Raises:
        BadOption: `n_keep` is negative or larger than the number of candidates.
        Diverged: a candidate's score is NaN.

    >>> keep_top(torch.tensor([1.0, 3.0, 3.0, 3.0]), 2).tolist()
    [False, True, True, False]
    """
    flat = scores.detach().reshape(-1)
    candidates = flat if among is None else flat[among.reshape(-1)]
    total = candidates.numel()
    if not 0 <= n_keep <= total:
        raise BadOption(f"cannot keep {n_keep} of {total} candidates: ask for 0 to {total}")
    if total and bool(torch.isnan(candidates.sum())) and bool(torch.isnan(candidates).any()):
        raise Diverged("a score is NaN: the loss has probably diverged; lower the learning rate or clip gradients")
    chosen = _chosen(candidates, n_keep)
    if among is None:
        return chosen.view(scores.shape)
    mask = torch.zeros_like(flat, dtype=torch.bool)
    mask[among.reshape(-1)] = chosen
    return mask.view(scores.shape)


def _chosen(candidates: Tensor, n_keep: int) -> Tensor:
    total = candidates.numel()
    if n_keep in (0, total):
        return torch.full((total,), n_keep > 0, dtype=torch.bool, device=candidates.device)
    threshold = candidates.kthvalue(total - n_keep + 1).values
    chosen = candidates > threshold
    missing = n_keep - int(chosen.count_nonzero())
    ties = (candidates == threshold).nonzero().squeeze(1)
    chosen[ties[:missing]] = True
    return chosen


def quantile(values: Tensor, share: float) -> Tensor:
    """The value below which a share of all lies, between two neighbours along a line, as numpy's percentile.

    By selection, in O(n), and of any size: torch's own sorts and takes at most 2^24 values.

    Args:
        values: any shape, floating point, at least one.
        share: in [0, 1].

    >>> float(quantile(torch.tensor([4.0, 1.0, 2.0]), 0.75))
    3.0
    """
    flat = values.detach().reshape(-1)
    place = share * (flat.numel() - 1)
    below = min(int(place), flat.numel() - 1)
    low = flat.kthvalue(below + 1).values
    high = flat.kthvalue(min(below + 2, flat.numel())).values
    return low + (high - low) * (place - below)


def masked_first(growth: Tensor, scores: Tensor, alive: Tensor) -> Tensor:
    """Ranks in which whatever is masked comes before whatever lives, each among its own by its own score.

    With them as growth, what was dropped at this very update comes back only where nothing else is there to return.

    Args:
        growth: counts for the masked, (count,).
        scores: counts for the living, (count,).
        alive: bool, (count,).

    Returns:
        Distinct numbers from 1, larger is better; ties go to the lowest index.

    Raises:
        Diverged: a number that counts is NaN.
    """
    counting = torch.where(alive, scores, growth)
    if counting.isnan().any():  # sorted, it would come first
        raise Diverged("scores are NaN: the weights or gradients are no longer finite; lower the learning rate")
    best = torch.argsort(counting, descending=True, stable=True)
    ranks = torch.empty_like(best)
    ranks[best] = torch.arange(len(best), 0, -1, device=best.device)
    return (ranks + len(best) * ~alive).double()


def density(masks: Iterable[Tensor]) -> float:
    """Kept / all weights, in [0, 1].

    Raises:
        BadOption: there is no weight at all.
    """
    masks = list(masks)
    total = sum(mask.numel() for mask in masks)
    if total == 0:
        raise BadOption("density of no weights at all: pass at least one mask")
    return sum(int(mask.count_nonzero()) for mask in masks) / total


def grown(before: Tensor, after: Tensor) -> Tensor:
    """Where a connection exists now and did not before: bool, the masks' shape."""
    return after & ~before
