"""SHD becomes frames by the clock, and a damaged file or recording is named."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from snnsl_plugin.datasets.shd import shd, to_frames
from snnsl_plugin.errors import BadData, BadOption, MissingData

REAL = Path(os.environ.get("SNNSL_DATA", "nowhere")) / "shd"
WORDS = ["zero", "one", "two", "null"]


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNSL_DATA", str(tmp_path))
    return tmp_path / "shd"


def draw_spikes(seed, count=50):
    random = np.random.default_rng(seed)
    return np.sort(random.random(count)).astype(np.float16), random.integers(0, 700, count).astype(np.uint16)


def write(folder, per_class=6, spoil=None):
    """The two files in their true form: ragged times (float16 seconds) and units, labels, names of classes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(("train", "test")):
        labels = np.tile(np.arange(len(WORDS)), per_class).astype(np.uint16)
        drawn = [draw_spikes(1000 * number + i) for i in range(len(labels))]
        if spoil and part == "train":
            drawn[5] = spoil(*drawn[5])
        with h5py.File(folder / f"shd_{part}.h5", "w") as file:
            for name, kind, column in (("times", np.float16, 0), ("units", np.uint16, 1)):
                rows = file.create_dataset(f"spikes/{name}", (len(labels),), h5py.vlen_dtype(kind))
                for i, both in enumerate(drawn):
                    rows[i] = both[column]
            file["labels"] = labels
            file["extra/keys"] = np.array([word.encode() for word in WORDS])
            file["extra/speaker"] = np.zeros(len(labels), np.uint16)
    return folder


def test_a_frame_counts_the_spikes_of_its_window_by_the_clock():
    times, units = np.array([0.0, 0.0999, 0.1, 0.25, 0.3999, 0.4, 1.3]), np.array([0, 699, 0, 1, 1, 5, 5])
    frames = to_frames("here", times, units, 4, 100_000, 1, False)
    assert frames.shape == (4, 700, 1, 1)
    assert [sorted(np.flatnonzero(frame).tolist()) for frame in frames] == [[0, 699], [0], [1], [1]]
    assert frames.sum() == 5  # two spikes come too late
    assert to_frames("here", times, units, 8, 100_000, 1, False)[5:].sum() == 0  # silence after 0.5 s, up to 0.8 s


@pytest.mark.parametrize("downsample", [1, 3, 10])
@pytest.mark.parametrize("binary", [True, False])
def test_the_parts_are_the_files_and_a_frame_is_what_a_slow_loop_counts(root, downsample, binary):
    write(root)
    splits = shd(T=5, seconds=1.0, downsample=downsample, binary=binary)
    width = -(-700 // downsample)
    assert splits.shape == (5, width, 1, 1)
    assert splits.classes == WORDS
    assert (len(splits.train) + len(splits.validation), len(splits.test)) == (24, 24)
    for i in range(24):
        expected = torch.zeros(5, width, 1, 1)
        for time, unit in zip(*draw_spikes(1000 + i), strict=True):
            frame = int(float(time) * 1e6) // 200_000
            if frame < 5:
                expected[frame, int(unit) // downsample] += 1
        x, y = splits.test[i]
        assert torch.equal(x, expected.clamp(max=1) if binary else expected)
        assert y == i % 4


def test_classes_are_chosen_by_word_or_number_and_the_second_load_is_equal(root):
    write(root / "SHD")
    one, again = shd(classes=["null", "one"], T=3), shd(classes=["one", "null"], T=3)
    assert one.classes == again.classes == ["one", "null"]
    assert torch.equal(one.train.frames, again.train.frames)
    assert one.test.labels.tolist() == [0, 1] * 6
    assert shd(classes=2, T=3).classes == ["zero", "one"]


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.9])
@pytest.mark.parametrize("part", ["train", "test"])
def test_a_file_cut_short_is_named_whatever_is_to_be_skipped(root, keep, part):
    file = write(root) / f"shd_{part}.h5"
    data = file.read_bytes()
    file.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    for skip in (False, True):
        with pytest.raises(BadData, match=rf"shd_{part}\.h5.*cut short"):
            shd(skip_broken=skip, T=3)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda t, u: (t[:0], u[:0]), "0 times and 0 channels"),
        (lambda t, u: (t, u[:-1]), "50 times and 49 channels"),
        (lambda t, u: (t[::-1], u), "go backwards"),
        (lambda t, u: (t * np.float16("nan"), u), "not numbers"),
        (lambda t, u: (t, u + 700), "channels are 0 to 699"),
    ],
)
def test_a_broken_recording_is_named_or_left_out_and_counted(root, spoil, sentence):
    write(root, spoil=spoil)
    with pytest.raises(BadData, match=rf"shd_train\.h5, recording 5.*{sentence}"):
        shd(T=3)
    splits = shd(T=3, skip_broken=True)
    assert splits.skipped == 1
    assert len(splits.train) + len(splits.validation) == 23


@pytest.mark.parametrize("option", [{"T": 0}, {"seconds": 0.0}, {"downsample": 0}, {"downsample": 701}])
def test_options_outside_their_range_are_refused_by_name(option):
    with pytest.raises(BadOption, match=next(iter(option))):
        shd(**option)


def test_missing_data_names_folder_layout_way_and_size(root):
    with pytest.raises(MissingData) as caught:
        shd()
    for words in (str(root), "shd_train.h5", "zenkelab.org", "MB", "SNNSL_DATA"):
        assert words in str(caught.value)
    (write(root) / "shd_test.h5").unlink()
    with pytest.raises(MissingData, match=r"without shd_test\.h5"):
        shd()


@pytest.mark.skipif(not REAL.is_dir(), reason="no recordings of SHD below $SNNSL_DATA/shd")
def test_the_real_recordings_load_whole():
    splits = shd(root=str(REAL), T=10, downsample=10)
    assert len(splits.classes) == 20
    assert len(splits.train) + len(splits.validation) + len(splits.test) > 10_000
