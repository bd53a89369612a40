import os
from pathlib import Path

import pytest
import torch

from snnsl_plugin.datasets.nmnist import nmnist
from snnsl_plugin.errors import BadData, MissingData

REAL = Path(os.environ.get("SNNSL_DATA", "nowhere")) / "nmnist"
needs_data = pytest.mark.skipif(not (REAL / "Train").is_dir(), reason="no nmnist/Train below $SNNSL_DATA")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNSL_DATA", str(tmp_path))
    for part, count in (("Train", 10), ("Test", 2)):
        for digit in "0123456789":
            (tmp_path / "nmnist" / part / digit).mkdir(parents=True)
            for i in range(count):
                # one event a millisecond at x = digit, y = i; its five bytes are x, y, polarity with 23 bits of time
                events = [bytes([int(digit), i]) + (1000 * t).to_bytes(3, "big") for t in range(40)]
                (tmp_path / "nmnist" / part / digit / f"{i:05}.bin").write_bytes(b"".join(events))
    return tmp_path / "nmnist"


def test_the_parts_are_the_folders_and_a_tenth_of_training_is_held_out(folder):
    splits = nmnist(T=4, downsample=1, binary=False)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (90, 10, 20)
    assert splits.shape == (4, 2, 34, 34)
    assert {file.parent.parent.name for file in splits.test.files} == {"Test"}
    x, y = splits.train[0]
    i = int(splits.train.files[0].stem)
    # 39 ms in 4 windows of 9.75 ms: 10 events, 10, 10, and 9 with the last one outside
    assert x[:, 0, i, y].tolist() == [10, 10, 10, 9]
    assert x.sum() == 39


def test_binary_frames_are_zero_or_one_and_half_as_wide_by_default(folder):
    splits = nmnist()
    assert splits.shape == (4, 2, 17, 17)
    assert splits.train.frames.unique().tolist() == [0, 1]


def test_folds_pool_both_parts_and_test_every_recording_once(folder):
    tested, sizes = [], set()
    for fold in range(5):
        splits = nmnist(folds=5, fold=fold)
        assert not set(splits.test.files) & {*splits.train.files, *splits.validation.files}
        assert not set(splits.train.files) & set(splits.validation.files)
        assert torch.bincount(splits.test.labels, minlength=10).max() <= 3
        tested += splits.test.files
        sizes.add((len(splits.train), len(splits.validation), len(splits.test)))
    assert len(tested) == len(set(tested)) == 120
    assert sizes == {(86, 10, 24)}


def test_a_recording_cut_short_is_named_before_anything_is_trained(folder):
    file = folder / "Train" / "3" / "00002.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BadData, match=r"Train/3/00002\.bin is cut short"):
        nmnist()


@pytest.mark.parametrize("folds", [None, 5])
def test_or_broken_recordings_are_left_out_named_and_counted(folder, folds, caplog):
    for name in ("Train/3/00002.bin", "Test/7/00001.bin"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    (folder / "Train" / "5" / "00000.bin").write_bytes(b"")
    splits = nmnist(skip_broken=True, folds=folds)
    assert splits.skipped == 3
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 117
    assert all(name in caplog.text for name in ("Train/3/00002.bin", "Test/7/00001.bin", "Train/5/00000.bin"))


def test_missing_data_names_folder_layout_way_and_size(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNSL_DATA", str(tmp_path))
    with pytest.raises(MissingData) as caught:
        nmnist()
    for words in (str(tmp_path / "nmnist"), "Train/<digit>/*.bin", "Train.zip", "GB", "SNNSL_DATA"):
        assert words in str(caught.value)


@needs_data
def test_the_real_recordings_load_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNSL_DATA", str(tmp_path))
    splits = nmnist(root=str(REAL), binary=False)
    assert len(splits.train) + len(splits.validation) + len(splits.test) == len(list(REAL.rglob("*.bin")))
    assert splits.classes == list("0123456789")
    per_recording = splits.train.frames.flatten(1).sum(1).float()
    assert 3500 < per_recording.mean() < 4700  # about 4,100 events each
