"""Event frames changed at random: the `augment` block of the event data sets."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from snnsl_plugin.errors import BadOption


@dataclass(frozen=True)
class EventAugment:
    """What is done to the frames of a training sample, in this order; the same to all T frames of it.

    tonic's transforms of this kind work on events, before they are frames, and draw from numpy's global generator;
    torchvision's draw from torch's, and have no roll. These work on the frames that are kept, and draw from a generator
    of the sample's own, so that the number of processes changes nothing. Dropping each event of a count with a
    probability is the same as dropping events before they are counted.

    Attributes:
        flip: probability of mirroring left and right, in [0, 1]. It makes a left hand of a right one.
        roll: pixels of a frame, up to so many of them in each direction, both ways; what leaves comes in opposite.
        drop: probability with which each event is dropped, in [0, 1).
        cutout: side, in pixels of a frame, of a square without events, anywhere; 0 for none.

    Raises:
        BadOption: a value outside its range.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    flip: float = 0.0
    roll: int = 0
    drop: float = 0.0
    cutout: int = 0

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if not 0 <= self.flip <= 1:
            raise BadOption(f"augment.flip is {self.flip}; it is a probability, in [0, 1], 0.5 is usual")
        if not 0 <= self.drop < 1:
            raise BadOption(f"augment.drop is {self.drop}; it is the share of events dropped, in [0, 1)")
        for option, pixels in (("roll", self.roll), ("cutout", self.cutout)):
            if pixels < 0:
                raise BadOption(f"augment.{option} is {pixels}; it counts pixels of a frame and is at least 0")

    def __call__(self, frames: Tensor, seed: int, index: int) -> Tensor:
        """One sample, changed; the input stays as it is.

        Args:
            frames: (T, C, H, W), whole numbers.
            seed: of the epoch.
            index: of the sample; seed and index alone decide what is drawn.
        """
        draw = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{index}".encode()))
        height, width = frames.shape[-2:]
        if self.flip and float(torch.rand((), generator=draw)) < self.flip:
            frames = frames.flip(-1)
        if self.roll:
            down, right = torch.randint(-self.roll, self.roll + 1, (2,), generator=draw).tolist()
            frames = frames.roll((down, right), (-2, -1))
        if self.drop:
            frames, seen = frames.clone(), frames.nonzero(as_tuple=True)  # most pixels are empty: draw for the others
            counts = frames[seen].float()
            frames[seen] = torch.binomial(counts, torch.full_like(counts, 1 - self.drop), draw).to(frames.dtype)
        if self.cutout:
            # Its middle may be any pixel, so that the rim is emptied as often as the rest; part of it may be outside.
            row, column = int(torch.randint(height, (), generator=draw)), int(torch.randint(width, (), generator=draw))
            top, left = row - self.cutout // 2, column - self.cutout // 2
            frames = frames.clone()
            frames[..., max(top, 0) : max(top + self.cutout, 0), max(left, 0) : max(left + self.cutout, 0)] = 0
        return frames
