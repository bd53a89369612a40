"""The network that SpikingJelly's zoo uses for DVS128 Gesture, at any size of input."""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn

from snnsl_plugin.errors import BadOption
from snnsl_plugin.models._neurons import neuron_factory
from snnsl_plugin.models._shapes import check_channels, check_input, check_pools
from snnsl_plugin.models._zoo import zoo


def dvs_gesture_net(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    channels: int = 128,
    scale: float = 1.0,
    neuron: Literal["lif", "plif", "if"] = "lif",
    tau: float = 2.0,
    surrogate: Literal["atan", "sigmoid"] = "atan",
    surrogate_alpha: float = 2.0,
    detach_reset: bool = True,
    v_threshold: float = 1.0,
) -> nn.Module:
    """Five stages of convolution, batch norm, neuron and max pool, then two linear layers and a vote.

    Fang et al. 2021, "Incorporating learnable membrane time constant to enhance learning of spiking neural networks",
    who use `plif`. The last layer spikes: 10 neurons vote for each class, and the output of a step is their mean, a
    RATE IN [0, 1] and not a free logit. The paper trains it with the squared error to one-hot targets; cross-entropy of
    rates cannot go below log(1 + (classes - 1) / e), 1.5 for 11 classes, and hardly learns. `scale` is ours: with 10 a
    vote counts as 1, and the bound is log(1 + (classes - 1) / e^10), below 0.001.

    Args:
        input_shape: (C, H, W) of one step of one sample; H and W at least 32 (the zoo's 2x128x128, or smaller).
        classes: number of outputs, >= 2.
        channels: width of each of the five convolutions.
        scale: factor on the mean of the votes, > 0.
        neuron: kind of neuron (`lif`, `plif`, `if`).
        tau: membrane time constant in steps, > 1.
        surrogate: surrogate derivative (`atan`, `sigmoid`).
        surrogate_alpha: its steepness, > 0.
        detach_reset: whether the reset is left out of the gradient.
        v_threshold: firing threshold, > 0.

    Returns:
        A module from (T, N, C, H, W) to the votes per step (T, N, classes) in [0, scale], in multi-step mode. It does
        not reset itself.

    Raises:
        BadOption: an option outside its range, or an input too small for the pools.
        MissingExtra: the zoo needs torchvision, which cannot be imported here.
    """
    check_input(input_shape, classes)
    check_channels("channels", [channels])
    check_pools(input_shape, 5)
    if not scale > 0:
        raise BadOption(f"scale is {scale}; it must be positive: 1 for rates, 10 for cross-entropy")
    make_neuron = neuron_factory(
        neuron,
        tau=tau,
        surrogate=surrogate,
        surrogate_alpha=surrogate_alpha,
        detach_reset=detach_reset,
        v_threshold=v_threshold,
    )
    from spikingjelly.activation_based import functional, layer

    net: nn.Module = zoo("parametric_lif_net").DVSGestureNet(channels=channels, spiking_neuron=make_neuron)
    stack = cast(nn.Sequential, net.conv_fc)
    # The zoo fixes 2x128x128 and 11 classes; the three layers that know those sizes are replaced.
    places = [i for i, part in enumerate(stack) if isinstance(part, layer.Linear)]
    height, breadth = input_shape[1] // 32, input_shape[2] // 32
    stack[0] = layer.Conv2d(input_shape[0], channels, kernel_size=3, padding=1, bias=False)
    stack[places[0]] = layer.Linear(channels * height * breadth, 512)
    stack[places[1]] = layer.Linear(512, 10 * classes)
    if scale != 1:
        stack.append(_Scaled(scale))
    functional.set_step_mode(net, "m")
    return net


class _Scaled(nn.Module):
    """Its input times a number."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, votes: Tensor) -> Tensor:
        return self.scale * votes
