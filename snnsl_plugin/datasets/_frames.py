"""Recordings to frames, through tonic's slicing, decoded once and kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from snnsl_plugin.datasets._cache import cached, fingerprint
from snnsl_plugin.datasets._recordings import Camera, Columns, Events, read_events
from snnsl_plugin.datasets._tensors import TensorFrames
from snnsl_plugin.datasets._trees import Tree
from snnsl_plugin.errors import BadData, BadOption

SliceBy = Literal["time", "count"]


def decode_recordings(
    tree: Tree,
    *,
    sensor_size: Sequence[int],
    T: int,  # noqa: N803
    slice_by: SliceBy,
    downsample: int,
    binary: bool,
    camera: Camera,
    columns: Columns,
) -> TensorFrames:
    """The recordings of a tree as frames (N, T, 2, H, W), from the cache where an earlier run left them.

    Raises:
        BadData: a recording that cannot be read or used, named, with the way out.
        BadOption: an option outside its range.
    """
    check_frames(sensor_size, T, slice_by, downsample)
    options = {
        "what": "events",
        "sensor_size": list(sensor_size),
        "T": T,
        "slice_by": slice_by,
        "downsample": downsample,
        "binary": binary,
        "camera": camera,
        "columns": columns,
    }

    def decode() -> dict[str, Tensor]:
        frames = []
        for file in tree.files:
            events = read_events(file, camera=camera, columns=columns)
            frames.append(to_frames(file, events, sensor_size, T, slice_by, downsample, binary))
        together = np.stack(frames)
        narrow = together.max() <= np.iinfo(np.uint8).max
        return {"frames": torch.from_numpy(together.astype(np.uint8) if narrow else together)}

    return TensorFrames(cached(fingerprint(tree.files, options), decode)["frames"], tree.labels, tree.files)


def check_frames(sensor_size: Sequence[int], T: int, slice_by: str, downsample: int) -> None:  # noqa: N803
    """Refuse options that no frame can be made with.

    Raises:
        BadOption: with the value.
    """
    if len(sensor_size) != 2 or min(sensor_size) < 1:
        raise BadOption(f"sensor_size is {list(sensor_size)}; it is [height, width] of the sensor in pixels")
    if T < 1:
        raise BadOption(f"T is {T}; it is the number of frames of a recording, at least 1")
    if slice_by not in ("time", "count"):
        raise BadOption(f"slice_by is {slice_by!r}; choose time (frames as long) or count (frames with as many events)")
    if not 1 <= downsample <= min(sensor_size):
        raise BadOption(f"downsample is {downsample}; a pixel of a frame is 1 to {min(sensor_size)} sensor pixels wide")


def to_frames(
    file: Path,
    events: Events,
    sensor_size: Sequence[int],
    T: int,  # noqa: N803
    slice_by: SliceBy,
    downsample: int,
    binary: bool,
) -> np.ndarray:
    """One recording as counts of events, int16 (T, 2, ceil(H / downsample), ceil(W / downsample)).

    tonic cuts a recording into T parts of equal whole ticks or equal whole numbers of events; what is left over at the
    end (the last event; fewer than T ticks or events) is in no frame.
    """
    from tonic.transforms import ToFrame

    height, width = sensor_size
    if events["x"].max() >= width or events["y"].max() >= height:
        raise BadData(
            f"{file} has an event at x={events['x'].max()}, y={events['y'].max()}, outside a sensor of {height}x{width}"
            "; set sensor_size: [height, width] in the data"
        )
    extent, unit = (
        (int(events["t"][-1]) - int(events["t"][0]), "ticks long")
        if slice_by == "time"
        else (len(events), "events long")
    )
    if extent < T:
        raise BadData(f"{file} is {extent} {unit}, too short for {T} frames; lower T or remove the file")
    if downsample > 1:
        # Whole-number division of the coordinates: sums the events of a square of pixels and drops none. tonic's
        # Downsample multiplies by 1 / factor in floating point, where 49 * (1 / 49) falls to pixel 0.
        events = events.copy()
        events["x"] //= downsample
        events["y"] //= downsample
    size = (-(-width // downsample), -(-height // downsample), 2)
    bins = {"n_time_bins": T} if slice_by == "time" else {"n_event_bins": T}
    frames: np.ndarray = ToFrame(sensor_size=size, **bins)(events)
    return frames.clip(max=1) if binary else frames
