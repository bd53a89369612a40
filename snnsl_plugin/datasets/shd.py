"""Spiking Heidelberg Digits: spoken digits as the spikes of 700 channels of a model of the inner ear."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from snnsl_plugin.datasets._clips import Clip, decode_clips
from snnsl_plugin.datasets._event_splits import Decoded, Drawing, check_present, drawn_splits
from snnsl_plugin.datasets._root import dataset_folder, missing
from snnsl_plugin.datasets._splits import Splits
from snnsl_plugin.datasets._trees import choose_classes
from snnsl_plugin.errors import BadData, BadOption, MissingData, MissingExtra

CHANNELS = 700
_PLACES = (".", "SHD", "events_h5", "extract")
_DAMAGE = (OSError, KeyError, IndexError, ValueError, RuntimeError, TypeError)  # what h5py raises


def shd(
    *,
    root: str | None = None,
    T: int = 100,  # noqa: N803
    seconds: float = 1.4,
    downsample: int = 1,
    binary: bool = False,
    classes: list[str] | int | None = None,
    per_class: int | None = None,
    validation: float = 0.1,
    validation_per_class: int | None = None,
    split_seed: int = 0,
    skip_broken: bool = False,
) -> Splits:
    """SHD (Cramer et al. 2020): the digits 0 to 9 in English and German, 20 classes, with its official test part.

    Frames are cut by the clock, from 0 to `seconds`, and not stretched to the length of a recording as those of cameras
    are: how long a word lasts tells which one it is. What comes later is in no frame; after the last spike is silence.
    A sample has no polarity and no second dimension, so use a network without convolutions, `fully_connected`.

    Args:
        root: the folder of the two files; None for `<data root>/shd`.
        T: frames per recording, >= 1.
        seconds: how much of a recording they cover together, > 0.
        downsample: neighbouring channels that are added up to one.
        binary: whether an entry is 0 or 1 (was there a spike?) instead of a count. Binary input is spikes, so the first
            layer does accumulates only.
        classes: words as in the files, or the first so many; None for all.
        per_class: training recordings drawn of each class; None for all that are not held out.
        validation: share of the training recordings held out, in (0, 1), stratified.
        validation_per_class: so many of each class are held out instead of a share.
        split_seed: seed of these draws; the seed of a run does not touch them.
        skip_broken: leave out and count recordings that cannot be used, instead of stopping at the first. A file that
            cannot be opened stops the run in any case: nobody knows what it held.

    Returns:
        Splits with samples of (T, ceil(700 / downsample), 1, 1).

    Raises:
        MissingData: no files there; says which folder, which layout, how to get them, and their size.
        MissingExtra: tonic or h5py cannot be imported here.
        BadData: a file or a recording that is cut short or cannot be used.
        BadOption: an option outside its range.
    """
    if T < 1:
        raise BadOption(f"T is {T}; it is the number of frames of a recording, at least 1")
    window = round(1e6 * seconds / T)
    if window < 1:
        raise BadOption(f"seconds is {seconds}; {T} frames of at least a microsecond do not fit")
    if not 1 <= downsample <= CHANNELS:
        raise BadOption(f"downsample is {downsample}; it counts channels that are added up, 1 to {CHANNELS}")
    folder = dataset_folder("shd", root)
    place = next((folder / each for each in _PLACES if (folder / each / "shd_train.h5").is_file()), None)
    if place is None:
        raise _missing(folder, "no shd_train.h5")
    if not (place / "shd_test.h5").is_file():
        raise _missing(folder, f"shd_train.h5 without shd_test.h5 in {place}")
    known = _keys(place / "shd_train.h5")
    chosen = choose_classes(known, classes)

    def part(word: str) -> Decoded:
        return _decode(place / f"shd_{word}.h5", known, chosen, T, window, downsample, binary, skip_broken)

    return drawn_splits(
        part("train"),
        part("test"),
        None,
        chosen,
        Drawing(validation, validation_per_class, per_class, split_seed),
        f"Spiking Heidelberg Digits (Cramer et al. 2020), read from {place}",
    )


def _decode(
    file: Path,
    known: Sequence[str],
    chosen: Sequence[str],
    T: int,  # noqa: N803
    window: int,
    downsample: int,
    binary: bool,
    skip_broken: bool,
) -> Decoded:
    new = {known.index(word): label for label, word in enumerate(chosen)}
    with _opened(file) as stored:
        try:
            labels = [int(label) for label in stored["labels"][:]]
            spikes = stored["spikes/times"], stored["spikes/units"]
        except _DAMAGE as cause:
            raise _damaged(file, cause) from cause
        if strange := sorted(set(labels) - set(range(len(known)))):
            raise BadData(f"{file} has label {strange[0]}, and names of classes 0 to {len(known) - 1}; load it again")
        clips = [Clip(file, new[label], row=row) for row, label in enumerate(labels) if label in new]
        check_present(clips, chosen, lambda word: _missing(file.parent, f"no recordings of {word!r} in {file.name}"))

        def frames_of(clip: Clip) -> np.ndarray:
            here = f"{file}, recording {clip.row}"
            try:
                times, units = (np.asarray(column[clip.row]) for column in spikes)
            except _DAMAGE as cause:
                raise _damaged(here, cause) from cause
            return to_frames(here, times, units, T, window, downsample, binary)

        options = {"T": T, "window": window, "downsample": downsample, "binary": binary}
        return decode_clips(clips, frames_of, options=options, skip_broken=skip_broken)


def to_frames(
    here: str,
    times: np.ndarray,
    units: np.ndarray,
    T: int,  # noqa: N803
    window: int,
    downsample: int,
    binary: bool,
) -> np.ndarray:
    """One recording as counts of spikes, int16 (T, ceil(700 / downsample), 1, 1).

    Args:
        here: which recording it is, for errors.
        times: of its spikes in seconds, never decreasing.
        units: their channels, 0 to 699.
        T: frames.
        window: length of a frame in microseconds.
        downsample: channels that are added up to one.
        binary: whether an entry is 0 or 1.

    Raises:
        BadData: no spikes, channels that are none, times that are not finite or go backwards.
    """
    if not len(times) or len(times) != len(units):
        raise BadData(f"{here} has {len(times)} times and {len(units)} channels of spikes; {_WAY_OUT}")
    moments = times.astype(np.float64) * 1e6
    if not np.isfinite(moments).all() or (np.diff(moments) < 0).any() or moments[0] < 0:
        raise BadData(f"{here}: times are not numbers, or negative, or go backwards; {_WAY_OUT}")
    if units.min() < 0 or units.max() >= CHANNELS:
        raise BadData(f"{here} has a spike of channel {units.max()}; channels are 0 to {CHANNELS - 1}; {_WAY_OUT}")
    try:
        from tonic.io import make_structured_array
        from tonic.transforms import ToFrame
    except (ImportError, RuntimeError) as cause:
        raise MissingExtra(f"frames are made by tonic, which cannot be imported here: {cause}") from cause

    kind = np.dtype([("t", int), ("x", int), ("p", int)])
    events = make_structured_array(moments, units.astype(int) // downsample, 1, dtype=kind)
    size = (-(-CHANNELS // downsample), 1, 1)
    frames: np.ndarray = ToFrame(sensor_size=size, time_window=window, start_time=0, end_time=T * window)(events)
    frames = frames[:, 0, :, None, None]
    return frames.clip(max=1) if binary else frames


_WAY_OUT = "load the file again, or set skip_broken: true in the data, and it is left out and counted"


def _keys(file: Path) -> list[str]:
    with _opened(file) as stored:
        try:
            return [word.decode() if isinstance(word, bytes) else str(word) for word in stored["extra/keys"][:]]
        except _DAMAGE as cause:
            raise _damaged(file, cause) from cause


def _opened(file: Path) -> Any:
    try:
        import h5py
    except (ImportError, RuntimeError) as cause:
        raise MissingExtra(f"{file} is read by h5py, which cannot be imported here ({cause}); install it") from cause
    try:
        return h5py.File(file, "r")
    except OSError as cause:
        raise _damaged(file, cause) from cause


def _damaged(here: object, cause: Exception) -> BadData:
    return BadData(f"{here} cannot be read as spikes of SHD ({cause}); it is damaged or cut short, load it again")


def _missing(folder: Path, found: str) -> MissingData:
    return missing(
        "shd",
        folder,
        found=found,
        layout="shd_train.h5 and shd_test.h5, there or in SHD/ (tonic) or events_h5/ (SpikingJelly)",
        get="load shd_train.h5.zip and shd_test.h5.zip from zenkelab.org/datasets (CC BY 4.0) and unpack both there",
        size="about 170 MB to load",
    )
