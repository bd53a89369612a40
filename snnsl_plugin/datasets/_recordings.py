"""Event recordings from files: tonic's readers, and a check that what they return is a recording."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from snnsl_plugin.errors import BadData, MissingExtra

Events = NDArray[Any]  # structured: x, y int16; t int64; p bool
Camera = Literal["ibm", "dvs128", "red", "davis346", "mini346"]
Columns = Literal["xypt", "xytp", "txyp"]
SUFFIXES = (".bin", ".aedat", ".aedat4", ".npy", ".npz")
# Where a camera puts x, y and polarity in the address of an event: (bits to the right of it, mask), as in tonic.io. Of
# tonic 1.7's own readers only the DAVIS346 one works: the others unpack two of the three values of the header.
_ADDRESSES: dict[Camera, tuple[tuple[int, int], tuple[int, int], tuple[int, int]]] = {
    "ibm": ((17, 0x1FFF), (2, 0x1FFF), (1, 1)),
    "dvs128": ((8, 0x7F), (1, 0x7F), (0, 1)),
    "red": ((17, 0x7FFF), (2, 0x7FFF), (1, 1)),
    "davis346": ((12, 0x3FF), (22, 0x1FF), (11, 1)),
    "mini346": ((22, 0x1FF), (12, 0x3FF), (11, 1)),
}
_WAY_OUT = "load the file again or remove it, or set skip_broken: true in the data, and it is left out and counted"


def read_events(file: Path, *, camera: Camera, columns: Columns) -> Events:
    """The events of one recording, in the order of time.

    Args:
        file: `.bin` (the format of N-MNIST and N-Caltech101), `.aedat` (2 or 3.1, by camera), `.aedat4`, `.npz` with
            keys t, x, y, p, `.npy` with those fields or with four columns.
        camera: whose address layout an `.aedat` file has.
        columns: the order of the columns of an `.npy` file without fields.

    Returns:
        A structured array with fields x, y, t (ticks of the file, never decreasing) and p (bool).

    Raises:
        BadData: a file cut short, unreadable, empty, or whose times go backwards; named, with the way out.
        MissingExtra: tonic, or the library it reads `.aedat4` with, cannot be imported here.
    """
    try:
        import tonic.io  # noqa: F401  (a missing tonic is not a damaged file)
    except (ImportError, RuntimeError) as cause:
        raise MissingExtra(f"event files are read by tonic, which cannot be imported here: {cause}") from cause
    read = _reader(file, camera, columns)
    try:
        events = read(file)
    except (OSError, ValueError, KeyError, IndexError, EOFError, TypeError, AssertionError) as cause:
        raise BadData(f"{file} cannot be read as an event recording ({cause}); {_WAY_OUT}") from cause
    except (NotImplementedError, UnboundLocalError, zipfile.BadZipFile, zlib.error, struct.error) as cause:
        # no header, no version; a torn .npz
        raise BadData(f"{file} is not a whole {file.suffix} recording ({cause}); {_WAY_OUT}") from cause
    return _checked(file, events)


def _reader(file: Path, camera: Camera, columns: Columns) -> Callable[[Path], Events]:
    suffix = file.suffix.lower()
    if suffix == ".bin":
        return _read_bin
    if suffix == ".aedat":
        return lambda path: _read_aedat(path, camera)
    if suffix == ".aedat4":
        return _read_aedat4
    if suffix == ".npz":
        return _read_npz
    if suffix == ".npy":
        return lambda path: _read_npy(path, columns)
    raise BadData(
        f"{file} has a suffix that is no event format known here ({', '.join(SUFFIXES)}); remove or convert it"
    )


def _read_bin(file: Path) -> Events:
    from tonic.io import events_struct, read_mnist_file

    size = os.path.getsize(file)
    if size % 5:  # tonic would read it with columns of different length, or one event short
        raise BadData(f"{file} is cut short: {size} bytes is no multiple of the 5 bytes of an event; {_WAY_OUT}")
    events: Events = read_mnist_file(str(file), dtype=events_struct)
    return events


def _read_aedat(file: Path, camera: Camera) -> Events:
    from tonic.io import get_aer_events_from_file, read_aedat_header_from_file

    with file.open("rb") as raw:
        if raw.read(9) != b"#!AER-DAT":  # tonic would fail, and leave the file open
            raise BadData(f"{file} does not begin as an .aedat file; {_WAY_OUT}")
    version, start = read_aedat_header_from_file(str(file))[:2]
    if version >= 3:
        stored = _polarity_events(file, start)
    elif (size := os.path.getsize(file) - start) % 8:
        raise BadData(f"{file} is cut short: {size} bytes of events are no multiple of 8; {_WAY_OUT}")
    else:
        stored = get_aer_events_from_file(str(file), version, start)
    x, y, p = ((stored["address"] >> shift) & mask for shift, mask in _ADDRESSES[camera])
    if camera == "davis346":  # counted from the other corner
        x, y = 345 - x.astype(np.int64), 259 - y.astype(np.int64)
    return _structured(x, y, stored["timeStamp"], p)


def _polarity_events(file: Path, start: int) -> NDArray[Any]:
    """Addresses and times of AEDAT 3's packets of polarity events.

    tonic 1.7 takes what a packet has room for as what it holds, reads other kinds of events as polarity events too, and
    does not notice where a file ends in the middle of a packet.
    """
    data, found = file.read_bytes(), []
    while start < len(data):
        if start + 28 > len(data):
            raise BadData(f"{file} is cut short in the header of a packet, at byte {start}; {_WAY_OUT}")
        kind, _, width, _, turns, room, number, _ = struct.unpack_from("<hhiiiiii", data, start)
        start += 28
        if width < 8 or not 0 <= number <= room:
            raise BadData(f"{file} has a damaged packet before byte {start}; {_WAY_OUT}")
        if start + room * width > len(data):
            raise BadData(
                f"{file} is cut short: its last packet misses {start + room * width - len(data)} bytes; {_WAY_OUT}"
            )
        if kind == 1 and number:
            layout = np.dtype([("address", "<u4"), ("timeStamp", "<u4"), ("more", f"V{width - 8}")])
            packet = np.frombuffer(data, layout, number, start)
            both = np.empty(number, [("address", np.uint32), ("timeStamp", np.int64)])
            both["address"], both["timeStamp"] = packet["address"], packet["timeStamp"].astype(np.int64) + (turns << 31)
            found.append(both)
        start += room * width
    return np.concatenate(found)  # no packet at all: a ValueError


def _read_aedat4(file: Path) -> Events:
    from tonic.io import read_aedat4

    try:
        found = read_aedat4(str(file))
    except ImportError as cause:
        raise MissingExtra(
            f"{file} is AEDAT 4, which tonic reads with the package aedat ({cause}); install it or save the recording "
            "as .npz with keys t, x, y, p"
        ) from cause
    return _structured(found["x"], found["y"], found["t"], found["on"])


def _read_npz(file: Path) -> Events:
    with file.open("rb") as raw, np.load(raw, allow_pickle=False) as stored:  # np.load leaves a torn file open
        return _structured(stored["x"], stored["y"], stored["t"], stored["p"])


def _read_npy(file: Path, columns: Columns) -> Events:
    stored = np.load(file, allow_pickle=False)
    if stored.dtype.names:
        return _structured(stored["x"], stored["y"], stored["t"], stored["p"])
    if stored.ndim != 2 or stored.shape[1] != 4:
        raise ValueError(f"an array of shape {stored.shape}, without fields x, y, t, p and without four columns")
    return _structured(*(stored[:, columns.index(field)] for field in "xytp"))


def _structured(x: Any, y: Any, t: Any, p: Any) -> Events:
    """One array of events; a polarity is 0/1 or -1/1 and anything else is a wrong column."""
    from tonic.io import make_structured_array

    if not all(np.isfinite(np.asarray(column, dtype=float)).all() for column in (x, y, t, p)):
        raise ValueError("NaN or infinity among its events")
    if strange := sorted(set(np.unique(p).tolist()) - {-1, 0, 1}):
        raise ValueError(f"a polarity of {strange[0]}; it is 0 or 1, so look at the option columns")
    if len({len(x), len(y), len(t), len(p)}) != 1:
        raise ValueError("columns x, y, t, p of different length")
    if len(x) and (np.min(x) < 0 or np.min(y) < 0 or max(np.max(x), np.max(y)) > np.iinfo(np.int16).max):
        raise ValueError("coordinates that are no pixels; look at the option columns")
    events: Events = make_structured_array(np.asarray(x), y, t, np.asarray(p) > 0)
    return events


def _checked(file: Path, events: Events) -> Events:
    if not len(events):
        raise BadData(f"{file} holds no events; {_WAY_OUT}")
    backwards = np.flatnonzero(np.diff(events["t"]) < 0)
    if len(backwards):  # tonic slices by bisection, which needs them sorted, and would say nothing
        raise BadData(
            f"{file}: time goes backwards after event {int(backwards[0])} (and {len(backwards) - 1} times more); the "
            "file is damaged, or its columns are in another order, or it needs sorting by time"
        )
    return events
