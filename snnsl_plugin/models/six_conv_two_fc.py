"""Six convolutions, two linear layers and a vote: the CIFAR-10 network of Grad R, STDS and UPR."""

from __future__ import annotations

from typing import Literal

from torch import nn

from snnsl_plugin.errors import BadOption
from snnsl_plugin.models._neurons import neuron_factory
from snnsl_plugin.models._shapes import check_channels, check_input, check_pools


def six_conv_two_fc(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    channels: int = 256,
    hidden: int = 2048,
    dropout: float = 0.5,
    voters: int = 10,
    neuron: Literal["lif", "plif", "if"] = "lif",
    tau: float = 2.0,
    surrogate: Literal["atan", "sigmoid"] = "atan",
    surrogate_alpha: float = 2.0,
    detach_reset: bool = True,
    v_threshold: float = 1.0,
) -> nn.Module:
    """Two stages of three 3x3 convolutions, each stage ended by a 2x2 max pool, then two linear layers that spike.

    Fang et al. 2021 ("Incorporating learnable membrane time constant ..."), as used by Chen et al. 2021 (Grad R) and
    2022 (STDS) and Shi et al. 2024 (UPR). The last layer spikes too: `voters` neurons vote for each class, and the
    output of a step is their mean, a RATE IN [0, 1] and not a free logit. The papers train it with the squared error to
    one-hot targets (`loss: mse` in a recipe). The linear layers have neither batch norm nor bias, as in STDS's code.

    Args:
        input_shape: (C, H, W) of one step of one sample; H and W at least 4.
        classes: number of outputs, >= 2.
        channels: width of each of the six convolutions.
        hidden: width of the first linear layer.
        dropout: share of units set to zero before each linear layer, one choice for all steps, in [0, 1).
        voters: neurons that vote for a class, >= 1.
        neuron: kind of neuron (`lif`, `plif`, `if`).
        tau: membrane time constant in steps, > 1.
        surrogate: surrogate derivative (`atan`, `sigmoid`).
        surrogate_alpha: its steepness, > 0.
        detach_reset: whether the reset is left out of the gradient.
        v_threshold: firing threshold, > 0.

    Returns:
        A module from (T, N, C, H, W) to the votes per step (T, N, classes) in [0, 1], in multi-step mode. It does not
        reset itself.

    Raises:
        BadOption: an option outside its range, or an input too small for the pools.
    """
    check_input(input_shape, classes)
    check_channels("channels", [channels])
    check_channels("hidden", [hidden])
    check_channels("voters", [voters])
    if not 0 <= dropout < 1:
        raise BadOption(f"dropout is {dropout}; it is a share in [0, 1)")
    check_pools(input_shape, 2)
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
    width = input_shape[0]
    for number in range(1, 7):
        net.add_module(f"conv{number}", layer.Conv2d(width, channels, 3, padding=1, bias=False))
        net.add_module(f"norm{number}", layer.BatchNorm2d(channels))
        net.add_module(f"spike{number}", make_neuron())
        if number % 3 == 0:
            net.add_module(f"pool{number // 3}", layer.MaxPool2d(2))
        width = channels
    net.add_module("flatten", layer.Flatten())
    width = channels * (input_shape[1] // 4) * (input_shape[2] // 4)
    for number, wider in ((7, hidden), (8, voters * classes)):
        if dropout:
            net.add_module(f"dropout{number}", layer.Dropout(dropout))
        net.add_module(f"fc{number}", layer.Linear(width, wider, bias=False))
        net.add_module(f"spike{number}", make_neuron())
        width = wider
    net.add_module("vote", layer.VotingLayer(voters))
    functional.set_step_mode(net, "m")
    return net
