"""Small spiking networks that tests train."""

import torch
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn


def conv_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(
        layer.Conv2d(1, 6, 3, padding=1, bias=False),
        layer.BatchNorm2d(6),
        neuron.LIFNode(v_threshold=0.2),
        layer.MaxPool2d(2),
        layer.Conv2d(6, 8, 3, padding=1),
        neuron.LIFNode(v_threshold=0.2),
        layer.Flatten(),
        layer.Linear(32, 5),
    )
    for module in net:
        module.step_mode = "m"
    return net


def batch(seed: int = 0, samples: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(1, samples, 1, 4, 4, generator=generator).repeat(3, 1, 1, 1, 1)
    return x * 2, torch.randint(0, 5, (samples,), generator=generator)
