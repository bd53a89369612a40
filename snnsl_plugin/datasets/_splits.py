"""What every data set returns, and the seeded draws that make its parts."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from snnsl_plugin.errors import BadOption


class Samples(Protocol):
    """What training needs of a part: a length, and sample i as (x, label). `batch` and `origin` are used if present."""

    def __len__(self) -> int:
        """Number of samples."""

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        """Sample `index` as (x, label)."""


@dataclass(frozen=True)
class Splits:
    """The three disjoint parts of a data set, and what a run must know about it.

    Attributes:
        train: samples to learn from (augmented where asked).
        validation: samples held out of the training part, by a seed.
        test: the official test part where there is one; read once, at the end.
        classes: class names; label i is `classes[i]`.
        shape: of one sample before the encoder: (C, H, W) of a picture, (T, C, H, W) of event frames.
        events: True if samples already have a time axis.
        source: where the data came from, in one sentence.
        skipped: samples left out because they could not be decoded (0 unless the recipe allowed it).
    """

    train: Samples
    validation: Samples
    test: Samples
    classes: list[str]
    shape: tuple[int, ...]
    events: bool
    source: str
    skipped: int = 0


def shuffled_by_class(labels: Tensor, classes: Sequence[str], seed: int) -> list[Tensor]:
    """For each class the indices of its samples, in an order that depends on the seed and the class's name alone.

    So a run on a few classes draws the same samples of them as a run on all.
    """
    orders = []
    for label, name in enumerate(classes):
        members = torch.nonzero(labels == label).flatten()
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
        orders.append(members[torch.randperm(len(members), generator=generator)])
    return orders


def quotas(sizes: Sequence[int], share: float) -> list[int]:
    """How many to take of each class so that exactly `round(share * total)` are taken, in proportion.

    Largest remainders get the odd ones; equal remainders go to the first class. No class is more than one away from
    its exact share.
    """
    total = round(share * sum(sizes))
    exact = [share * size for size in sizes]
    taken = [int(value) for value in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (taken[i] - exact[i], i))
    for i in by_remainder[: total - sum(taken)]:
        taken[i] += 1
    return taken


def check_share(option: str, share: float) -> None:
    """Refuse a share outside (0, 1).

    Raises:
        BadOption: naming the option.
    """
    if not 0 < share < 1:
        raise BadOption(f"{option} is {share}; it is the share of samples held out, in (0, 1), for example 0.1")


def hold_out(labels: Tensor, classes: Sequence[str], share: float, seed: int, option: str) -> tuple[Tensor, Tensor]:
    """Sorted indices of the (kept, held out) samples; `share` of all samples is held out, stratified by class.

    Raises:
        BadOption: the share is not in (0, 1), or leaves one of the two parts empty.
    """
    check_share(option, share)
    orders = shuffled_by_class(labels, classes, seed)
    counts = quotas([len(order) for order in orders], share)
    return _two_parts(orders, [len(order) - count for order, count in zip(orders, counts, strict=True)], counts, option)


def draw_train(
    labels: Tensor,
    classes: Sequence[str],
    *,
    validation: float,
    validation_per_class: int | None,
    per_class: int | None,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Sorted indices of the (training, validation) samples drawn from an official training part.

    Validation is drawn first, as a share of the whole part or as a number per class; `per_class` of the rest are
    training samples (all, if None).

    Raises:
        BadOption: a share or number outside its range, or a class with too few samples, with its name.
    """
    if validation_per_class is None:
        check_share("validation", validation)
    for option, number in (("per_class", per_class), ("validation_per_class", validation_per_class)):
        if number is not None and number < 1:
            raise BadOption(f"{option} is {number}; it counts samples of each class and is at least 1")
    orders = shuffled_by_class(labels, classes, seed)
    sizes = [len(order) for order in orders]
    held_counts = quotas(sizes, validation) if validation_per_class is None else [validation_per_class] * len(sizes)
    kept_counts = [
        size - held if per_class is None else per_class for size, held in zip(sizes, held_counts, strict=True)
    ]
    for name, size, kept_count, held_count in zip(classes, sizes, kept_counts, held_counts, strict=True):
        if kept_count + held_count > size or kept_count < 1:
            raise BadOption(
                f"class {name!r} has {size} training samples, too few for {max(kept_count, 1)} to train on and "
                f"{held_count} to validate on; lower per_class or validation_per_class"
            )
    return _two_parts(orders, kept_counts, held_counts, "validation")


def fold_of(labels: Tensor, classes: Sequence[str], folds: int, fold: int, seed: int) -> tuple[Tensor, Tensor]:
    """Sorted indices of the (other folds, this fold); the folds are stratified, disjoint and cover all samples.

    Samples are dealt like cards, class after class, so fold sizes differ by at most one, and so do class counts.

    Raises:
        BadOption: fewer than 2 folds, more folds than samples, or no such fold.
    """
    if not 2 <= folds <= len(labels):
        raise BadOption(f"folds is {folds}; cross-validation of {len(labels)} samples takes 2 to {len(labels)} folds")
    if not 0 <= fold < folds:
        raise BadOption(f"fold is {fold}; with folds: {folds} it is 0 to {folds - 1}")
    deck = torch.cat(shuffled_by_class(labels, classes, seed))
    ours = torch.arange(len(deck)) % folds == fold
    return deck[~ours].sort().values, deck[ours].sort().values


def _two_parts(orders: list[Tensor], kept: list[int], held: list[int], option: str) -> tuple[Tensor, Tensor]:
    held_out = torch.cat([order[:n] for order, n in zip(orders, held, strict=True)])
    rest = torch.cat([order[n : n + m] for order, n, m in zip(orders, held, kept, strict=True)])
    if not len(held_out) or not len(rest):
        raise BadOption(
            f"{option} leaves {len(rest)} samples to keep and {len(held_out)} held out; both need some: change "
            "the share, say validation_per_class, or give the data a validation folder of its own"
        )
    return rest.sort().values, held_out.sort().values
