"""Samples decoded once into memory, as bytes; made float when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from snnsl_plugin.datasets._augment import EventAugment


@dataclass(frozen=True, eq=False)
class TensorImages(Dataset[tuple[Tensor, int]]):
    """Pictures in memory.

    Attributes:
        images: (N, C, H, W) of uint8, 0 to `scale`.
        labels: (N,) of int64.
        mean: per channel, of values in [0, 1]; None leaves values in [0, 1].
        std: likewise; given with `mean` or not at all.
        scale: the byte that stands for 1.0.
        augment: whether batches are randomly cropped and mirrored.
        files: where each picture came from, if from a file.
    """

    images: Tensor
    labels: Tensor
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float = 255.0
    augment: bool = False
    files: Sequence[Path] = field(default=(), repr=False)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.images)

    @property
    def draws_globally(self) -> bool:
        """Whether batches draw from torch's global generator, so that their order counts."""
        return self.augment

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Picture `index` as float32 (C, H, W), and its label."""
        x, y = self.batch(torch.tensor([range(len(self))[index]]))
        return x[0], int(y[0])

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures `indices` as float32 (N, C, H, W), and their labels (N,). Augmentation draws from torch's seed."""
        images = self.images[indices]
        if self.augment:
            images = crop_and_mirror(images)
        x = images.float() / self.scale
        if self.mean is not None and self.std is not None:
            x = (x - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None]
        return x, self.labels[indices]

    def subset(self, indices: Tensor, *, augment: bool = False) -> TensorImages:
        """The pictures `indices`, copied, so that the rest can be freed."""
        files = [self.files[i] for i in indices.tolist()] if self.files else ()
        return replace(self, images=self.images[indices], labels=self.labels[indices], augment=augment, files=files)

    def origin(self, index: int) -> str:
        """The file of a picture, or its number."""
        return str(self.files[index]) if self.files else f"picture {index}"


@dataclass(frozen=True, eq=False)
class TensorFrames(Dataset[tuple[Tensor, int]]):
    """Event recordings as frames in memory.

    Attributes:
        frames: (N, T, C, H, W), events counted per pixel and frame; uint8 or int16.
        labels: (N,) of int64.
        files: the recording of each sample.
        augment: how samples are changed at random; None leaves them as they are.
    """

    frames: Tensor
    labels: Tensor
    files: Sequence[Path] = field(default=(), repr=False)
    augment: EventAugment | None = None

    def __len__(self) -> int:
        """Number of recordings."""
        return len(self.frames)

    @property
    def seeded(self) -> bool:
        """Whether `batch` wants a seed."""
        return self.augment is not None

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Recording `index` as float32 (T, C, H, W), and its label."""
        x, y = self.batch(torch.tensor([range(len(self))[index]]))
        return x[0], int(y[0])

    def batch(self, indices: Tensor, seed: int | None = None) -> tuple[Tensor, Tensor]:
        """Recordings `indices` as float32 (N, T, C, H, W), and their labels (N,).

        Args:
            indices: of the recordings.
            seed: of augmentation; with an epoch's seed a recording is changed in the same way whatever batch, process
                or rank it is in. None draws one from torch's global generator.
        """
        x = self.frames[indices]
        if self.augment is not None:
            seed = int(torch.randint(2**31, ())) if seed is None else seed
            x = torch.stack([self.augment(each, seed, i) for each, i in zip(x, indices.tolist(), strict=True)])
        # Time first in memory, while they are bytes: what the encoder does with the view that is returned is then free.
        return x.transpose(0, 1).contiguous().float().transpose(0, 1), self.labels[indices]

    def subset(self, indices: Tensor, *, augment: EventAugment | None = None) -> TensorFrames:
        """The recordings `indices`, copied."""
        files = [self.files[i] for i in indices.tolist()] if self.files else ()
        return TensorFrames(self.frames[indices], self.labels[indices], files, augment)

    def origin(self, index: int) -> str:
        """The file of a recording, or its number."""
        return str(self.files[index]) if self.files else f"recording {index}"


def crop_and_mirror(images: Tensor) -> Tensor:
    """Each picture shifted by up to an eighth of its side (black moves in), and mirrored half of the time.

    torchvision's RandomCrop and RandomHorizontalFlip draw once per call, so they need a loop over the pictures; one
    gather over the batch gives the same pictures (a test compares) at a fiftieth of the time. Draws from torch's
    global generator, so a seed at the start of an epoch repeats it.

    Args:
        images: (N, C, H, W).
    """
    count, channels, height, width = images.shape
    pad = max(1, max(height, width) // 8)
    padded = functional.pad(images, (pad, pad, pad, pad))
    rows = torch.randint(2 * pad + 1, (count, 1)) + torch.arange(height)
    columns = torch.randint(2 * pad + 1, (count, 1)) + torch.arange(width)
    mirrored = torch.rand(count, 1) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    sample = torch.arange(count)[:, None, None, None]
    channel = torch.arange(channels)[None, :, None, None]
    return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
