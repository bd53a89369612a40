"""Shares of a batch and their weights: averaged over ranks, they give what the whole batch gives."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snnsl_plugin.datasets._loader import Loader
from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.pooling import in_parallel, is_first, over_ranks
from snnsl_plugin.training.ranks import ALONE, Ranks
from snnsl_plugin.training.replicas import check_reached, check_same, copy_buffers_, replicated, shared


class Rows:
    """Seven samples."""

    def __init__(self):
        stream = torch.Generator().manual_seed(1)
        self.x, self.y = torch.rand(7, 3, generator=stream), torch.randint(0, 4, (7,), generator=stream)

    def __len__(self):
        return 7

    def __getitem__(self, index):
        return self.x[index], int(self.y[index])


def stream():
    return torch.Generator().manual_seed(2)


def weights(size, batch, world_size):
    part = Loader(pictures(size), batch)
    return [[weight for _, _, weight in shared(part, stream(), Ranks(rank, world_size))] for rank in range(world_size)]


def pictures(size):
    return [(torch.zeros(1), 0)] * size


def test_weights_by_hand():
    assert weights(4, 4, 2) == [[1.0], [1.0]]
    assert weights(3, 3, 2) == [[4 / 3], [2 / 3]]  # 2 and 1 of 3 samples, over 2 ranks
    assert weights(1, 1, 2) == [[2.0], [0.0]]
    assert weights(5, 3, 1) == [[1.0, 1.0]]


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_averaged_over_ranks_weights_are_one(world_size):
    for batch in zip(*weights(23, 6, world_size), strict=True):
        assert sum(batch) / world_size == pytest.approx(1.0)


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_the_average_of_weighted_gradients_is_the_gradient_of_the_whole_batch(world_size):
    layer = nn.Linear(3, 4).double()
    part = Loader(Rows(), 3, shuffle=True)

    def gradient(x, target, weight):
        loss = F.cross_entropy(layer(x.double()), target) * weight
        return torch.autograd.grad(loss, layer.weight)[0]

    whole = [gradient(x, y, 1.0) for x, y in part.epoch(stream())]
    ranks = [
        [gradient(*each) for each in shared(part, stream(), Ranks(rank, world_size))] for rank in range(world_size)
    ]
    assert len(whole) == 3  # the last batch has one sample
    for expected, parts in zip(whole, zip(*ranks, strict=True), strict=True):
        torch.testing.assert_close(sum(parts) / world_size, expected, rtol=0, atol=1e-15)


def test_one_process_gets_whole_batches_with_weight_one():
    part = Loader(Rows(), 3, shuffle=True)
    for (x, y, weight), (expected, labels) in zip(shared(part, stream(), ALONE), part.epoch(stream()), strict=True):
        assert weight == 1.0
        assert torch.equal(x, expected)
        assert torch.equal(y, labels)


def test_batches_that_cannot_be_shared_are_refused_with_the_way_out():
    class Whole:
        def epoch(self, generator):
            yield from ()

    assert list(shared(Whole(), stream(), ALONE)) == []
    with pytest.raises(BadOption, match=r"Whole cannot share its batches among 2 processes: give it a method shares"):
        next(shared(Whole(), stream(), Ranks(0, 2)))


def test_a_parameter_that_the_loss_does_not_reach_is_named():
    model = nn.ModuleDict({"used": nn.Linear(2, 2), "left": nn.Linear(2, 2)})
    model["used"](torch.ones(1, 2)).sum().backward()
    check_reached(model, ALONE)
    with pytest.raises(BadOption, match=r"the loss does not reach left\.weight, left\.bias, and data-parallel"):
        check_reached(model, Ranks(0, 2))


def test_alone_nothing_is_wrapped_copied_or_compared():
    model = nn.BatchNorm1d(2)
    assert replicated(model, ALONE) is model
    copy_buffers_(model, ALONE)
    check_same(model, ALONE, "now")


def test_alone_counts_are_copies():
    counts = torch.tensor([1.0, 2.0], dtype=torch.float64)
    found, slots = over_ranks({"a": (counts, 4.0)}, torch.device("cpu"))["a"]
    counts += 1
    assert (found.tolist(), slots) == ([1.0, 2.0], 4.0)
    assert not in_parallel()
    assert is_first()
