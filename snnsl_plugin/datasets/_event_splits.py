"""From recordings to splits: what the event data sets share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from snnsl_plugin.datasets._augment import EventAugment
from snnsl_plugin.datasets._clips import Clip
from snnsl_plugin.datasets._splits import Splits, draw_train, fold_of
from snnsl_plugin.datasets._tensors import TensorFrames
from snnsl_plugin.datasets._trees import choose_classes, class_folders, read_tree
from snnsl_plugin.errors import BadData, BadOption, MissingData

Decoded = tuple[TensorFrames, int]  # frames, and how many recordings were skipped


@dataclass(frozen=True)
class Drawing:
    """What is drawn of the training part: the options of these names of all event data sets.

    Attributes:
        validation: share of the training recordings held out, in (0, 1), stratified.
        validation_per_class: so many of each class instead.
        per_class: training recordings drawn of each class; None for all that are not held out.
        split_seed: seed of these draws.
        augment: how training samples change from epoch to epoch.
        folds: pool both parts and deal them into so many folds; None keeps the test part.
        fold: the fold that is the test part.
    """

    validation: float
    validation_per_class: int | None
    per_class: int | None
    split_seed: int
    augment: EventAugment | None = None
    folds: int | None = None
    fold: int = 0


def event_splits(
    folder: Path,
    *,
    parts: tuple[str, str, str | None],
    classes: list[str] | int | None,
    decode: Callable[[Sequence[Clip]], Decoded],
    missing: Callable[[str], MissingData],
    source: str,
    drawing: Drawing,
) -> Splits:
    """Splits of the recordings in `folder/<part>/<class>/*`.

    Args:
        folder: the folder of the data set.
        parts: names of its training, test and (None: there is none) validation folders.
        classes: as the data sets' options of this name.
        decode: from clips to frames, and how many recordings were skipped.
        missing: the error for what was found instead of the data.
        source: where the data came from.
        drawing: what is drawn of the training part.

    Raises:
        MissingData: a part, or a class of a part, has no recordings.
        BadData: the test part has a class that the training part has not.
        BadOption: an option outside its range.
    """
    known = class_folders(folder / parts[0])
    if len(known) < 2:
        raise missing(f"{len(known)} class folders in {parts[0]}/")
    chosen = choose_classes(known, classes)

    def part(name: str) -> Decoded:
        found = class_folders(folder / name)
        if not found:
            raise missing(f"no class folders in {name}/")
        if strangers := sorted(set(found) - set(known)):
            raise BadData(f"{folder / name} has class {strangers[0]!r}, which {parts[0]}/ has not")
        tree = read_tree(folder / name, chosen)
        clips = [Clip(file, label) for file, label in zip(tree.files, tree.labels.tolist(), strict=True)]
        check_present(clips, chosen, lambda word: missing(f"no recordings of class {word!r} in {name}/"))
        return decode(clips)

    train, test = part(parts[0]), part(parts[1])
    return drawn_splits(train, test, part(parts[2]) if parts[2] else None, chosen, drawing, source)


def check_present(clips: Sequence[Clip], classes: Sequence[str], absent: Callable[[str], MissingData]) -> None:
    """Refuse a class without a recording.

    Raises:
        MissingData: what `absent` makes of the class's name.
    """
    present = {clip.label for clip in clips}
    for label, word in enumerate(classes):
        if label not in present:
            raise absent(word)


def drawn_splits(
    train: Decoded, test: Decoded, held: Decoded | None, classes: list[str], drawing: Drawing, source: str
) -> Splits:
    """Splits of decoded parts; validation is drawn from the training part where there is none.

    Raises:
        BadOption: too few samples of a class, or drawing where there is nothing to draw.
    """
    skipped = sum(count for _, count in (train, test, *([held] if held else [])))
    learned, tested = train[0], test[0]
    if drawing.folds is not None:
        if held is not None:
            raise BadOption(
                f"folds: {drawing.folds} pools all recordings, but {source} has a validation folder; leave one out"
            )
        pool = TensorFrames(
            torch.cat([learned.frames, tested.frames]),
            torch.cat([learned.labels, tested.labels]),
            [*learned.files, *tested.files],
        )
        rest, ours = fold_of(pool.labels, classes, drawing.folds, drawing.fold, drawing.split_seed)
        learned, tested = pool.subset(rest), pool.subset(ours)
        source = f"{source}, fold {drawing.fold} of {drawing.folds}"
    if held is None:
        kept, out = draw_train(
            learned.labels,
            classes,
            validation=drawing.validation,
            validation_per_class=drawing.validation_per_class,
            per_class=drawing.per_class,
            seed=drawing.split_seed,
        )
        learned, validated = learned.subset(kept, augment=drawing.augment), learned.subset(out)
    elif drawing.per_class is not None or drawing.validation_per_class is not None:
        raise BadOption(
            f"{source} has a validation folder, so nothing is drawn; leave out per_class, validation_per_class"
        )
    else:
        learned, validated = replace(learned, augment=drawing.augment), held[0]
    return Splits(
        train=learned,
        validation=validated,
        test=tested,
        classes=classes,
        shape=tuple(learned.frames.shape[1:]),
        events=True,
        source=source,
        skipped=skipped,
    )
