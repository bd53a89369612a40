"""Pictures and frames in memory: values, augmentation, subsets."""

import torch

from snnsl_plugin.datasets._tensors import TensorFrames, TensorImages, crop_and_mirror


def test_pixels_are_scaled_then_normalised_per_channel_by_hand():
    images = torch.tensor([[[[0]], [[255]]]], dtype=torch.uint8)
    data = TensorImages(images, torch.tensor([7]), mean=(0.5, 0.2), std=(0.25, 0.4))
    x, y = data[0]
    torch.testing.assert_close(x.flatten(), torch.tensor([-2.0, 2.0]))
    assert y == 7


def test_one_item_equals_its_row_in_a_batch_and_negative_indices_count_from_the_end():
    data = TensorImages(torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8), torch.arange(5))
    x, y = data.batch(torch.tensor([3, 4]))
    assert torch.equal(data[3][0], x[0])
    assert torch.equal(data[-1][0], x[1])
    assert y.tolist() == [3, 4]


def test_iterating_ends_after_the_last_sample():
    assert len(list(TensorImages(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(3)))) == 3


def test_augmentation_gives_the_pictures_that_torchvision_gives_for_the_same_draws():
    from torchvision.transforms import functional

    images = torch.randint(0, 256, (20, 3, 16, 16), dtype=torch.uint8)
    torch.manual_seed(5)
    ours = crop_and_mirror(images)
    torch.manual_seed(5)
    tops, lefts = torch.randint(5, (20, 1)), torch.randint(5, (20, 1))
    mirrored = torch.rand(20, 1) < 0.5
    for image, result, top, left, mirror in zip(images, ours, tops, lefts, mirrored, strict=True):
        expected = functional.crop(functional.pad(image, [2]), int(top), int(left), 16, 16)
        assert torch.equal(result, functional.hflip(expected) if mirror else expected)


def test_augmentation_repeats_under_torchs_seed_and_is_off_unless_asked_for():
    data = TensorImages(torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8), torch.zeros(8), augment=True)
    everything = torch.arange(8)
    torch.manual_seed(1)
    first = data.batch(everything)[0]
    assert not torch.equal(first, data.batch(everything)[0])
    torch.manual_seed(1)
    assert torch.equal(first, data.batch(everything)[0])
    plain = data.subset(everything)
    assert torch.equal(plain.batch(everything)[0], data.images.float() / 255)


def test_a_subset_keeps_labels_and_files_in_step(tmp_path):
    files = [tmp_path / str(i) for i in range(4)]
    for data in (
        TensorImages(torch.arange(4, dtype=torch.uint8)[:, None, None, None], torch.arange(4), files=files),
        TensorFrames(torch.arange(4, dtype=torch.uint8)[:, None, None, None, None], torch.arange(4), files),
    ):
        part = data.subset(torch.tensor([1, 3]))
        assert part.labels.tolist() == [1, 3]
        assert part.origin(1) == str(files[3])
        assert len(part) == 2
