"""Batches, time first: the one way from a data set to a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from snnsl_plugin.datasets._splits import Samples
from snnsl_plugin.datasets._workers import prepared
from snnsl_plugin.errors import BadData, BadOption

Encoder = Callable[[Tensor], Tensor]


class Loader:
    """Iterates over batches of (x, y): x float32 time first (T, N, C, H, W), y int64 (N,).

    A data set with `batch(indices)` is asked for whole batches, any other item by item; one that says `seeded` gets
    `batch(indices, seed)` with a seed of the epoch. Without an encoder x stays as the data set has it, batch first.

    Args:
        dataset: anything with a length whose item i is (x, label).
        batch_size: samples per batch, >= 1.
        shuffle: whether `epoch` draws a new order.
        encoder: from (N, ...) to (T, N, C, H, W); see `datasets/encoders`.
        drop_last: whether a last, smaller batch is left out.
        workers: processes that prepare batches ahead of time; 0 for none but this one. The batches are the same.

    Raises:
        BadOption: a batch size below 1, no batch at all, or workers for a data set that draws from torch's global
            generator.
    """

    def __init__(
        self,
        dataset: Samples,
        batch_size: int,
        shuffle: bool = False,
        encoder: Encoder | None = None,
        drop_last: bool = False,
        workers: int = 0,
    ) -> None:
        if batch_size < 1:
            raise BadOption(f"batch_size is {batch_size}; it is at least 1")
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.encoder = encoder
        self.drop_last = drop_last
        self.workers = workers
        if workers and getattr(dataset, "draws_globally", False):
            raise BadOption(
                f"workers is {workers}, but these samples are augmented from one random stream, which processes cannot "
                "share; leave out workers or augment"
            )
        if not len(self):
            raise BadOption(f"{len(dataset)} samples give no batch of {batch_size}; lower batch_size")

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch; where it shuffles, the order comes from torch's global generator."""
        return self.epoch(None)

    def epoch(self, generator: torch.Generator | None) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch whose order comes from `generator` (None: torch's global one). Not shuffled, it draws nothing.

        Raises:
            BadData: a sample holds NaN or an infinity, or samples of one batch differ in shape.
        """
        order, seed = self._drawn(generator)
        yield from self._encoded(order, seed)

    def shares(
        self, generator: torch.Generator, rank: int, world_size: int
    ) -> Iterator[tuple[Tensor, Tensor, int, int]]:
        """One epoch for one of several processes: of each batch its samples number rank, rank + world_size, ...

        The batches are those of `epoch`, given the same generator. Only the own samples are decoded, augmented and
        encoded. A batch with fewer samples than processes leaves some without; they get its first one, marked as 0.

        Args:
            generator: decides the order, and is the same in every process.
            rank: this process, from 0.
            world_size: how many processes share each batch.

        Yields:
            x, y, how many samples of the batch they are, and how many samples the batch has.

        Raises:
            BadData: as `epoch`, in the process that meets it.
        """
        order, seed = self._drawn(generator)
        mine = [indices[rank::world_size] for indices in order]
        given = [own if len(own) else indices[:1] for own, indices in zip(mine, order, strict=True)]
        for (x, y), own, indices in zip(self._encoded(given, seed), mine, order, strict=True):
            yield x, y, len(own), len(indices)

    def _drawn(self, generator: torch.Generator | None) -> tuple[Sequence[Tensor], int | None]:
        """The batches of an epoch, as indices, and the seed of its augmentation where the data set takes one."""
        count = len(self.dataset)
        order = torch.randperm(count, generator=generator) if self.shuffle else torch.arange(count)
        seeded = getattr(self.dataset, "seeded", False)
        seed = int(torch.randint(2**31, (), generator=generator)) if seeded else None
        return torch.split(order, self.batch_size)[: len(self)], seed

    def _encoded(self, batches: Sequence[Tensor], seed: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        made = prepared(self.dataset, batches, seed, self.workers)
        for (x, y), indices in zip(made, batches, strict=True):
            self._check_finite(x, indices)
            yield (x if self.encoder is None else self.encoder(x)), y

    def _check_finite(self, x: Tensor, indices: Tensor) -> None:
        # NaN and infinities survive a sum, at a tenth of the time of asking each value; only a sum may overflow too.
        if torch.isfinite(x.sum()) or (finite := torch.isfinite(x)).all():
            return
        bad = indices[~finite.flatten(1).all(1)].sort().values.tolist()
        origin = getattr(self.dataset, "origin", lambda index: f"sample {index}")
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise BadData(
            f"NaN or infinity in {', '.join(f'{origin(i)} (index {i})' for i in bad[:3])}{more}; "
            "remove or repair what is named, then run again"
        )
