"""Batches are time first, complete, ordered by the generator, and finite."""

import pytest
import torch

from snnsl_plugin.datasets._loader import Loader
from snnsl_plugin.datasets._tensors import TensorFrames, TensorImages
from snnsl_plugin.datasets.encoders.direct import direct
from snnsl_plugin.datasets.encoders.frames import frames
from snnsl_plugin.errors import BadData, BadOption


def pictures(count=10):
    return TensorImages(
        torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 4, 4), torch.arange(count)
    )


class OneByOne:
    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def test_batches_are_time_first_and_the_last_one_is_smaller():
    batches = list(Loader(pictures(), 4, encoder=direct(T=3)))
    assert [tuple(x.shape) for x, _ in batches] == [(3, 4, 1, 4, 4), (3, 4, 1, 4, 4), (3, 2, 1, 4, 4)]
    assert torch.cat([y for _, y in batches]).tolist() == list(range(10))


def test_drop_last_leaves_the_smaller_batch_out_and_len_says_so():
    loader = Loader(pictures(), 4, drop_last=True)
    assert len(loader) == 2
    assert len(list(loader)) == 2
    assert len(Loader(pictures(), 4)) == 3


def test_event_frames_move_time_to_the_front():
    data = TensorFrames(torch.arange(2 * 3).reshape(2, 3, 1, 1, 1).to(torch.uint8), torch.tensor([0, 1]))
    x, y = next(iter(Loader(data, 2, encoder=frames())))
    assert x[:, 0, 0, 0, 0].tolist() == [0, 1, 2]
    assert x[:, 1, 0, 0, 0].tolist() == [3, 4, 5]
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)


def test_the_generator_alone_decides_the_order():
    loader = Loader(pictures(50), 7, shuffle=True)

    def labels(seed):
        return torch.cat([y for _, y in loader.epoch(torch.Generator().manual_seed(seed))]).tolist()

    first = labels(1)
    torch.rand(3)
    assert labels(1) == first
    assert labels(2) != first
    assert sorted(first) == list(range(50))


def test_a_dataset_without_batches_gives_the_same_batches_item_by_item():
    data = pictures()
    slow = OneByOne([data[i] for i in range(len(data))])
    for (x, y), (u, v) in zip(Loader(data, 4), Loader(slow, 4), strict=True):
        assert torch.equal(x, u)
        assert torch.equal(y, v)


def test_nan_is_refused_with_the_number_of_the_sample():
    samples = [(torch.zeros(1, 2, 2), 0) for _ in range(6)]
    samples[4] = (torch.full((1, 2, 2), float("nan")), 0)
    with pytest.raises(BadData, match=r"sample 4 \(index 4\)"):
        list(Loader(OneByOne(samples), 4))


@pytest.mark.parametrize("wrong", [[float("inf"), float("-inf")], [float("nan"), 1.0], [float("-inf"), 3e38]])
def test_what_is_not_finite_is_found_whatever_it_adds_up_to(wrong):
    with pytest.raises(BadData, match="index 1"):
        list(Loader(OneByOne([(torch.zeros(2), 0), (torch.tensor(wrong), 0)]), 2))


def test_finite_values_whose_sum_overflows_are_finite():
    assert len(list(Loader(OneByOne([(torch.full((2,), 3e38), 0)] * 2), 2))) == 1


def test_infinity_is_refused_with_the_file_of_the_sample(tmp_path):
    data = TensorImages(
        torch.ones(3, 1, 2, 2, dtype=torch.uint8),
        torch.zeros(3),
        (0.0,),
        (0.0,),
        files=[tmp_path / f"{i}.png" for i in range(3)],
    )
    with pytest.raises(BadData, match=r"0\.png \(index 0\), .*1\.png"):
        list(Loader(data, 2))


def test_samples_of_different_shapes_are_refused():
    with pytest.raises(BadData, match="differ in shape"):
        list(Loader(OneByOne([(torch.zeros(1, 2, 2), 0), (torch.zeros(1, 3, 3), 0)]), 2))


def test_a_batch_size_below_one_and_an_empty_epoch_are_refused():
    with pytest.raises(BadOption, match="batch_size is 0"):
        Loader(pictures(), 0)
    with pytest.raises(BadOption, match="lower batch_size"):
        Loader(pictures(), 11, drop_last=True)


def test_two_processes_take_every_second_sample_of_each_batch():
    own = [list(Loader(pictures(9), 4, encoder=direct(T=3)).shares(torch.Generator(), rank, 2)) for rank in range(2)]
    assert [[(y.tolist(), n, whole) for _, y, n, whole in each] for each in own] == [
        [([0, 2], 2, 4), ([4, 6], 2, 4), ([8], 1, 1)],
        [([1, 3], 2, 4), ([5, 7], 2, 4), ([8], 0, 1)],  # without a sample, it gets the first one and does not own it
    ]
    assert own[0][0][0].shape == (3, 2, 1, 4, 4)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("drop_last", [False, True])
def test_shares_are_the_batches_of_one_process_dealt_out(world_size, drop_last):
    def loader():
        return Loader(pictures(23), 5, shuffle=True, drop_last=drop_last)

    whole = [y for _, y in loader().epoch(torch.Generator().manual_seed(4))]
    shares = [list(loader().shares(torch.Generator().manual_seed(4), rank, world_size)) for rank in range(world_size)]
    for number, batch in enumerate(whole):
        mine = [each[number] for each in shares]
        assert sorted(y for _, part, own, _ in mine for y in part[:own].tolist()) == sorted(batch.tolist())
        assert [own for _, _, own, _ in mine] == [len(batch[rank::world_size]) for rank in range(world_size)]
        assert {size for *_, size in mine} == {len(batch)}
    assert {len(each) for each in shares} == {len(whole)}


def test_a_share_is_checked_where_it_is_taken():
    samples = [(torch.zeros(1, 2, 2), 0), (torch.full((1, 2, 2), float("nan")), 1)]
    loader = Loader(OneByOne(samples), 2)
    assert len(list(loader.shares(torch.Generator(), 0, 2))) == 1
    with pytest.raises(BadData, match="index 1"):
        list(loader.shares(torch.Generator(), 1, 2))


def test_workers_of_a_data_set_that_draws_as_it_likes_draw_anew_in_each_epoch():
    class Drawing:
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return torch.rand(2), index

    loader = Loader(Drawing(), 2, workers=1)
    seen = []
    for epoch in (0, 1, 0):
        torch.manual_seed(epoch)
        before = torch.get_rng_state()
        seen.append(torch.cat([x for x, _ in loader.epoch(torch.Generator().manual_seed(epoch))], dim=1))
        assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
