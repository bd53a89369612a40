"""CIFAR-100: 50,000 + 10,000 pictures of 32x32 in 100 classes, which form 20 superclasses."""

from __future__ import annotations

from typing import Literal

from snnsl_plugin.datasets._cifar import check_subset, cifar
from snnsl_plugin.datasets._splits import Splits
from snnsl_plugin.datasets._superclasses import SUPERCLASSES


def cifar100(
    *,
    root: str | None = None,
    size: int | None = None,
    subset: Literal["all", "first_of_superclass"] = "all",
    classes: list[str] | int | None = None,
    per_class: int | None = None,
    validation: float = 0.1,
    validation_per_class: int | None = None,
    split_seed: int = 0,
    normalize: bool = True,
    augment: bool = False,
    download: bool = False,
) -> Splits:
    """CIFAR-100 (Krizhevsky 2009), from a tree of pictures or from torchvision's files, with its official test part.

    Args:
        root: the folder with train/ and test/, or with torchvision's files; None for `<data root>/cifar100`.
        size: side in pixels to which pictures are resized; None for 32.
        subset: `first_of_superclass` takes 20 classes, the alphabetically first of each official superclass: far
            apart from each other, so that a small network can learn them from few pictures.
        classes: names, or the first so many in alphabetical order; None for all.
        per_class: training pictures drawn of each class; None for all that are not held out.
        validation: share of the training pictures held out, in (0, 1), stratified.
        validation_per_class: so many of each class are held out instead of a share.
        split_seed: seed of these draws; the seed of a run does not touch them.
        normalize: whether pixels are shifted and scaled by the published mean and deviation; without, they are in
            [0, 1].
        augment: whether training pictures are randomly cropped and mirrored.
        download: whether torchvision may load the data into `root` where it is missing.

    Returns:
        Splits with samples of (3, size, size).

    Raises:
        MissingData: no data there; says which folder, which layout, how to get it, and its size.
        MissingExtra: torchvision is needed and cannot be imported here.
        BadData: a picture that cannot be decoded.
        BadOption: an option outside its range.
    """
    check_subset(subset, classes)
    first = sorted(min(members) for members in SUPERCLASSES.values())
    return cifar(
        "cifar100",
        root=root,
        size=size,
        classes=first if subset == "first_of_superclass" else classes,
        per_class=per_class,
        validation=validation,
        validation_per_class=validation_per_class,
        split_seed=split_seed,
        normalize=normalize,
        augment=augment,
        download=download,
    )
