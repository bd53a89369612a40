"""Event files decode to what a slow reader of their bytes finds, and a damaged one is named."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from snnsl_plugin.datasets._frames import Framing, to_frames
from snnsl_plugin.datasets._recordings import read_events
from snnsl_plugin.datasets.event_folder import event_folder
from snnsl_plugin.errors import BadData, BadOption, MissingData, MissingExtra

REAL = Path(os.environ.get("SNNSL_DATA", "nowhere")) / "dvs_gesture" / "microseconds"


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNSL_DATA", str(tmp_path / "root"))


def draw_events(seed, count=60, side=34):
    random = np.random.default_rng(seed)
    times = np.sort(random.integers(0, 3000, count))
    return random.integers(0, side, count), random.integers(0, side, count), times, random.integers(0, 2, count)


def to_bin(x, y, t, p):
    """N-MNIST's 40 bits: x, y, then one bit of polarity and 23 bits of microseconds, big end first."""
    rows = [(int(a) << 32) | (int(b) << 24) | (int(d) << 23) | int(c) for a, b, c, d in zip(x, y, t, p, strict=True)]
    return b"".join(row.to_bytes(5, "big") for row in rows)


def from_bin(data):
    """The slow reader: one event of 5 bytes at a time."""
    events = []
    for start in range(0, len(data), 5):
        bits = int.from_bytes(data[start : start + 5], "big")
        events.append((bits >> 32, (bits >> 24) & 255, bits & (2**23 - 1), (bits >> 23) & 1))
    return events


def read(file, columns="xypt"):
    return read_events(file, camera="ibm", columns=columns)


def polarity_packet(rows, room=None, kind=1):
    """A packet of AEDAT 3.1: 28 bytes of header, then room for so many events of 8 bytes, not all of it used."""
    number = len(rows) // 8
    room = number if room is None else room
    return struct.pack("<hhiiiiii", kind, 1, 8, 4, 0, room, number, number) + rows + bytes(8 * (room - number))


def special_packet():
    """Not events of pixels, and to be passed over: here as many as look like some."""
    return polarity_packet(bytes(range(16)), kind=0)


def write_tree(folder, parts=(("train", 10), ("test", 2)), suffix="bin"):
    for part, count in parts:
        for label, name in enumerate(("left", "right")):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                file = folder / part / name / f"{i:03}.{suffix}"
                file.write_bytes(to_bin(*draw_events(100 * label + i + len(part))))
    return folder


