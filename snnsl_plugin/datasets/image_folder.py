"""Any pictures of yours: one folder per part, one folder per class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from snnsl_plugin.datasets._pictures import channel_statistics, check_size, decode_tree
from snnsl_plugin.datasets._root import missing
from snnsl_plugin.datasets._splits import Splits, draw_train
from snnsl_plugin.datasets._tensors import TensorImages
from snnsl_plugin.datasets._trees import Tree, choose_classes, class_folders, read_tree
from snnsl_plugin.errors import BadData, BadOption, MissingData


def image_folder(
    *,
    root: str,
    size: int,
    grayscale: bool = False,
    classes: list[str] | int | None = None,
    per_class: int | None = None,
    validation: float = 0.1,
    validation_per_class: int | None = None,
    split_seed: int = 0,
    normalize: bool = True,
    augment: bool = False,
    skip_broken: bool = False,
) -> Splits:
    """Pictures in `<root>/{train,validation,test}/<class>/*`, of any format that Pillow reads.

    Without a validation folder a seeded, stratified share of the training pictures is held out.

    Args:
        root: the folder that holds train/ and test/, and validation/ if there is one.
        size: side in pixels to which every picture is resized (squeezed if it is not square).
        grayscale: one channel instead of three.
        classes: names, or the first so many in alphabetical order; None for all.
        per_class: training pictures drawn of each class; None for all.
        validation: share of the training pictures held out, in (0, 1); not used if there is a validation folder.
        validation_per_class: so many of each class are held out instead of a share.
        split_seed: seed of these draws.
        normalize: whether pixels are shifted and scaled by mean and deviation of the training pictures; without, they
            are in [0, 1].
        augment: whether training pictures are randomly cropped and mirrored.
        skip_broken: leave out and count files that cannot be decoded, instead of stopping at the first.

    Returns:
        Splits with samples of (C, size, size).

    Raises:
        MissingData: the folder, a part or the pictures of a class are missing.
        BadData: a file that cannot be decoded (and skip_broken is off), or classes that differ between parts.
        BadOption: an option outside its range.
    """
    check_size(size)
    folder = Path(root).expanduser()
    known = class_folders(folder / "train")
    if len(known) < 2:
        raise _missing(folder, f"{len(known)} class folders in train/")
    chosen = choose_classes(known, classes)

    def part(name: str) -> tuple[TensorImages, int]:
        return decode_tree(_tree(folder, name, known, chosen), size=size, grayscale=grayscale, skip_broken=skip_broken)

    test, skipped_test = part("test")
    pictures, skipped_train = part("train")
    skipped = skipped_test + skipped_train
    if (folder / "validation").is_dir():
        if validation_per_class is not None or per_class is not None:
            raise BadOption(
                f"{folder} has a validation folder, so nothing is drawn; leave out per_class and validation_per_class, "
                "or rename the folder"
            )
        held, skipped_held = part("validation")
        skipped += skipped_held
        train = replace(pictures, augment=augment)
    else:
        kept, out = draw_train(
            pictures.labels,
            chosen,
            validation=validation,
            validation_per_class=validation_per_class,
            per_class=per_class,
            seed=split_seed,
        )
        train, held = pictures.subset(kept, augment=augment), pictures.subset(out)
    mean, std = channel_statistics(train.images) if normalize else (None, None)
    return Splits(
        train=replace(train, mean=mean, std=std),
        validation=replace(held, mean=mean, std=std),
        test=replace(test, mean=mean, std=std),
        classes=chosen,
        shape=tuple(train.images.shape[1:]),
        events=False,
        source=f"{len(pictures)} pictures to train and validate on and {len(test)} to test on, in {folder}",
        skipped=skipped,
    )


def _tree(folder: Path, part: str, known: list[str], chosen: list[str]) -> Tree:
    found = class_folders(folder / part)
    if not found:
        raise _missing(folder, f"no class folders in {part}/")
    if strangers := sorted(set(found) - set(known)):
        raise BadData(f"{folder / part} has class {strangers[0]!r}, which train/ has not; classes are those of train/")
    tree = read_tree(folder / part, chosen)
    present = set(tree.labels.tolist())
    for label, name in enumerate(chosen):
        if label not in present:
            raise _missing(folder, f"no pictures of class {name!r} in {part}/")
    return tree


def _missing(folder: Path, found: str) -> MissingData:
    return missing(
        "image_folder",
        folder,
        found=found,
        layout="train/<class>/* and test/<class>/*, validation/<class>/* if you like, in any format that Pillow reads",
        get="put your pictures there",
        size="as large as they are",
    )
