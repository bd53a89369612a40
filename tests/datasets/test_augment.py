"""Event frames change at random, each sample by its own seed, in training alone."""

import numpy as np
import pytest
import torch

from snnsl_plugin.datasets._augment import EventAugment
from snnsl_plugin.datasets._frames import Framing, to_frames
from snnsl_plugin.datasets._loader import Loader
from snnsl_plugin.datasets._tensors import TensorFrames, TensorImages
from snnsl_plugin.errors import BadOption


def counts(seed=0, shape=(3, 2, 6, 8), most=5):
    return torch.randint(0, most, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_each_change_by_hand():
    frames = torch.arange(6, dtype=torch.uint8).reshape(1, 1, 2, 3)
    assert EventAugment(flip=1.0)(frames, 0, 0).tolist() == [[[[2, 1, 0], [5, 4, 3]]]]
    assert EventAugment(cutout=9)(frames, 0, 0).sum() == 0
    assert torch.equal(EventAugment()(frames, 0, 0), frames)
    seen = {tuple(EventAugment(roll=1)(frames, seed, 0).flatten().tolist()) for seed in range(100)}
    by_hand = {
        tuple(np.roll(frames.numpy(), (down, right), (2, 3)).ravel()) for down in (-1, 0, 1) for right in (-1, 0, 1)
    }
    assert seen == {tuple(map(int, each)) for each in by_hand}


def test_a_flip_and_a_drop_are_tonics_before_the_framing(tmp_path):
    from tonic.transforms import DropEvent, RandomFlipLR

    random = np.random.default_rng(0)
    kinds = [("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)]
    events = np.zeros(4000, kinds)
    for field, most in (("x", 8), ("y", 6), ("p", 2)):
        events[field] = random.integers(0, most, 4000)
    events["t"] = np.arange(4000)
    framing = Framing([6, 8], 3, "time", 1, False)
    frames = torch.from_numpy(to_frames(tmp_path, events, framing))
    mirrored = to_frames(tmp_path, RandomFlipLR(sensor_size=(8, 6, 2), p=1.0)(events), framing)
    assert torch.equal(EventAugment(flip=1.0)(frames, 0, 0), torch.from_numpy(mirrored))
    np.random.seed(0)
    theirs = to_frames(tmp_path, DropEvent(p=0.3)(events), framing)
    ours = EventAugment(drop=0.3)(frames, 0, 0)
    assert (ours <= frames).all()
    assert (ours >= 0).all()
    # both keep 0.7 of about 4,000 events; a binomial deviates by 29
    assert abs(int(ours.sum()) - int(theirs.sum())) < 120


def test_a_cutout_empties_one_square_in_all_frames_and_nothing_else():
    frames = torch.ones(3, 2, 6, 8, dtype=torch.uint8)
    for seed in range(50):
        gone = EventAugment(cutout=3)(frames, seed, 1) == 0
        assert torch.equal(gone, gone[:1, :1].expand_as(gone))
        rows, columns = gone[0, 0].any(1), gone[0, 0].any(0)
        assert torch.equal(gone[0, 0], rows[:, None] & columns)
        assert 2 <= int(rows.sum()) <= 3
        assert 2 <= int(columns.sum()) <= 3
        assert rows.nonzero().diff(dim=0).eq(1).all()


def test_the_input_stays_as_it_is_and_seed_and_index_alone_decide():
    change = EventAugment(flip=0.5, roll=2, drop=0.3, cutout=2)
    frames = counts()
    before = frames.clone()
    first = change(frames, 7, 3)
    torch.rand(5)
    assert torch.equal(change(frames, 7, 3), first)
    assert torch.equal(frames, before)
    assert first.dtype == frames.dtype
    assert not torch.equal(change(frames, 8, 3), first)
    assert not torch.equal(change(frames, 7, 4), first)


@pytest.mark.parametrize(
    "option", [{"flip": -0.1}, {"flip": 1.1}, {"drop": 1.0}, {"drop": -0.1}, {"roll": -1}, {"cutout": -1}]
)
def test_values_outside_their_range_are_refused_by_name(option):
    with pytest.raises(BadOption, match=rf"augment\.{next(iter(option))} is"):
        EventAugment(**option)


def loader(workers=0, batch_size=4, augment=True):
    data = TensorFrames(
        torch.stack([counts(i) for i in range(11)]),
        torch.arange(11),
        augment=EventAugment(0.5, 2, 0.3, 2) if augment else None,
    )
    return Loader(data, batch_size, shuffle=True, workers=workers)


def epoch(loader, seed=5):
    return list(loader.epoch(torch.Generator().manual_seed(seed)))


def equal(one, other):
    return all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(one, other, strict=True))


def test_an_epoch_repeats_with_its_generator_and_the_next_one_differs():
    assert equal(epoch(loader()), epoch(loader()))
    one = {int(y): x for batch in epoch(loader(batch_size=1)) for x, y in [batch]}
    other = {int(y): x for batch in epoch(loader(batch_size=1), 6) for x, y in [batch]}
    assert sum(torch.equal(one[i], other[i]) for i in range(11)) < 3


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more processes than cores: slow, and still right
@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_gives_the_same_batches_and_draws_nothing_else(workers, augment):
    expected = epoch(loader(augment=augment))
    torch.manual_seed(3)
    assert equal(epoch(loader(workers, augment=augment)), expected)
    after = torch.rand(())
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(()))


def test_ranks_change_a_sample_as_one_process_does():
    alone = {int(y): x[0] for x, y in epoch(loader(batch_size=1))}
    for rank in range(2):
        for x, y, own, _ in loader(batch_size=4).shares(torch.Generator().manual_seed(5), rank, 2):
            for i in range(own):
                assert torch.equal(x[i], alone[int(y[i])])


def test_workers_and_pictures_augmented_from_one_stream_are_refused():
    pictures = TensorImages(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4))
    Loader(pictures, 2, workers=1)
    with pytest.raises(BadOption, match="workers is 1.*leave out workers or augment"):
        Loader(pictures.subset(torch.arange(4), augment=True), 2, workers=1)


def test_a_worker_that_meets_a_bad_sample_says_it_as_one_process_would():
    from snnsl_plugin.errors import BadData

    class Two:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return torch.zeros(1, 2 + index), 0

    with pytest.raises(BadData, match=r"^samples of one batch differ in shape") as caught:
        list(Loader(Two(), 2, workers=1))
    assert "Traceback" not in str(caught.value)