def test_a_bin_file_decodes_to_the_events_of_a_slow_reader(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(to_bin(*draw_events(0)))
    events = read(file)
    slow = from_bin(file.read_bytes())
    assert [(int(e["x"]), int(e["y"]), int(e["t"]), int(e["p"])) for e in events] == slow


def test_every_format_of_the_same_recording_gives_the_same_events(tmp_path):
    x, y, t, p = draw_events(1)
    (tmp_path / "a.bin").write_bytes(to_bin(x, y, t, p))
    np.savez(tmp_path / "a.npz", t=t, x=x, y=y, p=p)
    np.save(tmp_path / "columns.npy", np.stack([x, y, p, t], 1))
    np.save(tmp_path / "other.npy", np.stack([t, x, y, p], 1))
    np.save(tmp_path / "signed.npy", np.stack([x, y, 2 * p - 1, t], 1))
    events = read(tmp_path / "a.bin")
    np.save(tmp_path / "fields.npy", events)
    for name in ("a.npz", "columns.npy", "signed.npy", "fields.npy"):
        assert np.array_equal(read(tmp_path / name), events)
    assert np.array_equal(read(tmp_path / "other.npy", columns="txyp"), events)


@pytest.mark.parametrize(
    ("camera", "address"),
    [
        ("dvs128", lambda x, y, p: (x << 8) | (y << 1) | p),
        ("ibm", lambda x, y, p: (x << 17) | (y << 2) | (p << 1)),
        ("red", lambda x, y, p: (x << 17) | (y << 2) | (p << 1)),
        ("mini346", lambda x, y, p: (x << 22) | (y << 12) | (p << 11)),
        ("davis346", lambda x, y, p: ((345 - x) << 12) | ((259 - y) << 22) | (p << 11)),
    ],
)
@pytest.mark.parametrize("version", ["2.0", "3.1"])
def test_an_aedat_file_is_read_with_the_layout_of_its_camera(tmp_path, camera, address, version):
    x, y, t, p = draw_events(2, side=128)
    old = version == "2.0"
    rows = np.stack([address(x, y, p), t], 1).astype(">u4" if old else "<u4").tobytes()
    packets = rows if old else special_packet() + polarity_packet(rows[:160], room=30) + polarity_packet(rows[160:])
    (tmp_path / "a.aedat").write_bytes(f"#!AER-DAT{version}\r\n".encode() + packets)
    events = read_events(tmp_path / "a.aedat", camera=camera, columns="xypt")
    assert np.array_equal(np.stack([events[field] for field in "xytp"]), np.stack([x, y, t, p]))


@pytest.mark.parametrize("slice_by", ["time", "count"])
@pytest.mark.parametrize("downsample", [1, 2, 3])
def test_frames_are_the_counts_of_a_slow_loop(tmp_path, slice_by, downsample):
    file = tmp_path / "a.bin"
    file.write_bytes(to_bin(*draw_events(3, count=203)))
    events, parts, side = read(file), 4, -(-34 // downsample)
    expected = np.zeros((parts, 2, side, side), dtype=int)
    first, last = int(events["t"][0]), int(events["t"][-1])
    window, number = (last - first) // parts, len(events) // parts
    for i, event in enumerate(events):
        frame = (int(event["t"]) - first) // window if slice_by == "time" else i // number
        if frame < parts:  # the rest of the division is in no frame
            expected[frame, int(event["p"]), int(event["y"]) // downsample, int(event["x"]) // downsample] += 1
    frames = to_frames(file, events, Framing([34, 34], parts, slice_by, downsample, False))
    assert np.array_equal(frames, expected)
    assert np.array_equal(to_frames(file, events, Framing([34, 34], parts, slice_by, downsample, True)), expected > 0)


def test_a_sensor_is_given_as_height_and_width(tmp_path):
    np.savez(tmp_path / "a.npz", t=[0, 5, 9], x=[9, 0, 0], y=[0, 3, 0], p=[1, 0, 0])
    events = read(tmp_path / "a.npz")
    assert to_frames(tmp_path, events, Framing([4, 10], 1, "count", 1, False)).shape == (1, 2, 4, 10)
    with pytest.raises(BadData, match="outside a sensor of 10x4"):
        to_frames(tmp_path, events, Framing([10, 4], 1, "count", 1, False))


def test_the_label_is_the_folder_and_the_parts_are_disjoint(tmp_path):
    splits = event_folder(root=str(write_tree(tmp_path / "mine")), sensor_size=[34, 34], T=3, validation=0.2)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (16, 4, 4)
    assert splits.events
    assert splits.shape == (3, 2, 34, 34)
    assert not set(splits.train.files) & set(splits.validation.files)
    for part in (splits.train, splits.validation, splits.test):
        for i, file in enumerate(part.files):
            x, y = part[i]
            assert splits.classes[y] == file.parent.name
            frames = to_frames(file, read(file), Framing([34, 34], 3, "time", 1, False))
            assert torch.equal(x, torch.from_numpy(frames).float())


def test_the_second_load_comes_from_the_cache_and_is_equal(tmp_path, monkeypatch):
    folder = write_tree(tmp_path / "mine")
    first = event_folder(root=str(folder), sensor_size=[34, 34], T=3)

    def no_decoding(*_, **__):
        raise AssertionError("decoded again")

    monkeypatch.setattr("snnsl_plugin.datasets._camera_clips.read_events", no_decoding)
    again = event_folder(root=str(folder), sensor_size=[34, 34], T=3)
    assert torch.equal(first.train.frames, again.train.frames)
    with pytest.raises(AssertionError, match="decoded again"):
        event_folder(root=str(folder), sensor_size=[34, 34], T=4)


def test_a_validation_folder_is_taken_as_it_is(tmp_path):
    folder = write_tree(tmp_path / "mine", (("train", 5), ("validation", 2), ("test", 3)))
    splits = event_folder(root=str(folder), sensor_size=[34, 34])
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (10, 4, 6)
    with pytest.raises(BadOption, match="has a validation folder"):
        event_folder(root=str(folder), sensor_size=[34, 34], per_class=2)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.bin", to_bin(*draw_events(4))[:-2], "cut short: 298 bytes is no multiple of the 5 bytes"),
        ("a.bin", b"", "holds no events"),
        ("a.npz", b"PK\x03\x04 torn", "a.npz"),
        ("a.npy", b"\x93NUMPY torn", "cannot be read as an event recording"),
        ("a.aedat", b"no header at all", "a.aedat"),
        ("a.txt", b"1 2 3 4", "no event format known here"),
    ],
)
def test_a_damaged_file_is_named_with_the_way_out(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadData, match=sentence):
        read(tmp_path / name)


def test_a_torn_npz_is_named(tmp_path):
    x, y, t, p = draw_events(5)
    file = tmp_path / "a.npz"
    np.savez(file, x=x, y=y, t=t, p=p)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BadData, match=r"a\.npz .*load the file again or remove it"):
        read(file)


