"""Recordings, or parts of them, decoded once and kept; the broken ones named, or left out and counted."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from snnsl_plugin.datasets._cache import cached, fingerprint
from snnsl_plugin.datasets._tensors import TensorFrames
from snnsl_plugin.errors import BadData

logger = logging.getLogger(__name__)
_BYTE = np.iinfo(np.uint8).max


class Clip(NamedTuple):
    """A recording, or a part of one, with its label.

    Attributes:
        file: where it is.
        label: its class, from 0.
        span: the ticks [first, last) that are this sample; None for the whole file.
        piece: number i of n parts of equal duration of that.
        row: which recording of a file that holds many.
    """

    file: Path
    label: int
    span: tuple[int, int] | None = None
    piece: tuple[int, int] = (0, 1)
    row: int = 0


def decode_clips(
    clips: Sequence[Clip],
    frames_of: Callable[[Clip], np.ndarray],
    *,
    options: Mapping[str, object],
    skip_broken: bool,
) -> tuple[TensorFrames, int]:
    """The frames of all clips (N, T, C, H, W), from the cache after the first time, and how many were skipped.

    Bytes hold them where no count is above 255, 16 bits otherwise.

    Args:
        clips: at least one.
        frames_of: from a clip to its counts (T, C, H, W); raises `BadData`, with the file, for one that is broken.
        options: all that `frames_of` depends on besides the clip; part of the name in the cache.
        skip_broken: leave a broken recording out, say so in the log and count it, instead of raising.

    Raises:
        BadData: a recording that cannot be read or used, named, with the way out; or all of them.
    """
    which = [[clip.span, clip.piece, clip.row] for clip in clips]
    files = [clip.file for clip in clips]
    key = fingerprint(files, {"what": "clips", "clips": which, "skip_broken": skip_broken, **options})
    stored = cached(key, lambda: _decode_all(clips, frames_of, skip_broken))
    broken: dict[str, str] = json.loads(bytes(stored["broken"].tolist()))
    for sentence, samples in Counter(broken.values()).items():
        logger.warning("left out, %d of %d samples: %s", samples, len(clips), sentence)
    kept = [i for i in range(len(clips)) if str(i) not in broken]
    labels = torch.tensor([clips[i].label for i in kept], dtype=torch.int64)
    return TensorFrames(stored["frames"], labels, [files[i] for i in kept]), len(broken)


def _decode_all(clips: Sequence[Clip], frames_of: Callable[[Clip], np.ndarray], skip_broken: bool) -> dict[str, Tensor]:
    together: np.ndarray | None = None
    broken: dict[int, str] = {}
    for clip_number, clip in enumerate(clips):
        try:
            frames = frames_of(clip)
        except BadData as error:
            if not skip_broken:
                raise
            broken[clip_number] = str(error)
            continue
        if together is None:  # one array for all, filled as they come: a list to be stacked would take twice the memory
            together = np.empty((len(clips), *frames.shape), np.uint8)
        if together.dtype == np.uint8 and frames.max() > _BYTE:
            together = together.astype(np.int16)
        together[clip_number - len(broken)] = frames
    if together is None:
        raise BadData(f"none of the {len(clips)} recordings can be used; the first: {broken[0]}")
    return {
        "frames": torch.from_numpy(together[: len(clips) - len(broken)]),
        "broken": torch.tensor(list(json.dumps(broken).encode()), dtype=torch.uint8),
    }
