"""CIFAR10-DVS: 10,000 pictures of CIFAR-10, moved before an event camera of 128x128 pixels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import torch

from snnsl_plugin.datasets._augment import EventAugment
from snnsl_plugin.datasets._camera_clips import decode_camera
from snnsl_plugin.datasets._clips import Clip
from snnsl_plugin.datasets._event_splits import Drawing, check_present, drawn_splits
from snnsl_plugin.datasets._frames import Framing
from snnsl_plugin.datasets._root import dataset_folder, missing
from snnsl_plugin.datasets._splits import Splits, hold_out
from snnsl_plugin.datasets._trees import choose_classes
from snnsl_plugin.errors import BadData, BadOption, MissingData

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
Layout = Literal["tonic", "spikingjelly", "original"]
#: suffix of the recordings, and where the folders of the classes lie below the folder of the data set
_LAYOUTS: dict[Layout, tuple[str, tuple[str, ...]]] = {
    "tonic": (".aedat4", ("CIFAR10DVS", ".")),
    "spikingjelly": (".npz", ("events_np", ".")),
    "original": (".aedat", ("extract", ".")),
}


def cifar10_dvs(
    *,
    root: str | None = None,
    layout: Literal["tonic", "spikingjelly", "original"] | None = None,
    split: Literal["drawn", "first_100"] = "drawn",
    test: float = 0.1,
    T: int = 10,  # noqa: N803
    slice_by: Literal["time", "count"] = "count",
    downsample: int = 2,
    binary: bool = False,
    classes: list[str] | int | None = None,
    per_class: int | None = None,
    validation: float = 0.1,
    validation_per_class: int | None = None,
    split_seed: int = 0,
    skip_broken: bool = False,
    augment: EventAugment | None = None,
) -> Splits:
    """CIFAR10-DVS (Li et al. 2017): 1,000 recordings of each class, without an official test part.

    So the test part is either drawn, or the recordings 0 to 99 of each class, as Temporal Effective Batch Normalization
    (Duan et al. 2022) does and others after it. SpikingJelly warns that accuracy on `first_100` is usually much higher
    than on a drawn split: compare within one of them.

    Args:
        root: the folder of the data; None for `<data root>/cifar10_dvs`.
        layout: whose files are read: `tonic` (`<class>/*.aedat4`, with the package aedat), `spikingjelly`
            (`events_np/<class>/*.npz`) or `original` (`<class>/*.aedat`, turned as SpikingJelly turns them); None for
            the first that is there.
        split: `drawn` or `first_100`.
        test: with `drawn`, the share of all recordings that is the test part, in (0, 1), stratified.
        T: frames per recording, >= 1.
        slice_by: `time` for frames of equal duration, `count` for frames of equally many events.
        downsample: sensor pixels per pixel of a frame, per side; their events are added up.
        binary: whether a pixel of a frame is 0 or 1 (was there an event?) instead of a count. Binary input is spikes,
            so the first layer does accumulates only.
        classes: names, or the first so many in alphabetical order; None for all that are there.
        per_class: training recordings drawn of each class; None for all that are not held out.
        validation: share of the training recordings held out, in (0, 1), stratified.
        validation_per_class: so many of each class are held out instead of a share.
        split_seed: seed of all these draws; the seed of a run does not touch them.
        skip_broken: leave out and count recordings that cannot be used, instead of stopping at the first.
        augment: how training samples are changed at random, anew in each epoch.

    Returns:
        Splits with samples of (T, 2, ceil(128 / downsample), ceil(128 / downsample)).

    Raises:
        MissingData: no recordings there; says which folder, which layouts, how to get them, and their size.
        MissingExtra: tonic, or the package aedat for its layout, cannot be imported here.
        BadData: a recording that is cut short or cannot be used, or whose name has no number (`first_100`).
        BadOption: an option outside its range.
    """
    framing = Framing([128, 128], T, slice_by, downsample, binary)
    if split not in ("drawn", "first_100"):
        raise BadOption(f"split is {split!r}; choose drawn, or first_100 (recordings 0 to 99 of each class test)")
    folder = dataset_folder("cifar10_dvs", root)
    name, found = _find(folder, layout)
    known = [word for word in CLASSES if word in found]
    if len(known) < 2:
        raise _missing(folder, f"{len(known)} classes" if layout is None else f"no classes in the layout of {layout}")
    chosen = choose_classes(known, classes)
    clips = [Clip(file, label) for label, word in enumerate(chosen) for file in found[word]]
    labels = torch.tensor([clip.label for clip in clips])
    if split == "drawn":
        ours = set(hold_out(labels, chosen, test, split_seed, "test")[1].tolist())
    else:
        ours = {i for i, clip in enumerate(clips) if _number(clip.file) < 100}
    parts = [[clip for i, clip in enumerate(clips) if (i in ours) == tests] for tests in (False, True)]
    for part, members in zip(("training", "test"), parts, strict=True):
        check_present(members, chosen, lambda word, part=part: _missing(folder, f"no {part} recordings of {word}"))  # type: ignore[misc]
    learned, tested = (
        decode_camera(members, framing, camera="dvs128", turned=True, skip_broken=skip_broken) for members in parts
    )
    return drawn_splits(
        learned,
        tested,
        None,
        chosen,
        Drawing(validation, validation_per_class, per_class, split_seed, augment),
        f"CIFAR10-DVS (Li et al. 2017), split {split}, read from {folder} in the layout of {name}",
    )


def _find(folder: Path, wanted: Layout | None) -> tuple[Layout | None, dict[str, list[Path]]]:
    """The first layout with recordings, and these by class."""
    for layout, (suffix, places) in _LAYOUTS.items():
        for place in places if wanted in (None, layout) else ():
            found = {word: sorted((folder / place / word).glob(f"*{suffix}"), key=_order) for word in CLASSES}
            if any(found.values()):
                return layout, {word: files for word, files in found.items() if files}
    return None, {}


def _order(file: Path) -> tuple[int, str]:
    digits = re.search(r"\d+$", file.stem)
    return int(digits[0]) if digits else -1, file.name


def _number(file: Path) -> int:
    number, _ = _order(file)
    if number < 0:
        raise BadData(f"{file} has no number at the end of its name, as cifar10_bird_17 has; set split: drawn")
    return number


def _missing(folder: Path, found: str) -> MissingData:
    return missing(
        "cifar10_dvs",
        folder,
        found=found,
        layout="CIFAR10DVS/<class>/*.aedat4 (tonic), events_np/<class>/*.npz (SpikingJelly) or <class>/*.aedat (as "
        "published)",
        get="tonic.datasets.CIFAR10DVS loads its layout; the original is on figshare, 4724671",
        size="about 8 GB",
    )
