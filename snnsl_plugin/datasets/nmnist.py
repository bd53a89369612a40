"""N-MNIST: MNIST's digits seen by an event camera, 34x34 pixels, two polarities."""

from __future__ import annotations

from typing import Literal

from snnsl_plugin.datasets._augment import EventAugment
from snnsl_plugin.datasets._camera_clips import decode_camera
from snnsl_plugin.datasets._event_splits import Drawing, event_splits
from snnsl_plugin.datasets._frames import Framing
from snnsl_plugin.datasets._root import dataset_folder, missing
from snnsl_plugin.datasets._splits import Splits

SENSOR = [34, 34]


def nmnist(
    *,
    root: str | None = None,
    T: int = 4,  # noqa: N803
    slice_by: Literal["time", "count"] = "time",
    downsample: int = 2,
    binary: bool = True,
    classes: list[str] | int | None = None,
    per_class: int | None = None,
    validation: float = 0.1,
    validation_per_class: int | None = None,
    split_seed: int = 0,
    folds: int | None = None,
    fold: int = 0,
    skip_broken: bool = False,
    augment: EventAugment | None = None,
) -> Splits:
    """N-MNIST (Orchard et al. 2015): recordings of about 4,100 events in 300 ms, in whole or any part of it.

    Read file by file, since tonic's own class refuses fewer than 10,000 recordings.

    Args:
        root: the folder with Train/ and Test/; None for `<data root>/nmnist`.
        T: frames per recording, >= 1.
        slice_by: `time` for frames of equal duration, `count` for frames of equally many events.
        downsample: sensor pixels per pixel of a frame, per side; their events are added up.
        binary: whether a pixel of a frame is 0 or 1 (was there an event?) instead of a count. Binary input is spikes,
            so the first layer does accumulates only.
        classes: digits as words, or the first so many; None for all ten.
        per_class: training recordings drawn of each class; None for all that are not held out.
        validation: share of the training recordings held out, in (0, 1), stratified.
        validation_per_class: so many of each class are held out instead of a share.
        split_seed: seed of these draws; the seed of a run does not touch them.
        folds: cross-validation: Train/ and Test/ are pooled and dealt into so many stratified folds; None keeps the
            official test part.
        fold: the fold that is the test part, 0 to folds - 1; validation is drawn from the others.
        skip_broken: leave out and count recordings that cannot be used, instead of stopping at the first.
        augment: how training samples are changed at random, anew in each epoch.

    Returns:
        Splits with samples of (T, 2, ceil(34 / downsample), ceil(34 / downsample)).

    Raises:
        MissingData: no recordings there; says which folder, which layout, how to get it, and its size.
        MissingExtra: tonic cannot be imported here.
        BadData: a recording that is cut short or cannot be used.
        BadOption: an option outside its range.
    """
    framing = Framing(SENSOR, T, slice_by, downsample, binary)
    folder = dataset_folder("nmnist", root)
    return event_splits(
        folder,
        parts=("Train", "Test", None),
        classes=classes,
        decode=lambda clips: decode_camera(clips, framing, skip_broken=skip_broken),
        missing=lambda found: missing(
            "nmnist",
            folder,
            found=found,
            layout="Train/<digit>/*.bin and Test/<digit>/*.bin",
            get="load Train.zip and Test.zip of N-MNIST (CC BY-SA 4.0; tonic.datasets.NMNIST knows the address) and "
            "unpack both there; a part of the files will do",
            size="about 1.2 GB in whole, 70,000 files",
        ),
        source=f"N-MNIST (Orchard et al. 2015), read from {folder}",
        drawing=Drawing(validation, validation_per_class, per_class, split_seed, augment, folds, fold),
    )
