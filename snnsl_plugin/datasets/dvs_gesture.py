"""DVS128 Gesture: eleven hand and arm gestures seen by an event camera, 128x128 pixels, two polarities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from snnsl_plugin.datasets import _gesture_layouts
from snnsl_plugin.datasets._augment import EventAugment
from snnsl_plugin.datasets._camera_clips import decode_camera
from snnsl_plugin.datasets._clips import Clip
from snnsl_plugin.datasets._event_splits import Drawing, check_present, drawn_splits
from snnsl_plugin.datasets._frames import Framing
from snnsl_plugin.datasets._gesture_layouts import CLASSES
from snnsl_plugin.datasets._root import dataset_folder, missing
from snnsl_plugin.datasets._splits import Splits
from snnsl_plugin.datasets._trees import choose_classes
from snnsl_plugin.errors import BadOption, MissingData


def dvs_gesture(
    *,
    root: str | None = None,
    layout: Literal["tonic", "spikingjelly", "original"] | None = None,
    split: Literal["official", "quick"] = "official",
    windows: int = 4,
    T: int = 16,  # noqa: N803
    slice_by: Literal["time", "count"] = "count",
    downsample: int = 1,
    binary: bool = False,
    classes: list[str] | int | None = None,
    per_class: int | None = None,
    validation: float = 0.1,
    validation_per_class: int | None = None,
    split_seed: int = 0,
    skip_broken: bool = False,
    augment: EventAugment | None = None,
) -> Splits:
    """DVS128 Gesture (Amir et al. 2017): 29 users make 11 gestures of about 6 s each, under three lights.

    Users 1 to 23 are the training part, 24 to 29 the test part. The split `quick` is for a folder with few recordings:
    the first half of each trains, the second half tests. Training and test then show the same person in the same
    minute, so its accuracy proves that the plumbing holds and nothing else; never compare it with a published one.

    Args:
        root: the folder of the data; None for `<data root>/dvs_gesture`.
        layout: whose files are read: `tonic` (`ibmGestureTrain/<user>_<light>/<label>.npy`, in milliseconds, 1,341
            samples), `spikingjelly` (`events_np/train/<label>/*.npz`, 1,464 samples) or `original`
            (`DvsGesture/*.aedat`, cut by the times in `*_labels.csv`: SpikingJelly's samples); None for the first that
            is there.
        split: `official` or `quick`.
        windows: with `quick`, into how many samples of equal duration each half is cut, at least 2.
        T: frames per sample, >= 1.
        slice_by: `time` for frames of equal duration, `count` for frames of equally many events.
        downsample: sensor pixels per pixel of a frame, per side; their events are added up.
        binary: whether a pixel of a frame is 0 or 1 (was there an event?) instead of a count. Binary input is spikes,
            so the first layer does accumulates only.
        classes: gestures as words, or the first so many in the official order; None for all that are there.
        per_class: training samples drawn of each class; None for all that are not held out.
        validation: share of the training samples held out, in (0, 1), stratified.
        validation_per_class: so many of each class are held out instead of a share.
        split_seed: seed of these draws; the seed of a run does not touch them.
        skip_broken: leave out and count recordings that cannot be used, instead of stopping at the first.
        augment: how training samples are changed at random, anew in each epoch.

    Returns:
        Splits with samples of (T, 2, ceil(128 / downsample), ceil(128 / downsample)).

    Raises:
        MissingData: no recordings there, or only one of the official parts; says which folder, which layouts, how to
            get them, and their size.
        MissingExtra: tonic cannot be imported here.
        BadData: a recording that is cut short or cannot be used.
        BadOption: an option outside its range.
    """
    framing = Framing([128, 128], T, slice_by, downsample, binary)
    if split not in ("official", "quick"):
        raise BadOption(f"split is {split!r}; choose official, or quick for a folder with few recordings")
    folder = dataset_folder("dvs_gesture", root)
    found = _gesture_layouts.find(folder, layout)
    if found is None:
        raise _missing(folder, "no recordings" if layout is None else f"no recordings in the layout of {layout}")
    if split == "official":
        for part, clips in (("training", found.train), ("test", found.test)):
            if not clips:
                raise _missing(folder, f"no recordings of the {part} part (split: quick trains on what there is)")
        train, test, note = found.train, found.test, "official split"
    else:
        if windows < 2:
            raise BadOption(f"windows is {windows}; a half is cut into at least 2 samples, one of which validates")
        train, test = _halves([*found.train, *found.test], windows)
        note = "quick split: halves of the same recordings, plumbing only"
    present = {clip.label for clip in (*train, *test)}
    chosen = choose_classes([word for label, word in enumerate(CLASSES) if label in present], classes)
    parts = [_relabelled(clips, chosen) for clips in (train, test)]
    for part, clips in zip(("training", "test"), parts, strict=True):
        check_present(clips, chosen, lambda word, part=part: _missing(folder, f"no {part} recordings of {word}"))  # type: ignore[misc]
    learned, tested = (decode_camera(clips, framing, camera="ibm", skip_broken=skip_broken) for clips in parts)
    return drawn_splits(
        learned,
        tested,
        None,
        chosen,
        Drawing(validation, validation_per_class, per_class, split_seed, augment),
        f"DVS128 Gesture (Amir et al. 2017), {note}, read from {found.folder} in the layout of {found.layout}",
    )


def _halves(clips: Sequence[Clip], windows: int) -> tuple[list[Clip], list[Clip]]:
    """The windows of the first half of each recording, and those of the second."""
    pieces = [clip._replace(piece=(i, 2 * windows)) for clip in clips for i in range(2 * windows)]
    return [p for p in pieces if p.piece[0] < windows], [p for p in pieces if p.piece[0] >= windows]


def _relabelled(clips: Sequence[Clip], chosen: list[str]) -> list[Clip]:
    """The clips of the chosen classes, labelled by their place among them, sorted by class and file."""
    new = {CLASSES.index(word): label for label, word in enumerate(chosen)}
    kept = [clip._replace(label=new[clip.label]) for clip in clips if clip.label in new]
    return sorted(kept, key=lambda clip: (str(clip.file), clip.span or (0, 0), clip.piece))


def _missing(folder: Path, found: str) -> MissingData:
    return missing(
        "dvs_gesture",
        folder,
        found=found,
        layout="DVSGesture/ibmGestureTrain/<user>_<light>/<label>.npy and ibmGestureTest/... (tonic), "
        "events_np/{train,test}/<label>/*.npz (SpikingJelly), or DvsGesture/ with *.aedat, *_labels.csv and "
        "trials_to_{train,test}.txt (as published)",
        get="tonic.datasets.DVSGesture loads its layout; the original (CC BY 4.0) is at research.ibm.com/dvsgesture",
        size="about 3 GB",
    )
