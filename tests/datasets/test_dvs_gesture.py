"""DVS128 Gesture is found in the three layouts, cut by its labels, and split as published or by halves."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from snnsl_plugin.datasets._augment import EventAugment
from snnsl_plugin.datasets._gesture_layouts import CLASSES
from snnsl_plugin.datasets.dvs_gesture import dvs_gesture
from snnsl_plugin.errors import BadData, BadOption, MissingData

REAL = Path(os.environ.get("SNNSL_DATA", "nowhere")) / "dvs_gesture"
needs_data = pytest.mark.skipif(
    not (REAL / "DVSGesture").is_dir(), reason="no recordings of DVS128 Gesture below $SNNSL_DATA/dvs_gesture"
)
SMALL = {"T": 2, "downsample": 32, "validation": 0.25}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNSL_DATA", str(tmp_path))
    return tmp_path / "dvs_gesture"


def draw_events(seed, count=80, start=0):
    random = np.random.default_rng(seed)
    times = start + np.sort(random.integers(0, 5000, count))
    return random.integers(0, 128, count), random.integers(0, 128, count), times, random.integers(0, 2, count)


def write_tonic(folder, users=(("Train", (1, 2)), ("Test", (24,))), labels=range(11)):
    for part, numbers in users:
        for user in numbers:
            place = folder / f"ibmGesture{part}" / f"user{user:02}_led"
            place.mkdir(parents=True)
            for label in labels:
                x, y, t, p = draw_events(100 * user + label)
                np.save(place / f"{label}.npy", np.stack([x, y, p, t], 1))


def write_spikingjelly(folder, users=(("train", (1, 2)), ("test", (24,))), labels=range(11)):
    for part, numbers in users:
        for label in labels:
            place = folder / part / str(label)
            place.mkdir(parents=True)
            for user in numbers:
                x, y, t, p = draw_events(100 * user + label)
                np.savez(place / f"user{user:02}_led_0.npz", t=t, x=x, y=y, p=p)


def write_original(folder, users=(("train", (1, 2)), ("test", (24,))), labels=range(11)):
    """One AEDAT 3.1 file a user, in packets of up to 100 events; between the gestures there are events of no sample."""
    folder.mkdir(parents=True)
    for part, numbers in users:
        (folder / f"trials_to_{part}.txt").write_text("".join(f"user{user:02}_led.aedat\n" for user in numbers) + "\n")
        for user in numbers:
            columns, rows = [], ["class,startTime_usec,endTime_usec"]
            for label in labels:
                start = 10_000 * label
                columns.append(np.stack(draw_events(100 * user + label, start=start)))
                columns.append(np.array([[5], [5], [start + 7000], [1]]))
                rows.append(f"{label + 1},{start},{start + 5000}")
            x, y, t, p = np.concatenate(columns, 1)
            words = np.stack([(x << 17) | (y << 2) | (p << 1) | 1, t], 1).astype("<u4")
            packets = b"".join(
                struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, len(part_), len(part_), len(part_)) + part_.tobytes()
                for part_ in np.split(words, range(100, len(words), 100))
            )
            header = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"
            (folder / f"user{user:02}_led.aedat").write_bytes(header + packets)
            (folder / f"user{user:02}_led_labels.csv").write_text("\n".join(rows) + "\n")


def everything(splits):
    """All samples of the training half of a data set, whatever validation took, in one order."""
    frames = torch.cat([splits.train.frames, splits.validation.frames])
    labels = torch.cat([splits.train.labels, splits.validation.labels])
    rows = torch.cat([labels[:, None], frames.flatten(1).long()], 1).tolist()
    return sorted(rows)


def test_a_sample_is_what_a_slow_loop_counts_and_polarity_is_kept(root):
    write_tonic(root / "DVSGesture")
    splits = dvs_gesture(**{**SMALL, "slice_by": "time"})
    assert splits.shape == (2, 2, 4, 4)
    for i, file in enumerate(splits.train.files):
        x, label = splits.train[i]
        assert splits.classes[label] == CLASSES[int(file.stem)]
        rows = np.load(file)
        first, last = rows[0, 3], rows[-1, 3]
        expected = torch.zeros(2, 2, 4, 4)
        for column, line, polarity, time in rows.tolist():
            frame = (time - first) // ((last - first) // 2)
            if frame < 2:
                expected[frame, polarity, line // 32, column // 32] += 1
        assert torch.equal(x, expected)


def test_the_three_layouts_of_the_same_recordings_give_the_same_samples(root, tmp_path):
    write_tonic(root / "DVSGesture")
    write_spikingjelly(tmp_path / "sj" / "events_np")
    write_original(tmp_path / "o" / "DvsGesture")
    roots = {"tonic": root, "spikingjelly": tmp_path / "sj", "original": tmp_path / "o"}
    found = {}
    for layout, place in roots.items():
        splits = dvs_gesture(root=str(place), **SMALL)
        assert f"in the layout of {layout}" in splits.source
        assert "official split" in splits.source
        assert splits.classes == CLASSES
        assert (len(splits.train) + len(splits.validation), len(splits.test)) == (22, 11)
        found[layout] = (everything(splits), splits.test.frames[splits.test.labels.argsort()])
    for layout in ("spikingjelly", "original"):
        assert found[layout][0] == found["tonic"][0]
        assert torch.equal(found[layout][1], found["tonic"][1])


def test_a_layout_can_be_asked_for_and_the_first_one_is_taken_otherwise(root):
    write_original(root / "DvsGesture")
    write_spikingjelly(root / "events_np")
    assert "spikingjelly" in dvs_gesture(**SMALL).source
    assert "original" in dvs_gesture(layout="original", **SMALL).source
    with pytest.raises(MissingData, match="in the layout of tonic"):
        dvs_gesture(layout="tonic", **SMALL)


def test_a_gesture_made_twice_is_two_samples(root):
    write_original(root)
    labels = root / "user01_led_labels.csv"
    labels.write_text(labels.read_text().replace("9,80000,85000", "9,80000,82500\n9,82500,85000"))
    splits = dvs_gesture(**SMALL)
    assert len(splits.train) + len(splits.validation) == 23
    assert torch.bincount(torch.cat([splits.train.labels, splits.validation.labels])).tolist() == [2] * 8 + [3, 2, 2]


def test_quick_trains_on_the_first_half_of_each_recording_and_tests_on_the_second(root):
    write_tonic(root, users=(("Test", (1,)),), labels=range(10))
    with pytest.raises(MissingData, match=r"training part \(split: quick trains on what there is\)"):
        dvs_gesture(**SMALL)
    splits = dvs_gesture(split="quick", windows=3, T=1, downsample=32, validation=0.25)
    assert "plumbing only" in splits.source
    assert splits.classes == CLASSES[:10]
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (22, 8, 30)
    for file in set(splits.test.files):
        rows = np.load(file)
        first, width = rows[0, 3], (rows[-1, 3] - rows[0, 3]) // 6
        early = ((rows[:, 3] - first) < 3 * width).sum()
        late = ((rows[:, 3] - first) < 6 * width).sum() - early
        counted = [
            sum(int(part.frames[i].sum()) for i, one in enumerate(part.files) if one == file)
            for part in (splits.train, splits.validation, splits.test)
        ]
        assert counted[0] + counted[1] == early
        assert counted[2] == late


def test_classes_are_words_or_the_first_so_many_in_the_official_order(root):
    write_tonic(root)
    assert dvs_gesture(classes=3, **SMALL).classes == CLASSES[:3]
    splits = dvs_gesture(classes=["air_drums", "left_hand_wave"], **SMALL)
    assert splits.classes == ["left_hand_wave", "air_drums"]
    assert {(int(file.stem), int(y)) for file, y in zip(splits.test.files, splits.test.labels, strict=True)} == {
        (2, 0),
        (8, 1),
    }
    with pytest.raises(BadOption, match="unknown class 'air_drum'; did you mean 'air_drums'"):
        dvs_gesture(classes=["air_drum", "arm_roll"], **SMALL)


def test_only_training_samples_are_augmented(root):
    write_tonic(root)
    splits = dvs_gesture(augment=EventAugment(drop=0.5), **SMALL)
    assert splits.train.augment is not None
    assert splits.validation.augment is splits.test.augment is None


@pytest.mark.parametrize(
    "option", [{"windows": 1, "split": "quick"}, {"split": "other"}, {"T": 0}, {"downsample": 129}]
)
def test_options_outside_their_range_are_refused_by_name(root, option):
    write_tonic(root, labels=range(2))
    with pytest.raises(BadOption, match=next(iter(option))):
        dvs_gesture(**option)


def test_missing_data_names_folder_layouts_way_and_size(root):
    with pytest.raises(MissingData) as caught:
        dvs_gesture()
    for words in (str(root), "ibmGestureTrain", "events_np", "trials_to_", "research.ibm.com", "GB", "SNNSL_DATA"):
        assert words in str(caught.value)


def test_a_class_without_recordings_is_named(root):
    write_tonic(root)
    (root / "ibmGestureTest" / "user24_led" / "7.npy").unlink()
    with pytest.raises(MissingData, match="no test recordings of arm_roll"):
        dvs_gesture(**SMALL)
    assert len(dvs_gesture(classes=7, **SMALL).test) == 7


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("class,startTime_usec,endTime_usec\n1,2\n", "rows of class, startTime_usec"),
        ("class,startTime_usec,endTime_usec\n12,0,5000\n", "'?11'? is no label"),
        (None, "rows of class, startTime_usec"),
    ],
)
def test_labels_that_cannot_be_read_are_named(root, rows, sentence):
    write_original(root)
    file = root / "user02_led_labels.csv"
    file.unlink()
    if rows is not None:
        file.write_text(rows)
    with pytest.raises(BadData, match=rf"user02_led_labels\.csv.*{sentence}"):
        dvs_gesture(**SMALL)


def test_an_aedat_file_cut_short_is_named_or_the_rest_of_it_used(root):
    write_original(root, users=(("train", (1, 2, 3)), ("test", (24,))))
    file = root / "user01_led.aedat"
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    with pytest.raises(BadData, match=r"user01_led\.aedat is cut short: its last packet misses 3 bytes"):
        dvs_gesture(**SMALL)
    splits = dvs_gesture(skip_broken=True, **SMALL)  # none of a damaged file is trusted
    assert splits.skipped == 11
    assert {file.name for file in splits.train.files} == {"user02_led.aedat", "user03_led.aedat"}
    file.write_bytes(whole[: len(whole) - 28 * 3 - 100 * 8 * 2])  # at the end of a packet: the events are whole
    with pytest.raises(BadData, match="cut short in the header|cut short: its last|no events from 90000 to 95000"):
        dvs_gesture(**SMALL)


@needs_data
def test_the_real_recordings_make_a_quick_split(tmp_path):
    splits = dvs_gesture(root=str(REAL), split="quick", windows=4, T=4, downsample=4)
    recordings = sorted((REAL / "DVSGesture").rglob("*.npy"))
    assert (len(splits.train) + len(splits.validation), len(splits.test)) == (4 * len(recordings), 4 * len(recordings))
    assert splits.shape == (4, 2, 32, 32)
    total = sum(int(part.frames.sum()) for part in (splits.train, splits.validation, splits.test))
    there = sum(len(np.load(file)) for file in recordings)
    assert 0.99 * there < total < there


@needs_data
@pytest.mark.parametrize("keep", [0, 5, 80, 1000, 0.5, 0.999])
def test_a_real_recording_cut_short_stops_the_run_or_is_left_out_and_counted(root, keep, caplog):
    for user in ("user01_unknown", "user02_unknown"):
        (root / "ibmGestureTest" / user).mkdir(parents=True)
        for file in sorted((REAL / "DVSGesture").rglob("*.npy"))[:3]:
            (root / "ibmGestureTest" / user / file.name).write_bytes(file.read_bytes())
    broken = root / "ibmGestureTest" / "user02_unknown" / "1.npy"
    data = broken.read_bytes()
    broken.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    options = {"split": "quick", "windows": 2, "T": 2, "downsample": 8, "validation": 0.4}
    with pytest.raises(BadData, match=r"user02_unknown/1\.npy .*skip_broken: true"):
        dvs_gesture(**options)
    for _ in range(2):  # decoded, then from the cache: told and counted each time
        caplog.clear()
        splits = dvs_gesture(skip_broken=True, **options)
        assert splits.skipped == 4  # two windows of each half
        assert len(splits.train) + len(splits.validation) == len(splits.test) == 10
        assert broken not in {*splits.train.files, *splits.validation.files, *splits.test.files}
        assert [record.getMessage().count("user02_unknown/1.npy") for record in caplog.records] == [1, 1]
