"""CIFAR-10 and CIFAR-100 from a folder tree, from torchvision's files, or by its download."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnsl_plugin.datasets._pictures import check_size, decode_tree, resize
from snnsl_plugin.datasets._root import dataset_folder, missing
from snnsl_plugin.datasets._splits import Splits, draw_train
from snnsl_plugin.datasets._tensors import TensorImages
from snnsl_plugin.datasets._trees import choose_classes, class_folders, read_tree
from snnsl_plugin.errors import BadData, BadOption, MissingData, MissingExtra

PUBLISHED = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def cifar(
    name: str,
    *,
    root: str | None,
    size: int | None,
    classes: list[str] | int | None,
    per_class: int | None,
    validation: float,
    validation_per_class: int | None,
    split_seed: int,
    normalize: bool,
    augment: bool,
    download: bool,
) -> Splits:
    """The splits of `cifar10` or `cifar100`; the options are theirs.

    Raises:
        MissingData: neither a tree nor torchvision's files are there, and they were not to be or could not be loaded.
        MissingExtra: torchvision's files can only be read by torchvision, which cannot be imported here.
        BadData: a picture that cannot be decoded, or classes that differ between the parts.
        BadOption: an option outside its range.
    """
    check_size(size)
    folder = dataset_folder(name, root)
    known = class_folders(folder / "train")
    read = _read_tree if known else _read_torchvision
    if not known:
        known = _torchvision_part(name, folder, True, download).classes
    chosen = choose_classes(known, classes)
    test = read(name, folder, "test", chosen, size)
    pictures = read(name, folder, "train", chosen, size)
    kept, held = draw_train(
        pictures.labels,
        chosen,
        validation=validation,
        validation_per_class=validation_per_class,
        per_class=per_class,
        seed=split_seed,
    )
    mean, std = PUBLISHED[name] if normalize else (None, None)
    pictures, test = replace(pictures, mean=mean, std=std), replace(test, mean=mean, std=std)
    return Splits(
        train=pictures.subset(kept, augment=augment),
        validation=pictures.subset(held),
        test=test,
        classes=chosen,
        shape=tuple(pictures.images.shape[1:]),
        events=False,
        source=f"{name} (Krizhevsky 2009), {len(chosen)} classes, read from {folder}",
    )


def _read_tree(name: str, folder: Path, part: str, classes: list[str], size: int | None) -> TensorImages:
    tree = read_tree(folder / part, classes)
    present = set(tree.labels.tolist())
    for label, word in enumerate(classes):
        if label not in present:
            raise _missing(name, folder, f"no pictures of class {word!r} in {part}/")
    pictures, _ = decode_tree(tree, size=size)
    return pictures


def _read_torchvision(name: str, folder: Path, part: str, classes: list[str], size: int | None) -> TensorImages:
    data = _torchvision_part(name, folder, part == "train", download=False)
    labels = torch.full((len(data.targets),), -1)
    targets = torch.tensor(data.targets)
    for label, word in enumerate(classes):
        labels[targets == data.class_to_idx[word]] = label
    wanted = torch.nonzero(labels >= 0).flatten()
    images: Tensor = torch.from_numpy(data.data)[wanted].permute(0, 3, 1, 2).contiguous()
    return TensorImages(resize(images, size), labels[wanted])


def _torchvision_part(name: str, folder: Path, train: bool, download: bool) -> Any:
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as cause:  # RuntimeError: torchvision built for another torch
        raise MissingExtra(
            f"{name} as published is read by torchvision, which cannot be imported here ({cause}); install the release "
            f"that belongs to your torch, or put the pictures as train/<class>/*.png and test/<class>/*.png in {folder}"
        ) from cause

    kind = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    try:
        return kind(str(folder), train=train, download=download)
    except (RuntimeError, OSError) as cause:  # not found or not whole; with download: no network, no space
        found = f"the download failed ({cause})" if download else "no pictures"
        raise _missing(name, folder, found) from cause
    except (EOFError, KeyError, ValueError) as cause:
        raise BadData(f"torchvision cannot read {name} in {folder} ({cause}); delete it and load it again") from cause


def _missing(name: str, folder: Path, found: str) -> MissingData:
    count, archive = (10, "cifar-10-batches-py") if name == "cifar10" else (100, "cifar-100-python")
    return missing(
        name,
        folder,
        found=found,
        layout=f"train/<class>/*.png and test/<class>/*.png of {count} classes, or torchvision's {archive}/",
        get="set download: true in the data where there is a network, or copy either of the two there",
        size="about 170 MB to load, 350 MB unpacked",
    )


def check_subset(subset: str, classes: list[str] | int | None) -> None:
    """Refuse two ways of choosing classes at once.

    Raises:
        BadOption: an unknown subset, or a subset together with classes.
    """
    if subset not in ("all", "first_of_superclass"):
        raise BadOption(f"subset is {subset!r}; choose all or first_of_superclass")
    if subset != "all" and classes is not None:
        raise BadOption(f"subset: {subset} and classes both choose classes; leave one of them out")
