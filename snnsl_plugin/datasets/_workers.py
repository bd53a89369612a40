"""Batches made in this process or in others, equal in either case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from snnsl_plugin.datasets._splits import Samples
from snnsl_plugin.errors import BadData, SnnslError


def prepared(
    dataset: Samples, batches: Sequence[Tensor], seed: int | None, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The samples of each batch, float32 (N, ...), and their labels (N,) of int64, in order.

    Args:
        dataset: with `batch(indices)`, or asked item by item.
        batches: the indices of each.
        seed: goes to `batch(indices, seed)`; None where the data set takes none.
        workers: processes that work ahead; 0 for none.

    Raises:
        BadData: samples of one batch differ in shape.
    """
    made = _Batches(dataset, batches, seed)
    if not workers:
        for number in range(len(made)):
            yield _right(made[number])
        return
    # A generator of its own: DataLoader draws a seed for its workers from the global one otherwise. It begins where the
    # global one began in this epoch, so that a data set that draws as it likes has other numbers in each.
    own = torch.Generator().manual_seed(torch.initial_seed())
    loader = DataLoader(made, batch_size=None, num_workers=workers, generator=own)
    for each in loader:
        yield _right(each)


@dataclass(frozen=True)
class _Batches(Dataset[tuple[Tensor, Tensor] | SnnslError]):
    dataset: Samples
    batches: Sequence[Tensor]
    seed: int | None

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor] | SnnslError:
        try:
            return self._batch(self.batches[number])
        except SnnslError as error:  # goes back as a value: raised there, it would come wrapped in a traceback
            return error

    def _batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        batch = getattr(self.dataset, "batch", None)
        if batch is not None:
            x, y = batch(indices) if self.seed is None else batch(indices, self.seed)
            return x, y
        samples = [self.dataset[i] for i in indices.tolist()]
        shapes = {tuple(x.shape) for x, _ in samples}
        if len(shapes) > 1:
            raise BadData(f"samples of one batch differ in shape: {sorted(shapes)}; make them equal in the data set")
        return torch.stack([x for x, _ in samples]).float(), torch.tensor([int(y) for _, y in samples])


def _right(made: tuple[Tensor, Tensor] | SnnslError) -> tuple[Tensor, Tensor]:
    if isinstance(made, SnnslError):
        raise made
    return made
