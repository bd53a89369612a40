"""A small convolutional spiking network for small inputs: digits, N-MNIST, tests, examples."""

from __future__ import annotations

from typing import Literal

from torch import nn

from snnsl_plugin.models._neurons import neuron_factory
from snnsl_plugin.models._shapes import check_channels, check_input, check_pools


def spiking_cnn(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    channels: list[int] = [32, 64],  # noqa: B006  (read only; a plain default is what the recipe schema shows)
    hidden: int = 128,
    neuron: Literal["lif", "plif", "if", "relu"] = "lif",
    tau: float = 2.0,
    surrogate: Literal["atan", "sigmoid"] = "atan",
    surrogate_alpha: float = 2.0,
    detach_reset: bool = True,
    v_threshold: float = 1.0,
) -> nn.Module:
    """Per width in `channels` a 3x3 convolution, batch norm, neuron and 2x2 max pool; then two linear layers.

    Max pool keeps spikes binary, so all layers after the first do accumulates only. The last linear layer has no
    neuron behind it: its output is the logit of each step, and the mean over steps is the usual readout.

    Args:
        input_shape: (C, H, W) of one step of one sample; H and W at least `2 ** len(channels)`.
        classes: number of logits, >= 2.
        channels: width of each convolution, in order.
        hidden: width of the linear layer before the last.
        neuron: kind of neuron (`lif`, `plif`, `if`), or `relu` for an ANN of the same layers.
        tau: membrane time constant in steps, > 1.
        surrogate: surrogate derivative (`atan`, `sigmoid`).
        surrogate_alpha: its steepness, > 0.
        detach_reset: whether the reset is left out of the gradient.
        v_threshold: firing threshold, > 0.

    Returns:
        A module from (T, N, C, H, W) to logits per step (T, N, classes), in multi-step mode. It does not reset itself:
        call `spikingjelly.activation_based.functional.reset_net` before each batch.

    Raises:
        BadOption: an option outside its range, or an input too small for the pools.

    Example:
        >>> import torch
        >>> net = spiking_cnn((1, 8, 8), 10)
        >>> net(torch.zeros(4, 2, 1, 8, 8)).shape
        torch.Size([4, 2, 10])
    """
    check_input(input_shape, classes)
    check_channels("channels", channels)
    check_channels("hidden", [hidden])
    check_pools(input_shape, len(channels))
    make_neuron = neuron_factory(
        neuron,
        tau=tau,
        surrogate=surrogate,
        surrogate_alpha=surrogate_alpha,
        detach_reset=detach_reset,
        v_threshold=v_threshold,
    )
    from spikingjelly.activation_based import functional, layer

    width, height, breadth = input_shape
    net = nn.Sequential()
    for number, wider in enumerate(channels, start=1):
        net.add_module(f"conv{number}", layer.Conv2d(width, wider, 3, padding=1, bias=False))
        net.add_module(f"norm{number}", layer.BatchNorm2d(wider))
        net.add_module(f"spike{number}", make_neuron())
        net.add_module(f"pool{number}", layer.MaxPool2d(2))
        width, height, breadth = wider, height // 2, breadth // 2
    last = len(channels) + 1
    net.add_module("flatten", layer.Flatten())
    net.add_module("fc1", layer.Linear(width * height * breadth, hidden, bias=False))
    net.add_module(f"norm{last}", layer.BatchNorm1d(hidden))
    net.add_module(f"spike{last}", make_neuron())
    net.add_module("fc2", layer.Linear(hidden, classes))
    functional.set_step_mode(net, "m")
    return net
