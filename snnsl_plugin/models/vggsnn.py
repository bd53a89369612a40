"""VGGSNN: the eight convolutions that papers use for CIFAR10-DVS."""

from __future__ import annotations

from typing import Literal

from torch import nn

from snnsl_plugin.errors import BadOption
from snnsl_plugin.models._neurons import neuron_factory
from snnsl_plugin.models._shapes import check_channels, check_input, check_pools


def vggsnn(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    channels: list[int] = [64, 128, 256, 256, 512, 512, 512, 512],  # noqa: B006  (read only; the recipe schema shows it)
    pool: Literal["avg", "max"] = "avg",
    neuron: Literal["lif", "plif", "if"] = "lif",
    tau: float = 2.0,
    surrogate: Literal["atan", "sigmoid"] = "atan",
    surrogate_alpha: float = 2.0,
    detach_reset: bool = True,
    v_threshold: float = 1.0,
) -> nn.Module:
    """Eight 3x3 convolutions with batch norm and neurons in four stages of two, each with a 2x2 pool; a linear layer.

    Deng et al. 2022, "Temporal efficient training of spiking neural network via gradient re-weighting", at 48x48
    pixels. Averages of spikes are not spikes: with their `avg` pools the layer after each pool does multiplications,
    with `max` all layers but the first do accumulates only.

    Args:
        input_shape: (C, H, W) of one step of one sample; H and W at least 16.
        classes: number of logits, >= 2.
        channels: the eight convolution widths.
        pool: `avg`, as published, or `max`.
        neuron: kind of neuron (`lif`, `plif`, `if`).
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
    if len(channels) != 8:
        raise BadOption(f"channels has {len(channels)} widths; vggsnn has 8 convolutions (spiking_cnn has any number)")
    if pool not in ("avg", "max"):
        raise BadOption(f"pool is {pool!r}; choose avg, as published, or max")
    check_pools(input_shape, 4)
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
            net.add_module(f"pool{number // 2}", layer.AvgPool2d(2) if pool == "avg" else layer.MaxPool2d(2))
            height, breadth = height // 2, breadth // 2
    net.add_module("flatten", layer.Flatten())
    net.add_module("fc", layer.Linear(width * height * breadth, classes))
    functional.set_step_mode(net, "m")
    return net
