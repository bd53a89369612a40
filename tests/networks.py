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


class SewBlock(nn.Module):
    """A residual block of spikes: what is given plus what two convolutions make of it."""

    def __init__(self, channels: int, joined: str = "ADD") -> None:
        super().__init__()
        self.conv1 = layer.Conv2d(channels, channels, 3, padding=1, bias=False, step_mode="m")
        self.bn1 = layer.BatchNorm2d(channels, step_mode="m")
        self.sn1 = neuron.LIFNode(v_threshold=0.2, step_mode="m")
        self.conv2 = layer.Conv2d(channels, channels, 3, padding=1, bias=False, step_mode="m")
        self.bn2 = layer.BatchNorm2d(channels, step_mode="m")
        self.sn2 = neuron.LIFNode(v_threshold=0.2, step_mode="m")
        self.joined = joined

    def forward(self, x: Tensor) -> Tensor:
        branch = self.sn2(self.bn2(self.conv2(self.sn1(self.bn1(self.conv1(x))))))
        if self.joined == "ADD":
            return x + branch
        return x * branch if self.joined == "AND" else x * (1.0 - branch)


def sew_net(seed: int = 0, joined: str = "ADD", channels: int = 6) -> nn.Sequential:
    """Takes what `batch` gives; the blocks are "stage.0" and "stage.1"."""
    torch.manual_seed(seed)
    net = nn.Sequential()
    net.add_module("stem", layer.Conv2d(1, channels, 3, padding=1, bias=False, step_mode="m"))
    net.add_module("sn", neuron.LIFNode(v_threshold=0.2, step_mode="m"))
    net.add_module("stage", nn.Sequential(SewBlock(channels, joined), SewBlock(channels, joined)))
    net.add_module("flat", layer.Flatten(step_mode="m"))
    net.add_module("head", layer.Linear(16 * channels, 5, step_mode="m"))
    return net