def test_times_that_go_backwards_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", t=[0, 7, 5], x=[0, 0, 0], y=[0, 0, 0], p=[0, 1, 1])
    with pytest.raises(BadData, match="backwards after event 1"):
        read(tmp_path / "a.npz")


def test_columns_in_another_order_are_refused_and_point_to_the_option(tmp_path):
    x, y, t, p = draw_events(6)
    np.save(tmp_path / "a.npy", np.stack([x, y, t, p], 1))
    with pytest.raises(BadData, match="option columns"):
        read(tmp_path / "a.npy")
    assert len(read(tmp_path / "a.npy", columns="xytp")) == 60


def test_pickled_objects_are_never_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BadData, match="allow_pickle=False"):
        read(tmp_path / "a.npy")


def test_aedat4_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    import sys

    (tmp_path / "a.aedat4").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "aedat", None)
    with pytest.raises(MissingExtra, match="package aedat"):
        read(tmp_path / "a.aedat4")


def test_a_recording_too_short_for_its_frames_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", t=[0, 5, 9], x=[0, 0, 0], y=[0, 0, 0], p=[1, 0, 0])
    events = read(tmp_path / "a.npz")
    with pytest.raises(BadData, match="3 events long, too short for 4 frames"):
        to_frames(tmp_path / "a.npz", events, Framing([4, 4], 4, "count", 1, False))
    with pytest.raises(BadData, match="9 ticks long, too short for 10 frames"):
        to_frames(tmp_path / "a.npz", events, Framing([4, 4], 10, "time", 1, False))


def test_missing_data_names_the_folder_and_the_formats(tmp_path):
    with pytest.raises(MissingData, match=r"nowhere.*train/<class>.*\.aedat4"):
        event_folder(root=str(tmp_path / "nowhere"), sensor_size=[34, 34])


@pytest.mark.parametrize(
    "option", [{"T": 0}, {"slice_by": "both"}, {"downsample": 0}, {"downsample": 35}, {"sensor_size": [34]}]
)
def test_options_outside_their_range_are_refused_by_name(tmp_path, option):
    with pytest.raises(BadOption, match=next(iter(option))):
        event_folder(**{"root": str(tmp_path), "sensor_size": [34, 34], **option})


@pytest.mark.skipif(not REAL.is_dir(), reason="no dvs_gesture/microseconds below $SNNSL_DATA")
def test_real_gesture_recordings_keep_all_events_but_the_last_tick(tmp_path):
    recordings = sorted(REAL.glob("*.npz"))[:4]
    for i, file in enumerate(recordings):
        folder = tmp_path / "mine" / ("train", "test")[i % 2] / "any"
        folder.mkdir(parents=True, exist_ok=True)
        (folder.parent / "other").mkdir(exist_ok=True)
        for name in ("any", "other"):
            for copy in range(2):
                (folder.parent / name / f"{copy}{file.name}").symlink_to(file)
    splits = event_folder(root=str(tmp_path / "mine"), sensor_size=[128, 128], T=10, downsample=4, validation=0.5)
    assert splits.shape == (10, 2, 32, 32)
    for x, file in zip(splits.test.frames, splits.test.files, strict=True):
        count = len(np.load(file)["t"])
        assert count - 200 < int(x.sum()) < count


@pytest.mark.parametrize("binary", [False, True])
def test_a_pixel_with_more_events_than_a_frame_can_count_is_refused(tmp_path, binary):
    count = 70_000
    events = np.zeros(count, dtype=[("x", "<i8"), ("y", "<i8"), ("t", "<i8"), ("p", "?")])
    events["t"] = np.arange(count)
    framing = Framing((4, 4), 2, "count", 1, binary)
    with pytest.raises(BadData, match="more than 32767 events of one pixel in a frame"):
        to_frames(tmp_path / "hot.npz", events, framing)
    fine = to_frames(tmp_path / "hot.npz", events, Framing((4, 4), 4, "count", 1, False))
    assert fine.sum(dtype=np.int64) == count
