"""SEW-ResNet of SpikingJelly's zoo, with a stem for small pictures."""

from __future__ import annotations

from typing import Literal

from torch import nn

from snnsl_plugin.errors import BadOption
from snnsl_plugin.models._neurons import neuron_factory
from snnsl_plugin.models._shapes import check_input
from snnsl_plugin.models._zoo import fresh, small_pictures, zoo


def sew_resnet(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    depth: Literal[18, 34, 50] = 18,
    connect: Literal["ADD", "AND", "IAND"] = "ADD",
    neuron: Literal["lif", "plif", "if"] = "lif",
    tau: float = 2.0,
    surrogate: Literal["atan", "sigmoid"] = "atan",
    surrogate_alpha: float = 2.0,
    detach_reset: bool = True,
    v_threshold: float = 1.0,
) -> nn.Module:
    """Spike-element-wise ResNet (Fang et al. 2021, "Deep residual learning in spiking neural networks").

    With `ADD` the sums after a block are small integers, no longer 0/1: the layers behind them do accumulates of
    integer spikes, which the metrics count apart. `AND` and `IAND` keep spikes binary.

    Pictures of at most 64 pixels a side get a stem of one 3x3 convolution of stride 1 without max pool, as is usual
    for CIFAR; larger ones keep the zoo's 7x7 stride 2 and max pool.

    Args:
        input_shape: (C, H, W) of one step of one sample.
        classes: number of logits, >= 2.
        depth: 18, 34 (basic blocks) or 50 (bottlenecks).
        connect: how a block's output joins its input.
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
        MissingExtra: the zoo needs torchvision, which cannot be imported here.
    """
    check_input(input_shape, classes)
    if depth not in (18, 34, 50):
        raise BadOption(f"depth is {depth}; sew_resnet comes in 18, 34 and 50")
    if connect not in ("ADD", "AND", "IAND"):
        raise BadOption(f"connect is {connect!r}; choose ADD, AND or IAND")
    make_neuron = neuron_factory(
        neuron,
        tau=tau,
        surrogate=surrogate,
        surrogate_alpha=surrogate_alpha,
        detach_reset=detach_reset,
        v_threshold=v_threshold,
    )
    make = getattr(zoo("sew_resnet"), f"sew_resnet{depth}")
    from spikingjelly.activation_based import functional, layer

    net: nn.Module = make(cnf=connect, spiking_neuron=make_neuron, num_classes=classes)
    if small_pictures(input_shape):
        net.conv1 = fresh(layer.Conv2d(input_shape[0], 64, 3, padding=1, bias=False))
        net.maxpool = nn.Identity()
    elif input_shape[0] != 3:
        net.conv1 = fresh(layer.Conv2d(input_shape[0], 64, 7, stride=2, padding=3, bias=False))
    functional.set_step_mode(net, "m")
    return net
