"""The spiking VGG of SpikingJelly's zoo, with a head that fits small pictures."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, cast

from torch import nn

from snnsl_plugin.errors import BadOption
from snnsl_plugin.models._neurons import neuron_factory
from snnsl_plugin.models._shapes import check_input, check_pools
from snnsl_plugin.models._zoo import fresh, small_pictures, zoo


def spiking_vgg(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    depth: Literal[11, 13, 16, 19] = 11,
    bn: bool = True,
    neuron: Literal["lif", "plif", "if"] = "lif",
    tau: float = 2.0,
    surrogate: Literal["atan", "sigmoid"] = "atan",
    surrogate_alpha: float = 2.0,
    detach_reset: bool = True,
    v_threshold: float = 1.0,
) -> nn.Module:
    """VGG of 11, 13, 16 or 19 layers (Simonyan and Zisserman 2015) with spiking neurons in place of ReLU.

    Pictures of at most 64 pixels a side get one average pool to 1x1 and one linear layer of 512 inputs instead of the
    zoo's 7x7 grid and its two layers of 4,096 units, which hold 120 million weights and would see each pixel 49 times.

    Args:
        input_shape: (C, H, W) of one step of one sample; H and W at least 32, since five max pools halve them.
        classes: number of logits, >= 2.
        depth: number of layers with weights, as in the paper.
        bn: batch norm after each convolution; without it a deep spiking network rarely fires at the start.
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
        MissingExtra: the zoo needs torchvision, which cannot be imported here.
    """
    check_input(input_shape, classes)
    if depth not in (11, 13, 16, 19):
        raise BadOption(f"depth is {depth}; spiking_vgg comes in 11, 13, 16 and 19 (vgg9 is another model)")
    check_pools(input_shape, 5)
    make_neuron = neuron_factory(
        neuron,
        tau=tau,
        surrogate=surrogate,
        surrogate_alpha=surrogate_alpha,
        detach_reset=detach_reset,
        v_threshold=v_threshold,
    )
    from spikingjelly.activation_based import functional, layer

    models = zoo("spiking_vgg")
    plan = models.cfgs[{11: "A", 13: "B", 16: "D", 19: "E"}[depth]]
    if small_pictures(input_shape):
        features = models.SpikingVGG.make_layers(cfg=plan, batch_norm=bn, neuron=make_neuron)
        for part in features:
            if isinstance(part, layer.Conv2d):
                fresh(part)
        head = [layer.AdaptiveAvgPool2d((1, 1)), layer.Flatten(), layer.Linear(512, classes)]
        net: nn.Module = nn.Sequential(OrderedDict(features=features, classifier=nn.Sequential(*head)))
    else:
        net = models.SpikingVGG(cfg=plan, batch_norm=bn, num_classes=classes, spiking_neuron=make_neuron)
        features = cast(nn.Sequential, net.features)
    if input_shape[0] != 3:
        features[0] = fresh(layer.Conv2d(input_shape[0], 64, kernel_size=3, padding=1))
    functional.set_step_mode(net, "m")
    return net
