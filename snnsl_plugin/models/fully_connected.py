"""Linear layers and neurons, for samples without neighbourhoods such as SHD's 700 channels."""

from __future__ import annotations

import math
from typing import Literal

from torch import nn

from snnsl_plugin.errors import BadOption
from snnsl_plugin.models._neurons import neuron_factory
from snnsl_plugin.models._shapes import check_channels, check_input


def fully_connected(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    hidden: list[int] = [256, 256],  # noqa: B006  (read only; the recipe schema shows it)
    dropout: float = 0.0,
    neuron: Literal["lif", "plif", "if"] = "lif",
    tau: float = 2.0,
    surrogate: Literal["atan", "sigmoid"] = "atan",
    surrogate_alpha: float = 2.0,
    detach_reset: bool = True,
    v_threshold: float = 1.0,
) -> nn.Module:
    """Linear layers with batch norm and spiking neurons, and a linear one for the logits; nothing recurs but neurons.

    Args:
        input_shape: (C, H, W) of one step of one sample; flattened.
        classes: number of logits, >= 2.
        hidden: widths of the layers before the last.
        dropout: share of units set to zero after each of them, in [0, 1).
        neuron: kind of neuron (`lif`, `plif`, `if`).
        tau: membrane time constant in steps, > 1.
        surrogate: surrogate derivative (`atan`, `sigmoid`).
        surrogate_alpha: its steepness, > 0.
        detach_reset: whether the reset is left out of the gradient.
        v_threshold: firing threshold, > 0.

    Returns:
        A module from (T, N, C, H, W) to logits per step (T, N, classes), in multi-step mode. It does not reset itself.

    Raises:
        BadOption: an option outside its range.
    """
    check_input(input_shape, classes)
    check_channels("hidden", hidden)
    if not 0 <= dropout < 1:
        raise BadOption(f"dropout is {dropout}; it is a share in [0, 1)")
    make_neuron = neuron_factory(
        neuron,
        tau=tau,
        surrogate=surrogate,
        surrogate_alpha=surrogate_alpha,
        detach_reset=detach_reset,
        v_threshold=v_threshold,
    )
    from spikingjelly.activation_based import functional, layer

    net = nn.Sequential()
    net.add_module("flatten", layer.Flatten())
    width = math.prod(input_shape)
    for number, wider in enumerate(hidden, start=1):
        net.add_module(f"fc{number}", layer.Linear(width, wider, bias=False))
        net.add_module(f"norm{number}", layer.BatchNorm1d(wider))
        net.add_module(f"spike{number}", make_neuron())
        if dropout:
            net.add_module(f"dropout{number}", layer.Dropout(dropout))
        width = wider
    net.add_module(f"fc{len(hidden) + 1}", layer.Linear(width, classes))
    functional.set_step_mode(net, "m")
    return net
