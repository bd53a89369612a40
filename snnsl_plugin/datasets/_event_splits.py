"""From a folder of recordings to splits: what `nmnist` and `event_folder` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from snnsl_plugin.datasets._splits import Splits, draw_train, fold_of
from snnsl_plugin.datasets._tensors import TensorFrames
from snnsl_plugin.datasets._trees import Tree, choose_classes, class_folders, read_tree
from snnsl_plugin.errors import BadData, BadOption, MissingData


def event_splits(
    folder: Path,
    *,
    parts: tuple[str, str, str | None],
    classes: list[str] | int | None,
    per_class: int | None,
    validation: float,
    validation_per_class: int | None,
    split_seed: int,
    folds: int | None,
    fold: int,
    decode: Callable[[Tree], TensorFrames],
    missing: Callable[[str], MissingData],
    source: str,
) -> Splits:
    """Splits of the recordings in `folder/<part>/<class>/*`.

    Args:
        folder: the folder of the data set.
        parts: names of its training, test and (None: there is none) validation folders.
        classes: as the data sets' options of these names, like the next six.
        per_class: see there.
        validation: see there.
        validation_per_class: see there.
        split_seed: see there.
        folds: see there; None for the official test part.
        fold: see there.
        decode: from files to frames.
        missing: the error for what was found instead of the data.
        source: where the data came from.

    Raises:
        MissingData: a part, or a class of a part, has no recordings.
        BadData: the test part has a class that the training part has not.
        BadOption: an option outside its range.
    """
    known = class_folders(folder / parts[0])
    if len(known) < 2:
        raise missing(f"{len(known)} class folders in {parts[0]}/")
    chosen = choose_classes(known, classes)

    def part(name: str) -> TensorFrames:
        found = class_folders(folder / name)
        if not found:
            raise missing(f"no class folders in {name}/")
        if strangers := sorted(set(found) - set(known)):
            raise BadData(f"{folder / name} has class {strangers[0]!r}, which {parts[0]}/ has not")
        tree = read_tree(folder / name, chosen)
        present = set(tree.labels.tolist())
        for label, word in enumerate(chosen):
            if label not in present:
                raise missing(f"no recordings of class {word!r} in {name}/")
        return decode(tree)

    train, test = part(parts[0]), part(parts[1])
    held = part(parts[2]) if parts[2] else None
    if folds is not None:
        if held is not None:
            raise BadOption(f"folds: {folds} pools all recordings, but {folder} has a validation folder; leave one out")
        pool = TensorFrames(
            torch.cat([train.frames, test.frames]),
            torch.cat([train.labels, test.labels]),
            [*train.files, *test.files],
        )
        rest, ours = fold_of(pool.labels, chosen, folds, fold, split_seed)
        train, test = pool.subset(rest), pool.subset(ours)
        source = f"{source}, fold {fold} of {folds}"
    if held is None:
        kept, out = draw_train(
            train.labels,
            chosen,
            validation=validation,
            validation_per_class=validation_per_class,
            per_class=per_class,
            seed=split_seed,
        )
        train, held = train.subset(kept), train.subset(out)
    elif per_class is not None or validation_per_class is not None:
        raise BadOption(
            f"{folder} has a validation folder, so nothing is drawn; leave out per_class, validation_per_class"
        )
    return Splits(
        train=train,
        validation=held,
        test=test,
        classes=chosen,
        shape=tuple(train.frames.shape[1:]),
        events=True,
        source=source,
    )
