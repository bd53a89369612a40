"""Picture files to bytes in memory. Pillow decodes; torchvision is not needed for a folder of pictures."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from snnsl_plugin.datasets._cache import cached, fingerprint
from snnsl_plugin.datasets._tensors import TensorImages
from snnsl_plugin.datasets._trees import Tree
from snnsl_plugin.errors import BadData, BadOption

if TYPE_CHECKING:
    from PIL import Image

_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, OverflowError, struct.error, zlib.error)  # what Pillow raises


def decode_tree(
    tree: Tree, *, size: int | None, grayscale: bool = False, skip_broken: bool = False
) -> tuple[TensorImages, int]:
    """The pictures of a tree, and how many were skipped.

    Args:
        tree: the files and their classes; at least one file.
        size: side in pixels to which each picture is resized (squeezed if it is not square); None takes them as they
            are, all of one shape.
        grayscale: one channel instead of three.
        skip_broken: count a file that cannot be decoded instead of raising.

    Raises:
        BadData: a file cannot be decoded, or differs in shape from the first one; named, with the way out.
        BadOption: a size below 1.
    """
    check_size(size)
    options = {"what": "pictures", "size": size, "grayscale": grayscale, "skip_broken": skip_broken}
    stored = cached(fingerprint(tree.files, options), lambda: _decode_all(tree.files, size, grayscale, skip_broken))
    kept = stored["kept"]
    files = [tree.files[i] for i in kept.tolist()]
    return TensorImages(stored["images"], tree.labels[kept], files=files), len(tree.files) - len(kept)


def check_size(size: int | None) -> None:
    """Refuse a side below 1 pixel.

    Raises:
        BadOption: with the value.
    """
    if size is not None and size < 1:
        raise BadOption(f"size is {size}; it is the side of a picture in pixels, at least 1")


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of values in [0, 1]; a constant channel gets 1 as deviation.

    Args:
        images: (N, C, H, W) of uint8.
    """
    means, deviations = [], []
    values = torch.arange(256, dtype=torch.float64) / 255
    for channel in images.transpose(0, 1):
        counts = torch.bincount(channel.reshape(-1), minlength=256).double()
        mean = (counts * values).sum() / counts.sum()
        deviation = ((counts * (values - mean) ** 2).sum() / counts.sum()).sqrt()
        means.append(float(mean))
        deviations.append(float(deviation) or 1.0)
    return tuple(means), tuple(deviations)


def resize(images: Tensor, size: int | None) -> Tensor:
    """Pictures (N, C, H, W) of uint8 at another size, by the same filter as files are."""
    if size is None or tuple(images.shape[-2:]) == (size, size):
        return images
    from PIL import Image

    return torch.stack([_to_tensor(Image.fromarray(x.permute(1, 2, 0).numpy()), size) for x in images])


def _decode_all(files: list[Path], size: int | None, grayscale: bool, skip_broken: bool) -> dict[str, Tensor]:
    images: list[Tensor] = []
    kept: list[int] = []
    for position, file in enumerate(files):
        try:
            image = _decode(file, size, grayscale)
        except BadData:
            if not skip_broken:
                raise
            continue
        if images and image.shape != images[0].shape:
            height, width = image.shape[1:]
            raise BadData(
                f"{file} is {width}x{height} pixels and {files[kept[0]]} is {images[0].shape[2]}x{images[0].shape[1]}; "
                "set size in the data, so that all are resized"
            )
        images.append(image)
        kept.append(position)
    if not images:
        raise BadData(f"none of the {len(files)} files can be decoded, the first is {files[0]}; check the folder")
    return {"images": torch.stack(images), "kept": torch.tensor(kept)}


def _decode(file: Path, size: int | None, grayscale: bool) -> Tensor:
    from PIL import Image

    try:
        with Image.open(file) as image:
            return _to_tensor(image.convert("L" if grayscale else "RGB"), size)
    except (*_DAMAGE, Image.DecompressionBombError) as cause:
        raise BadData(
            f"{file} cannot be decoded as a picture ({cause}); remove or replace it, or set skip_broken: true in the "
            "data where it has that option, and the file is left out and counted"
        ) from cause


def _to_tensor(image: Image.Image, size: int | None) -> Tensor:
    from PIL import Image

    if size is not None and image.size != (size, size):
        # Pillow widens its bilinear filter when it shrinks, as torchvision's antialias=True does: no aliasing.
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.array(image)
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())
