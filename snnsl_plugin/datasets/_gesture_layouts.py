"""The three ways in which DVS128 Gesture lies on disks, found by looking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from snnsl_plugin.datasets._clips import Clip
from snnsl_plugin.errors import BadData

Layout = Literal["tonic", "spikingjelly", "original"]
CLASSES = [
    "hand_clapping",
    "right_hand_wave",
    "left_hand_wave",
    "right_arm_cw",
    "right_arm_ccw",
    "left_arm_cw",
    "left_arm_ccw",
    "arm_roll",
    "air_drums",
    "air_guitar",
    "other_gestures",
]
#: Where each layout lies below the folder of the data set: the folder itself, or where its tool makes it.
_PLACES: dict[Layout, tuple[str, ...]] = {
    "tonic": ("DVSGesture", "."),
    "spikingjelly": ("events_np", "."),
    "original": ("DvsGesture", "extract/DvsGesture", "."),
}


@dataclass(frozen=True)
class Found:
    """The recordings of DVS128 Gesture, with their labels.

    Attributes:
        layout: whose it is.
        folder: where it is.
        train: of the users 1 to 23; may be empty.
        test: of the users 24 to 29; may be empty.
    """

    layout: Layout
    folder: Path
    train: list[Clip]
    test: list[Clip]


def find(folder: Path, wanted: Layout | None) -> Found | None:
    """The layout asked for, or the first one that has recordings in the order tonic, spikingjelly, original.

    Raises:
        BadData: a file whose name or place says no label, or labels that cannot be read.
    """
    for layout, places in _PLACES.items():
        for place in places if wanted in (None, layout) else ():
            train, test = (_READERS[layout](folder / place, part) for part in ("train", "test"))
            if train or test:
                return Found(layout, folder / place, train, test)
    return None


def _tonic(folder: Path, part: str) -> list[Clip]:
    """`ibmGestureTrain/user01_fluorescent/<label>.npy`, x, y, p and t in ms; cut by tonic's authors."""
    name = "ibmGestureTrain" if part == "train" else "ibmGestureTest"
    return [Clip(file, _label(file, file.stem)) for file in sorted((folder / name).glob("*/*.npy"))]


def _spikingjelly(folder: Path, part: str) -> list[Clip]:
    """`train/<label>/user01_fluorescent_0.npz` with t in microseconds; cut by SpikingJelly."""
    return [Clip(file, _label(file, file.parent.name)) for file in sorted((folder / part).glob("*/*.npz"))]


def _original(folder: Path, part: str) -> list[Clip]:
    """`user01_fluorescent.aedat`, one sample for each row of `user01_fluorescent_labels.csv`."""
    trials = folder / f"trials_to_{part}.txt"
    if not trials.is_file():
        return []
    names = [line.strip() for line in trials.read_text("utf-8").splitlines() if line.strip()]
    return [clip for name in names for clip in _labelled(folder / name)]


def _labelled(file: Path) -> list[Clip]:
    labels = file.with_name(f"{file.stem}_labels.csv")
    try:
        rows = [line for line in labels.read_text("utf-8").splitlines()[1:] if line.strip()]
        numbers = [[int(number) for number in row.split(",")] for row in rows]
        return [Clip(file, _label(labels, label - 1), (first, last)) for label, first, last in numbers]
    except (OSError, ValueError) as cause:
        raise BadData(
            f"{labels} should hold rows of class, startTime_usec, endTime_usec and cannot be read so ({cause}); load "
            "it again"
        ) from cause


def _label(file: Path, word: str | int) -> int:
    if not str(word).isdecimal() or int(word) >= len(CLASSES):
        raise BadData(
            f"{file}: {word!r} is no label of DVS128 Gesture, 0 to {len(CLASSES) - 1}; move the file elsewhere"
        )
    return int(word)


_READERS: dict[Layout, Callable[[Path, str], list[Clip]]] = {
    "tonic": _tonic,
    "spikingjelly": _spikingjelly,
    "original": _original,
}
