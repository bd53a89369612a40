"""How a recording becomes frames: tonic's slicing, counts of events per pixel and polarity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from snnsl_plugin.datasets._recordings import Events
from snnsl_plugin.errors import BadData, BadOption

SliceBy = Literal["time", "count"]


@dataclass(frozen=True)
class Framing:
    """What the frames of a data set have in common.

    Attributes:
        sensor_size: [height, width] of the sensor in pixels.
        T: frames of a sample, >= 1.
        slice_by: `time` for frames of equal duration, `count` for frames of equally many events.
        downsample: sensor pixels per pixel of a frame, per side.
        binary: whether a pixel is 0 or 1 instead of a count.

    Raises:
        BadOption: a value that no frame can be made with.
    """

    sensor_size: Sequence[int]
    T: int
    slice_by: SliceBy
    downsample: int
    binary: bool

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if len(self.sensor_size) != 2 or min(self.sensor_size) < 1:
            raise BadOption(f"sensor_size is {list(self.sensor_size)}; it is [height, width] of the sensor in pixels")
        if self.T < 1:
            raise BadOption(f"T is {self.T}; it is the number of frames of a recording, at least 1")
        if self.slice_by not in ("time", "count"):
            raise BadOption(
                f"slice_by is {self.slice_by!r}; choose time (frames as long) or count (frames with as many events)"
            )
        if not 1 <= self.downsample <= min(self.sensor_size):
            raise BadOption(
                f"downsample is {self.downsample}; a pixel of a frame is 1 to {min(self.sensor_size)} sensor pixels "
                "wide"
            )


def to_frames(file: Path, events: Events, framing: Framing) -> np.ndarray:
    """One recording as counts of events, int16 (T, 2, ceil(H / downsample), ceil(W / downsample)).

    tonic cuts a recording into T parts of equal whole ticks or equal whole numbers of events; what is left over at the
    end (the last event; fewer than T ticks or events) is in no frame. Polarity 0 is channel 0.

    Raises:
        BadData: an event outside the sensor, fewer ticks or events than frames, or more events of a pixel in one frame
            than can be counted.
    """
    from tonic.transforms import ToFrame

    T, downsample = framing.T, framing.downsample
    height, width = framing.sensor_size
    if not len(events):
        raise BadData(f"{file} has no events in the part that is asked for; remove it")
    if events["x"].max() >= width or events["y"].max() >= height:
        raise BadData(
            f"{file} has an event at x={events['x'].max()}, y={events['y'].max()}, outside a sensor of {height}x{width}"
            "; set sensor_size: [height, width] in the data"
        )
    extent, unit = (
        (int(events["t"][-1]) - int(events["t"][0]), "ticks long")
        if framing.slice_by == "time"
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
    bins = {"n_time_bins": T} if framing.slice_by == "time" else {"n_event_bins": T}
    frames: np.ndarray = ToFrame(sensor_size=size, **bins)(events)
    _check_counts(file, events, frames)
    return frames.clip(max=1) if framing.binary else frames


def _check_counts(file: Path, events: Events, frames: np.ndarray) -> None:
    """Refuses frames that tonic, which counts in 16 bits, has counted around the corner."""
    most = np.iinfo(np.int16).max
    if len(events) <= most:
        return
    _, _, height, width = frames.shape
    place = (events["p"].astype(np.int64) * height + events["y"]) * width + events["x"]
    of_pixels = np.bincount(place, minlength=2 * height * width).reshape(2, height, width)
    # What is in no frame at the end of a recording is a handful of events; a count that has wrapped lacks 65,536.
    if (of_pixels - frames.sum(0, dtype=np.int64)).max() > most:
        raise BadData(
            f"{file} has more than {most} events of one pixel in a frame, which is more than can be counted; raise T, "
            "lower downsample, or remove the file (is the pixel broken?)"
        )
