"""Any event recordings of yours: one folder per part, one folder per class."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from snnsl_plugin.datasets._augment import EventAugment
from snnsl_plugin.datasets._camera_clips import decode_camera
from snnsl_plugin.datasets._event_splits import Drawing, event_splits
from snnsl_plugin.datasets._frames import Framing
from snnsl_plugin.datasets._recordings import SUFFIXES
from snnsl_plugin.datasets._root import missing
from snnsl_plugin.datasets._splits import Splits


def event_folder(
    *,
    root: str,
    sensor_size: list[int],
    T: int = 10,  # noqa: N803
    slice_by: Literal["time", "count"] = "time",
    downsample: int = 1,
    binary: bool = False,
    camera: Literal["ibm", "dvs128", "red", "davis346", "mini346"] = "ibm",
    columns: Literal["xypt", "xytp", "txyp"] = "xypt",
    classes: list[str] | int | None = None,
    per_class: int | None = None,
    validation: float = 0.1,
    validation_per_class: int | None = None,
    split_seed: int = 0,
    skip_broken: bool = False,
    augment: EventAugment | None = None,
) -> Splits:
    """Recordings in `<root>/{train,validation,test}/<class>/*`; the label is the folder.

    Read by tonic: `.bin` (N-MNIST, N-Caltech101), `.aedat` (2, 3.1), `.aedat4` (with the package aedat), and by numpy:
    `.npz` with keys t, x, y, p, `.npy` with those fields or with four columns. Pickled objects are not read.

    Args:
        root: the folder that holds train/ and test/, and validation/ if there is one.
        sensor_size: [height, width] of the sensor in pixels.
        T: frames per recording, >= 1.
        slice_by: `time` for frames of equal duration, `count` for frames of equally many events.
        downsample: sensor pixels per pixel of a frame, per side; their events are added up.
        binary: whether a pixel of a frame is 0 or 1 (was there an event?) instead of a count. Binary input is spikes,
            so the first layer does accumulates only.
        camera: whose address layout `.aedat` files have: `ibm` is that of DVS128 Gesture.
        columns: order of the columns of `.npy` files without fields; `xypt` is that of tonic's DVSGesture.
        classes: names, or the first so many in alphabetical order; None for all.
        per_class: training recordings drawn of each class; None for all that are not held out.
        validation: share of the training recordings held out, in (0, 1), stratified; not used if there
            is a validation folder.
        validation_per_class: so many of each class are held out instead of a share.
        split_seed: seed of these draws; the seed of a run does not touch them.
        skip_broken: leave out and count recordings that cannot be used, instead of stopping at the first.
        augment: how training samples are changed at random, anew in each epoch.

    Returns:
        Splits with samples of (T, 2, ceil(height / downsample), ceil(width / downsample)).

    Raises:
        MissingData: the folder, a part or the recordings of a class are missing.
        MissingExtra: tonic, or the library it reads a format with, cannot be imported here.
        BadData: a recording that is cut short or cannot be used, or classes that differ between parts.
        BadOption: an option outside its range.
    """
    framing = Framing(sensor_size, T, slice_by, downsample, binary)
    folder = Path(root).expanduser()
    return event_splits(
        folder,
        parts=("train", "test", "validation" if (folder / "validation").is_dir() else None),
        classes=classes,
        decode=lambda clips: decode_camera(clips, framing, camera=camera, columns=columns, skip_broken=skip_broken),
        missing=lambda found: missing(
            "event_folder",
            folder,
            found=found,
            layout=f"train/<class>/* and test/<class>/*, validation/<class>/* if you like ({', '.join(SUFFIXES)})",
            get="put your recordings there",
            size="as large as they are",
        ),
        source=f"event recordings in {folder}",
        drawing=Drawing(validation, validation_per_class, per_class, split_seed, augment),
    )
