import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from snnsl_plugin.datasets._superclasses import SUPERCLASSES
from snnsl_plugin.datasets.cifar100 import cifar100
from snnsl_plugin.errors import BadData, BadOption, MissingData

REAL = Path(os.environ.get("SNNSL_DATA", "nowhere")) / "cifar100"
needs_data = pytest.mark.skipif(not (REAL / "train").is_dir(), reason="no cifar100/train below $SNNSL_DATA")
FIRST = ("apple", "aquarium_fish", "baby")


def write_tree(folder, names=FIRST, counts=(("train", 20), ("test", 4)), side=32):
    random = np.random.default_rng(1)
    for part, count in counts:
        for name in names:
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{i:04}.png")
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNSL_DATA", str(tmp_path))
    return write_tree(tmp_path / "cifar100")


def test_the_table_holds_100_classes_in_20_superclasses_of_5():
    assert [len(members) for members in SUPERCLASSES.values()] == [5] * 20
    assert len({name for members in SUPERCLASSES.values() for name in members}) == 100


def test_the_official_test_part_is_the_test_part_and_draws_are_exact(folder):
    splits = cifar100(per_class=10, validation_per_class=5)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (30, 15, 12)
    assert {file.parent.parent.name for file in splits.test.files} == {"test"}
    assert not set(splits.train.files) & set(splits.validation.files)
    assert splits.classes == list(FIRST)


def test_pictures_are_normalised_with_the_published_numbers(folder):
    plain, shifted = cifar100(normalize=False), cifar100()
    x, u = plain.test[0][0], shifted.test[0][0]
    mean, std = torch.tensor([0.5071, 0.4865, 0.4409]), torch.tensor([0.2673, 0.2564, 0.2762])
    torch.testing.assert_close(u, (x - mean[:, None, None]) / std[:, None, None])


def test_only_training_pictures_are_augmented(folder):
    splits = cifar100(augment=True, size=16)
    assert splits.train.augment
    assert not splits.validation.augment
    assert not splits.test.augment
    assert splits.shape == (3, 16, 16)


def test_a_broken_picture_is_named(folder):
    (folder / "train" / "baby" / "0007.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    with pytest.raises(BadData, match=r"baby/0007\.png cannot be decoded"):
        cifar100()


def test_missing_data_names_folder_layout_way_and_size(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNSL_DATA", str(tmp_path))
    with pytest.raises(MissingData) as caught:
        cifar100()
    message = str(caught.value)
    for words in (str(tmp_path / "cifar100"), "train/<class>/*.png", "download: true", "170 MB", "SNNSL_DATA"):
        assert words in message


def test_a_download_that_fails_is_missing_data(tmp_path, monkeypatch):
    from torchvision.datasets import cifar

    def no_network(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(cifar, "download_and_extract_archive", no_network)
    with pytest.raises(MissingData, match=r"the download failed .*unreachable"):
        cifar100(root=str(tmp_path / "here"), download=True)


def test_torchvisions_files_give_the_same_samples_as_a_tree(tmp_path, monkeypatch):
    from torchvision import datasets

    monkeypatch.setenv("SNNSL_DATA", str(tmp_path))
    tree = write_tree(tmp_path / "tree")
    archive = tmp_path / "pickles" / "cifar-100-python"
    archive.mkdir(parents=True)
    for part in ("train", "test"):
        files = sorted((tree / part).rglob("*.png"))
        rows = np.stack([np.array(Image.open(file)).transpose(2, 0, 1).reshape(-1) for file in files])
        targets = [FIRST.index(file.parent.name) for file in files]
        (archive / part).write_bytes(pickle.dumps({"data": rows, "fine_labels": targets}))
    (archive / "meta").write_bytes(pickle.dumps({"fine_label_names": list(FIRST)}))
    monkeypatch.setattr(datasets.CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda *_: True)
    for size in (None, 16):
        ours = cifar100(root=str(tmp_path / "pickles"), size=size, per_class=5, classes=["baby", "apple"])
        theirs = cifar100(root=str(tree), size=size, per_class=5, classes=["baby", "apple"])
        for a, b in ((ours.train, theirs.train), (ours.validation, theirs.validation), (ours.test, theirs.test)):
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.labels, b.labels)


def test_two_ways_of_choosing_classes_at_once_are_refused(folder):
    with pytest.raises(BadOption, match="both choose classes"):
        cifar100(subset="first_of_superclass", classes=2)
    with pytest.raises(BadOption, match="choose all or first_of_superclass"):
        cifar100(subset="first")
    with pytest.raises(BadOption, match="unknown class 'bear'"):  # the tree of this test has three classes only
        cifar100(subset="first_of_superclass")


@needs_data
def test_the_bench_task_has_its_sizes_and_its_classes(tmp_path, monkeypatch):
    """Decodes few of the real files: only those of two classes are linked into a tree."""
    assert sorted(name for members in SUPERCLASSES.values() for name in members) == sorted(os.listdir(REAL / "train"))
    for part in ("train", "test"):
        (tmp_path / "cifar100" / part).mkdir(parents=True)
        for name in ("apple", "orchid"):
            (tmp_path / "cifar100" / part / name).symlink_to(REAL / part / name)
    monkeypatch.setenv("SNNSL_DATA", str(tmp_path))
    splits = cifar100(size=16, per_class=200, validation_per_class=50)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (400, 100, 200)
    assert not set(splits.train.files) & set(splits.validation.files)
