"""CIFAR10-DVS is found in its layouts and split by drawing or by number."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from snnsl_plugin.datasets.cifar10_dvs import CLASSES, cifar10_dvs
from snnsl_plugin.errors import BadData, BadOption, MissingData

REAL = Path(os.environ.get("SNNSL_DATA", "nowhere")) / "cifar10_dvs"
SMALL = {"T": 2, "downsample": 32, "validation": 0.25}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNSL_DATA", str(tmp_path))
    return tmp_path / "cifar10_dvs"


def draw_events(seed, count=60):
    random = np.random.default_rng(seed)
    times = np.sort(random.integers(0, 5000, count))
    return random.integers(0, 128, count), random.integers(0, 128, count), times, random.integers(0, 2, count)


def write_spikingjelly(folder, numbers=range(8), words=CLASSES):
    for label, word in enumerate(words):
        (folder / word).mkdir(parents=True)
        for i in numbers:
            x, y, t, p = draw_events(1000 * label + i)
            np.savez(folder / word / f"cifar10_{word}_{i}.npz", t=t, x=x, y=y, p=p)


def write_original(folder, numbers=range(8), words=CLASSES):
    """AEDAT 2.0 as published: the sensor on its head, and polarity 1 for darker, as SpikingJelly reads it."""
    for label, word in enumerate(words):
        (folder / word).mkdir(parents=True)
        for i in numbers:
            x, y, t, p = draw_events(1000 * label + i)
            words_ = np.stack([((127 - x) << 8) | ((127 - y) << 1) | (1 - p), t], 1).astype(">u4")
            header = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"
            (folder / word / f"cifar10_{word}_{i}.aedat").write_bytes(header + words_.tobytes())


def samples(part):
    return {file.stem: (x, int(y)) for file, x, y in zip(part.files, part.frames, part.labels, strict=True)}


def test_both_layouts_of_the_same_recordings_give_the_same_splits(root, tmp_path):
    write_spikingjelly(root / "events_np")
    write_original(tmp_path / "published")
    one = cifar10_dvs(test=0.25, **SMALL)
    other = cifar10_dvs(root=str(tmp_path / "published"), test=0.25, **SMALL)
    assert ("layout of spikingjelly" in one.source, "layout of original" in other.source) == (True, True)
    assert (len(one.train), len(one.validation), len(one.test)) == (45, 15, 20)
    assert torch.bincount(one.test.labels).tolist() == [2] * 10
    for mine, theirs in zip(
        (one.train, one.validation, one.test), (other.train, other.validation, other.test), strict=True
    ):
        mine, theirs = samples(mine), samples(theirs)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name][0], theirs[name][0]) and mine[name][1] == theirs[name][1] for name in mine)
    names = [set(samples(part)) for part in (one.train, one.validation, one.test)]
    assert len(set.union(*names)) == 80
    for name, (_, label) in samples(one.test).items():
        assert name.split("_")[1] == CLASSES[label]


def test_a_frame_is_what_a_slow_loop_counts(root):
    write_spikingjelly(root / "events_np", words=CLASSES[:2])
    splits = cifar10_dvs(test=0.25, **SMALL)
    for i, file in enumerate(splits.test.files):
        stored = np.load(file)
        expected = torch.zeros(2, 2, 4, 4)
        for n in range(60):
            expected[n // 30, stored["p"][n], stored["y"][n] // 32, stored["x"][n] // 32] += 1
        assert torch.equal(splits.test[i][0], expected)


def test_first_100_tests_the_numbers_below_a_hundred(root):
    write_spikingjelly(root, numbers=(0, 7, 99, 100, 101, 999, 1000), words=CLASSES[:3])
    splits = cifar10_dvs(split="first_100", **SMALL)
    assert sorted({int(name.rsplit("_")[-1]) for name in samples(splits.test)}) == [0, 7, 99]
    assert len(splits.train) + len(splits.validation) == 12
    (root / "cat").mkdir()
    (root / "bird" / "cifar10_bird_7.npz").rename(root / "bird" / "mine.npz")
    with pytest.raises(BadData, match=r"mine\.npz has no number"):
        cifar10_dvs(split="first_100", **SMALL)


@pytest.mark.parametrize(
    "option", [{"split": "official"}, {"test": 0.0}, {"T": 0}, {"downsample": 0}, {"slice_by": "x"}]
)
def test_options_outside_their_range_are_refused_by_name(root, option):
    write_spikingjelly(root, words=CLASSES[:2])
    with pytest.raises(BadOption, match=next(iter(option))):
        cifar10_dvs(**option)


def test_missing_data_names_folder_layouts_way_and_size(root):
    with pytest.raises(MissingData) as caught:
        cifar10_dvs()
    for words in (str(root), "aedat4", "events_np", "figshare", "GB", "SNNSL_DATA"):
        assert words in str(caught.value)
    write_spikingjelly(root, words=CLASSES[:2])
    with pytest.raises(MissingData, match="no classes in the layout of tonic"):
        cifar10_dvs(layout="tonic")


@pytest.mark.parametrize(("write", "suffix"), [(write_spikingjelly, "npz"), (write_original, "aedat")])
@pytest.mark.parametrize("keep", [0, 20, 0.5, 0.99])
def test_a_recording_cut_short_stops_the_run_or_is_left_out_and_counted(root, write, suffix, keep):
    write(root, words=CLASSES[:2])
    file = root / "airplane" / f"cifar10_airplane_3.{suffix}"
    data = file.read_bytes()
    file.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data)) | 1])  # an odd number: never whole
    with pytest.raises(BadData, match=rf"airplane/cifar10_airplane_3\.{suffix} "):
        cifar10_dvs(test=0.25, **SMALL)
    splits = cifar10_dvs(test=0.25, skip_broken=True, **SMALL)
    assert splits.skipped == 1
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 15


@pytest.mark.skipif(importlib.util.find_spec("aedat") is not None, reason="the package aedat is installed")
def test_tonics_layout_without_the_package_aedat_says_what_to_install(root):
    from snnsl_plugin.errors import MissingExtra

    for word in CLASSES[:2]:
        (root / "CIFAR10DVS" / word).mkdir(parents=True)
        for i in range(8):
            (root / "CIFAR10DVS" / word / f"{i}.aedat4").write_bytes(b"#!AER-DAT4.0\r\n")
    with pytest.raises(MissingExtra, match="package aedat"):
        cifar10_dvs()


@pytest.mark.skipif(not REAL.is_dir(), reason="no recordings of CIFAR10-DVS below $SNNSL_DATA/cifar10_dvs")
def test_the_real_recordings_load_whole(tmp_path):
    splits = cifar10_dvs(root=str(REAL), T=2, downsample=4, binary=True)
    assert splits.classes == CLASSES
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 10_000
