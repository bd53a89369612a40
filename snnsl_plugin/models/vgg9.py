"""VGG-9 for 32x32 images: six convolutions of 64-64-128-128-256-256 channels and a classifier."""

from __future__ import annotations

from typing import Literal

from torch import nn

from snnsl_plugin.errors import BadOption
from snnsl_plugin.models._neurons import neuron_factory
from snnsl_plugin.models._shapes import check_channels, check_input, check_pools


def vgg9(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    channels: list[int] = [64, 64, 128, 128, 256, 256],  # noqa: B006  (read only; the recipe schema shows it)
    hidden: list[int] = [256, 256],  # noqa: B006
    dropout: float = 0.0,
    neuron: Literal["lif", "plif", "if", "relu"] = "lif",
    tau: float = 2.0,
    surrogate: Literal["atan", "sigmoid"] = "atan",
    surrogate_alpha: float = 2.0,
    detach_reset: bool = True,
    v_threshold: float = 1.0,
) -> nn.Module:
    """Six 3x3 convolutions in three stages of two, each stage ended by a 2x2 max pool, then three linear layers.

    Papers that say VGG-9 differ in the classifier: 1024-1024 (Sengupta et al. 2019, "Going deeper in spiking neural
    networks"), 256 or none. Ours is 256-256 by default, small enough that the convolutions hold most of the weights at
    16x16; `hidden: [1024, 1024]` gives the first one, `hidden: []` the last. All but the last layer have batch norm.

    Args:
        input_shape: (C, H, W) of one step of one sample; H and W at least 8.
        classes: number of logits, >= 2.
        channels: the six convolution widths.
        hidden: widths of the linear layers before the last.
        dropout: share of units set to zero before each linear layer but the last, in [0, 1).
        neuron: kind of neuron (`lif`, `plif`, `if`), or `relu` for an ANN of the same layers.
        tau: membrane time constant in steps, > 1.
        surrogate: surrogate derivative (`atan`, `sigmoid`).
        surrogate_alpha: its steepness, > 0.
        detach_reset: whether the reset is left out of the gradient.
        v_threshold: firing threshold, > 0.

    Returns:
        A module from (T, N, C, H, W) to logits per step (T, N, classes), in multi-step mode. It does not reset itself.

    Raises:
        BadOption: an option outside its range, or an input too small for the pools.
    """
    check_input(input_shape, classes)
    check_channels("channels", channels)
    if len(channels) != 6:
        raise BadOption(f"channels has {len(channels)} widths; vgg9 has 6 convolutions (spiking_cnn takes any number)")
    if hidden:
        check_channels("hidden", hidden)
    if not 0 <= dropout < 1:
        raise BadOption(f"dropout is {dropout}; it is a share in [0, 1)")
    check_pools(input_shape, 3)
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
    width, height, breadth = input_shape
    for number, wider in enumerate(channels, start=1):
        net.add_module(f"conv{number}", layer.Conv2d(width, wider, 3, padding=1, bias=False))
        net.add_module(f"norm{number}", layer.BatchNorm2d(wider))
        net.add_module(f"spike{number}", make_neuron())
        width = wider
        if number % 2 == 0:
            net.add_module(f"pool{number // 2}", layer.MaxPool2d(2))
            height, breadth = height // 2, breadth // 2
    net.add_module("flatten", layer.Flatten())
    width = width * height * breadth
    for number, wider in enumerate(hidden, start=1):
        if dropout:
            net.add_module(f"dropout{number}", layer.Dropout(dropout))
        net.add_module(f"fc{number}", layer.Linear(width, wider, bias=False))
        net.add_module(f"norm{number + 6}", layer.BatchNorm1d(wider))
        net.add_module(f"spike{number + 6}", make_neuron())
        width = wider
    net.add_module(f"fc{len(hidden) + 1}", layer.Linear(width, classes))
    functional.set_step_mode(net, "m")
    return net
