"""Poisson rate code: a pixel in [0, 1] is the probability of a spike in each step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from snnsl_plugin.datasets.encoders._checks import check_pictures, check_steps
from snnsl_plugin.errors import BadOption


def poisson(*, T: int = 4) -> Callable[[Tensor], Tensor]:  # noqa: N803
    """Draw a spike for each pixel and step with the pixel's value as probability, from torch's global generator.

    Strictly a Bernoulli draw per step, as everywhere in the field. The input is binary, so the first layer does
    accumulates only. Few steps are noisy: 16 or more are usual.

    Args:
        T: number of steps, >= 1.

    Returns:
        A function from (N, C, H, W) in [0, 1] to spikes in {0, 1}, (T, N, C, H, W).

    Raises:
        BadOption: T below 1; later, values outside [0, 1] or data that already has a time axis.
    """
    check_steps(T)

    def encode(x: Tensor) -> Tensor:
        check_pictures("poisson", x)
        low, high = float(x.min()), float(x.max())
        if low < 0 or high > 1:
            raise BadOption(
                f"encoder poisson takes pixels in [0, 1] and met values from {low:.3g} to {high:.3g}; "
                "set normalize: false in the data, or use encoder direct"
            )
        return (torch.rand(T, *x.shape, device=x.device) < x).to(x.dtype)

    return encode
