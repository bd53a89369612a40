"""From clips of a camera to frames: reads a file once, cuts it, hands it to tonic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np

from snnsl_plugin.datasets._clips import Clip, decode_clips
from snnsl_plugin.datasets._frames import Framing, to_frames
from snnsl_plugin.datasets._recordings import Camera, Columns, Events, read_events
from snnsl_plugin.datasets._tensors import TensorFrames
from snnsl_plugin.errors import BadData


def decode_camera(
    clips: Sequence[Clip],
    framing: Framing,
    *,
    camera: Camera = "ibm",
    columns: Columns = "xypt",
    turned: bool = False,
    skip_broken: bool = False,
) -> tuple[TensorFrames, int]:
    """The frames of an event camera's clips (N, T, 2, H, W), and how many were skipped.

    Args:
        clips: in any order; clips of one file that follow each other read it once.
        framing: how they become frames.
        camera: whose address layout `.aedat` files have.
        columns: order of the columns of `.npy` files without fields.
        turned: whether the sensor of `.aedat` files stood on its head, and its polarity 1 means darker.
        skip_broken: leave broken recordings out and count them.

    Raises:
        BadData: a recording that cannot be read or used.
        MissingExtra: tonic, or the library it reads a format with, cannot be imported here.
    """

    @lru_cache(maxsize=1)
    def events_of(file: Path) -> Events:
        events = read_events(file, camera=camera, columns=columns)
        return _turned(events, framing) if turned and file.suffix.lower() == ".aedat" else events

    def frames_of(clip: Clip) -> np.ndarray:
        return to_frames(clip.file, cut(clip, events_of(clip.file)), framing)

    options = {**asdict(framing), "camera": camera, "columns": columns, "turned": turned}
    return decode_clips(clips, frames_of, options=options, skip_broken=skip_broken)


def cut(clip: Clip, events: Events) -> Events:
    """The events of a clip: those of its span, of these those of its piece.

    Raises:
        BadData: nothing is left.
    """
    from tonic.slicers import slice_events_by_time_bins

    if clip.span is not None:
        first, last = np.searchsorted(events["t"], clip.span)
        events = events[first:last]
        if not len(events):
            raise BadData(
                f"{clip.file} has no events from {clip.span[0]} to {clip.span[1]}, where its labels say "
                "that a sample is; the file is cut short or its labels belong to another one"
            )
    number, pieces = clip.piece
    if pieces == 1:
        return events
    if int(events["t"][-1]) - int(events["t"][0]) < pieces:
        raise BadData(f"{clip.file} is too short to be cut into {pieces} pieces; lower windows or remove the file")
    piece: Events = slice_events_by_time_bins(events, pieces)[number]
    return piece


def _turned(events: Events, framing: Framing) -> Events:
    height, width = framing.sensor_size
    events = events.copy()
    events["x"], events["y"], events["p"] = width - 1 - events["x"], height - 1 - events["y"], ~events["p"]
    return events
