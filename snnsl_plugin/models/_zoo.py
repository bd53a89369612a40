"""The door to SpikingJelly's model zoo, which imports torchvision when it is touched."""

from __future__ import annotations

import importlib
from types import ModuleType

from torch import nn

from snnsl_plugin.errors import MissingExtra


def zoo(module: str) -> ModuleType:
    """A module of `spikingjelly.activation_based.model`.

    Raises:
        MissingExtra: spikingjelly or torchvision cannot be imported here.
    """
    try:
        return importlib.import_module(f"spikingjelly.activation_based.model.{module}")
    except (ImportError, RuntimeError) as cause:  # torchvision raises RuntimeError when built for another torch
        raise MissingExtra(
            f"this model comes from SpikingJelly's zoo, which cannot be imported here ({cause}); install torchvision "
            "in the release that belongs to your torch, or choose spiking_cnn or vgg9, which do without"
        ) from cause


def small_pictures(input_shape: tuple[int, int, int]) -> bool:
    """Whether both sides are at most 64 pixels, so that an ImageNet stem would throw most of the picture away."""
    return max(input_shape[1:]) <= 64


def fresh(convolution: nn.Conv2d) -> nn.Conv2d:
    """The convolution, initialised in place as the zoo does it (Kaiming normal, fan out)."""
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution
