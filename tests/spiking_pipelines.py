"""Four small networks, and what a user of NNI writes around a network: data, training step, training loop."""

from collections.abc import Callable, Iterator

import nni
import torch
from nni.compression import TorchEvaluator
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn
from torch.nn import functional as F

Batch = tuple[Tensor, Tensor]
TIME = 3


class ConvNet(nn.Module):
    """Two convolutions and a linear layer over pictures of shape (N, 1, 6, 6); returns logits of shape (N, 5).

    The sizes are chosen so that no usual ratio of a layer is a whole number: 54, 432 and 360 weights.
    """

    def __init__(self, activation: Callable[[], nn.Module] = nn.ReLU, kit: object = nn) -> None:
        super().__init__()
        self.conv1 = kit.Conv2d(1, 6, 3, padding=1, bias=False)
        self.bn1 = kit.BatchNorm2d(6)
        self.act1 = activation()
        self.conv2 = kit.Conv2d(6, 8, 3, padding=1)
        self.bn2 = kit.BatchNorm2d(8)
        self.act2 = activation()
        self.pool = kit.AvgPool2d(2)
        self.flatten = kit.Flatten()
        self.fc = kit.Linear(72, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.pool(self.act2(self.bn2(self.conv2(x))))
        return self.fc(self.flatten(x))


class SingleStepNet(ConvNet):
    """Step mode 's': the loop over time is in `forward`, so every layer is called `TIME` times."""

    def __init__(self) -> None:
        super().__init__(lif, layer)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([super(SingleStepNet, self).forward(x) for _ in range(TIME)]).mean(0)


class MultiStepNet(ConvNet):
    """Step mode 'm': every layer is called once with (T, N, ...)."""

    def __init__(self) -> None:
        super().__init__(lif, layer)
        functional.set_step_mode(self, "m")

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.unsqueeze(0).repeat(TIME, 1, 1, 1, 1)).mean(0)


class ContainerNet(nn.Module):
    """Step mode 'm' from torch's own layers: SeqToANNContainer folds time into the batch around them."""

    def __init__(self) -> None:
        super().__init__()
        self.block1 = layer.SeqToANNContainer(nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6))
        self.act1 = lif()
        self.block2 = layer.SeqToANNContainer(nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.act2 = lif()
        self.head = layer.SeqToANNContainer(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(72, 5))
        functional.set_step_mode(self, "m")

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.block1(x.unsqueeze(0).repeat(TIME, 1, 1, 1, 1)))
        return self.head(self.act2(self.block2(x))).mean(0)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "ann": ConvNet,
    "snn_s": SingleStepNet,
    "snn_m": MultiStepNet,
    "snn_container": ContainerNet,
}


def lif() -> neuron.LIFNode:
    return neuron.LIFNode(v_threshold=0.3)


def network(name: str, seed: int = 0) -> nn.Module:
    """One of NETWORKS with weights drawn from `seed`; torch's global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[name]()


def batches(count: int = 4, samples: int = 8, seed: int = 0) -> list[Batch]:
    """Random pictures (N, 1, 6, 6) in [0, 1) and labels (N,); the label is where the brightest part of a row lies."""
    generator = torch.Generator().manual_seed(seed)
    pictures = [torch.rand(samples, 1, 6, 6, generator=generator) for _ in range(count)]
    return [(x, x.mean((1, 2))[:, :5].argmax(1)) for x in pictures]


def endless(data: list[Batch]) -> Iterator[Batch]:
    while True:
        yield from data


def training_step(batch: Batch, model: nn.Module) -> Tensor:
    """A user's own step for a spiking network: membranes are reset before every batch."""
    functional.reset_net(model)
    x, target = batch
    return F.cross_entropy(model(x), target)


class Training:
    """A user's own training function for TorchEvaluator, called as NNI calls it; keeps the loss of every step.

    It trains `max_steps` batches, or `max_epochs` times the data, or one epoch where NNI names neither.
    """

    def __init__(self, data: list[Batch] | None = None) -> None:
        self.data = data or batches()
        self.losses: list[float] = []

    def __call__(
        self,
        model: nn.Module,
        optimizers: torch.optim.Optimizer,
        training_step: Callable[[Batch, nn.Module], Tensor],
        lr_schedulers: object = None,
        max_steps: int | None = None,
        max_epochs: int | None = None,
    ) -> None:
        steps = max_steps or (max_epochs or 1) * len(self.data)
        model.train()
        for _, batch in zip(range(steps), endless(self.data), strict=False):
            optimizers.zero_grad()
            loss = training_step(batch, model)
            loss.backward()
            optimizers.step()
            if lr_schedulers is not None:
                lr_schedulers.step()
            self.losses.append(float(loss.detach()))


def sgd(model: nn.Module, lr: float = 0.05, momentum: float = 0.9) -> torch.optim.Optimizer:
    """A traced optimizer, which is the only kind that NNI can build again for the wrapped parameters."""
    return nni.trace(torch.optim.SGD)(model.parameters(), lr=lr, momentum=momentum)


def evaluator(
    model: nn.Module,
    training: Training | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    step: Callable[[Batch, nn.Module], Tensor] = training_step,
) -> TorchEvaluator:
    """NNI's TorchEvaluator around the pieces above; hand over a Training to read its losses afterwards."""
    return TorchEvaluator(training or Training(), optimizer or sgd(model), step)
