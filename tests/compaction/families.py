"""Tiny spiking networks of every kind whose channels are cut, alive enough that cutting wrongly would show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from spikingjelly.activation_based import base, functional, layer, neuron
from spikingjelly.activation_based.model import parametric_lif_net, sew_resnet, spikformer, spiking_resnet, spiking_vgg
from torch import Tensor, nn

STEPS, SAMPLES, CLASSES = 3, 2, 5


@dataclass(frozen=True)
class Family:
    """One kind of network.

    Attributes:
        build: makes it, in single-step mode where it has one.
        shape: of one picture, without time and batch.
        modes: step modes in which it runs.
        keep: dotted names of layers that are not to be cut.
        timed: whether it takes (T, N, ...) in single-step mode as well.
        neuron_types: classes that are neurons and not SpikingJelly's.
        slow: whether it is too large for the fast tests.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 8, 8)
    modes: str = "sm"
    keep: tuple[str, ...] = ("fc",)
    timed: bool = False
    neuron_types: tuple[type[nn.Module], ...] = ()
    slow: bool = False

    def model(self, mode: str, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        model = self.build()
        if mode == "m" and "s" in self.modes:
            functional.set_step_mode(model, "m")
        return lively_(model, seed).eval()

    def example(self, mode: str, samples: int = SAMPLES, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        steps = (STEPS,) if mode == "m" or self.timed else ()
        return torch.rand(*steps, samples, *self.shape, generator=generator) * 2


@torch.no_grad()
def lively_(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights, norms and thresholds, such that neurons fire and rest, and no two channels are alike."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            fan = module.weight[0].numel()
            module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * (2 / fan) ** 0.5)
            if module.bias is not None:
                module.bias.copy_(torch.rand(module.bias.shape, generator=generator) * 0.5)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            shape = module.weight.shape
            module.weight.copy_(torch.rand(shape, generator=generator) + 0.7)
            module.running_mean.copy_(torch.randn(shape, generator=generator) * 0.2)
            module.running_var.copy_(torch.rand(shape, generator=generator) * 0.5 + 0.3)
            module.num_batches_tracked.zero_()
            if module.bias is not None:
                module.bias.copy_(torch.rand(shape, generator=generator) * 0.8)
        elif isinstance(module, neuron.PSN | neuron.MaskedPSN):
            module.weight.copy_(torch.rand(module.weight.shape, generator=generator))
            module.bias.fill_(-0.4)
    return model


def lif(**options: object) -> neuron.LIFNode:
    return neuron.LIFNode(**{"v_threshold": 0.5, "detach_reset": True, **options})


class Gap(nn.Module):
    """Convolutions, norms and neurons, pooled over sites."""

    def __init__(
        self,
        spiking: Callable[[int], nn.Module] = lambda channels: lif(),
        norm: Callable[[int], nn.Module] = layer.BatchNorm2d,
        widths: Sequence[int] = (8, 12),
        second: Callable[[int, int], nn.Module] = lambda a, b: layer.Conv2d(a, b, 3, padding=1, bias=False),
    ) -> None:
        super().__init__()
        a, b = widths
        self.conv1 = layer.Conv2d(3, a, 3, padding=1)
        self.norm1, self.spikes1 = norm(a), spiking(a)
        self.conv2 = second(a, b)
        self.norm2, self.spikes2 = norm(b), spiking(b)
        self.pool = layer.AdaptiveAvgPool2d(1)
        self.flatten = layer.Flatten()
        self.fc = layer.Linear(b, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.spikes1(self.norm1(self.conv1(x)))
        x = self.spikes2(self.norm2(self.conv2(x)))
        return self.fc(self.flatten(self.pool(x)))


def multi_step(model: nn.Module) -> nn.Module:
    functional.set_step_mode(model, "m")
    return model


def conv_flatten(spiking: Callable[[], nn.Module] = lif, classes: int = CLASSES) -> nn.Sequential:
    return nn.Sequential(
        layer.Conv2d(3, 8, 3, padding=1),
        spiking(),
        layer.MaxPool2d(2),
        layer.Conv2d(8, 6, 3, padding=1, bias=False),
        layer.BatchNorm2d(6),
        spiking(),
        layer.AvgPool2d(2),
        layer.Flatten(),
        layer.Linear(24, 10),
        spiking(),
        layer.Linear(10, classes),
    )


def voting() -> nn.Sequential:
    return nn.Sequential(*conv_flatten(classes=3 * CLASSES), lif(), layer.VotingLayer(3))


class Narrow:
    """A residual network of the zoo with an eighth of its channels behind the first convolution."""

    def _make_layer(self, block: type, planes: int, *args: object, **options: object) -> nn.Module:
        return super()._make_layer(block, planes // 8, *args, **options)  # type: ignore[misc]


class NarrowSew(Narrow, sew_resnet.SEWResNet):
    pass


class NarrowSpiking(Narrow, spiking_resnet.SpikingResNet):
    pass


def residual(parent: type, block: type, layers: Sequence[int], **options: object) -> nn.Module:
    with torch.device("meta"):
        model = parent(block, layers, spiking_neuron=neuron.IFNode, v_threshold=0.5, **options)
        model.fc = layer.Linear(64 * block.expansion, CLASSES)
    return model.to_empty(device="cpu")


def vgg11() -> nn.Module:
    """spiking_vgg11_bn with an eighth of its channels, and a classifier as small."""
    narrow = [each if each == "M" else each // 8 for each in spiking_vgg.cfgs["A"]]
    with torch.device("meta"):
        model = spiking_vgg.SpikingVGG(narrow, True, spiking_neuron=neuron.IFNode, init_weights=False, v_threshold=0.3)
        linear = (layer.Linear(64 * 49, 24), layer.Linear(24, 16), layer.Linear(16, CLASSES))
        model.classifier[0], model.classifier[3], model.classifier[6] = linear
    return model.to_empty(device="cpu")


def parametric(net: type, node: Callable[..., nn.Module]) -> Callable[[], nn.Module]:
    return lambda: net(channels=6, spiking_neuron=node, v_threshold=0.3)


class FlattensTime(nn.Module):
    """Torch's own layers between neurons in multi-step mode: time and batch are merged by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.spikes1, self.spikes2 = lif(step_mode="m"), lif(step_mode="m")
        self.fc = nn.Linear(6 * 16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.shape[0]
        x = self.norm1(self.conv1(x.flatten(0, 1)))
        x = self.spikes1(x.unflatten(0, (steps, -1))).flatten(0, 1)
        x = self.norm2(self.conv2(nn.functional.max_pool2d(x, 2)))
        x = self.spikes2(x.view(steps, -1, *x.shape[1:])).flatten(0, 1)
        return self.fc(x.flatten(1)).view(steps, -1, CLASSES)


class Concat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.spikes = layer.Conv2d(3, 8, 3, padding=1), layer.BatchNorm2d(8), lif()
        self.left, self.right = layer.Conv2d(8, 6, 3, padding=1), layer.Conv2d(8, 10, 1)
        self.spikes_left, self.spikes_right = lif(), lif()
        self.merge, self.spikes_merged = layer.Conv2d(16, 8, 3, padding=1), lif()
        self.pool, self.flatten, self.fc = layer.AvgPool2d(4), layer.Flatten(), layer.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.spikes(self.norm(self.stem(x)))
        x = torch.cat([self.spikes_left(self.left(x)), self.spikes_right(self.right(x))], dim=-3)
        return self.fc(self.flatten(self.pool(self.spikes_merged(self.merge(x)))))


class Scaled(Gap):
    """A parameter of its own, which belongs to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.8, 1.2, 8).view(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.spikes1(self.norm1(self.conv1(x)) * self.scale)
        x = self.spikes2(self.norm2(self.conv2(x)))
        return self.fc(self.flatten(self.pool(x)))


class Loop(nn.Module):
    """A network of single steps that runs through time by itself."""

    def __init__(self, gather: str, resets: bool = False) -> None:
        super().__init__()
        self.net = Gap()
        self.gather, self.resets = gather, resets

    def forward(self, x: Tensor) -> Tensor:
        if self.resets:
            functional.reset_net(self)
        if self.gather == "stack":
            return torch.stack([self.net(step) for step in x])
        out = self.net(x[0])
        for step in x[1:]:
            out = out + self.net(step)
        return out / len(x)


class DirectlyCoded(nn.Module):
    """Takes pictures without a time axis, and shows them over and over."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Gap()

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        return torch.stack([self.net(x) for _ in range(STEPS)]).mean(0)


class ChannelNeuron(neuron.SimpleBaseNode):
    """A threshold and a time constant for each channel, held in the way that is asked for."""

    def __init__(self, channels: int, shape: Sequence[int], kind: str, tau: bool = False) -> None:
        super().__init__(v_threshold=1.0, v_reset=0.0)
        threshold = torch.linspace(0.3, 0.9, channels).view(*shape)
        if kind == "buffer":
            self.register_buffer("threshold", threshold)
        else:
            self.threshold = nn.Parameter(threshold) if kind == "parameter" else threshold
        self.tau = nn.Parameter(torch.linspace(-1, 1, channels).view(1, channels, 1, 1)) if tau else None

    def neuronal_charge(self, x: Tensor) -> None:
        decay = 0.5 if self.tau is None else self.tau.sigmoid()
        self.v = self.v * decay + x

    def neuronal_fire(self) -> Tensor:
        return self.surrogate_function(self.v - self.threshold.view(-1, 1, 1))


class OverTime(base.MemoryModule):
    """A neuron of one's own with a threshold for each step and one for each channel, which may be as many."""

    def __init__(self, channels: int, steps: int = STEPS, step_mode: str = "s") -> None:
        super().__init__()
        self.step_mode = step_mode
        self.by_step = nn.Parameter(torch.linspace(0.1, 0.4, steps))
        self.by_channel = nn.Parameter(torch.linspace(0.1, 0.6, channels))
        self.register_memory("t", 0)
        self.surrogate = neuron.IFNode().surrogate_function

    def single_step_forward(self, x: Tensor) -> Tensor:
        # indexed by a one-hot vector, so that the vector has to have as many entries as there are steps
        at = nn.functional.one_hot(torch.tensor(self.t), self.by_step.numel()).to(x.dtype)
        self.t += 1
        return self.surrogate(x - self.by_channel.view(-1, *[1] * (x.dim() - 2)) - self.by_step @ at)

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        return self.surrogate(
            x_seq - self.by_channel.view(-1, *[1] * (x_seq.dim() - 3)) - self.by_step.view(-1, *[1] * (x_seq.dim() - 1))
        )


def grouped(a: int, b: int) -> nn.Module:
    return layer.Conv2d(a, b, 3, padding=1, groups=2, bias=False)


def depthwise(a: int, b: int) -> nn.Module:
    return nn.Sequential(layer.Conv2d(a, a, 3, padding=1, groups=a, bias=False), layer.Conv2d(a, b, 1))


def linear_only() -> nn.Sequential:
    return nn.Sequential(
        layer.Linear(20, 16), layer.BatchNorm1d(16), lif(), layer.Linear(16, 12), lif(), layer.Linear(12, CLASSES)
    )


def spikformer_tiny() -> nn.Module:
    return spikformer.Spikformer(
        T=STEPS,
        img_size_h=16,
        img_size_w=16,
        patch_size=4,
        num_classes=CLASSES,
        embed_dims=32,
        num_heads=2,
        depths=1,
        spiking_neuron=neuron.LIFNode,
        v_threshold=0.3,
    )


def seq_to_ann() -> nn.Sequential:
    return nn.Sequential(
        layer.SeqToANNContainer(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)),
        lif(step_mode="m"),
        layer.SeqToANNContainer(nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6), nn.MaxPool2d(2)),
        lif(step_mode="m"),
        layer.SeqToANNContainer(nn.Flatten(), nn.Linear(96, 10)),
        lif(step_mode="m"),
        layer.SeqToANNContainer(nn.Linear(10, CLASSES)),
    )


def multi_step_containers() -> nn.Sequential:
    return nn.Sequential(
        layer.MultiStepContainer(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), lif()),
        layer.MultiStepContainer(nn.Conv2d(8, 6, 3, padding=1), lif(), nn.MaxPool2d(2), nn.Flatten()),
        layer.MultiStepContainer(nn.Linear(96, CLASSES)),
    )


def through_time() -> nn.Module:
    return Gap(norm=lambda channels: layer.BatchNormThroughTime2d(STEPS, channels))


def recurrent(wrap: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
    inner = nn.Sequential(nn.Linear(12, 12), neuron.IFNode(v_threshold=0.3))
    return nn.Sequential(layer.Linear(20, 12), lif(), wrap(inner), layer.Linear(12, CLASSES))


BOTTLENECK = sew_resnet.Bottleneck
FAMILIES: dict[str, Family] = {
    "conv_gap": Family(Gap),
    "conv_flatten": Family(conv_flatten, keep=("10",)),
    "spiking_vgg11_bn": Family(vgg11, (3, 32, 32), keep=("classifier.6",)),
    "sew_resnet18_add": Family(
        lambda: residual(NarrowSew, sew_resnet.BasicBlock, (2, 2, 2, 2), cnf="ADD"), (3, 32, 32)
    ),
    "sew_resnet18_iand": Family(
        lambda: residual(NarrowSew, sew_resnet.BasicBlock, (2, 2, 2, 2), cnf="IAND"), (3, 32, 32)
    ),
    "sew_resnet50": Family(lambda: residual(NarrowSew, BOTTLENECK, (3, 4, 6, 3), cnf="ADD"), (3, 32, 32), slow=True),
    "spiking_resnet18": Family(lambda: residual(NarrowSpiking, spiking_resnet.BasicBlock, (2, 2, 2, 2)), (3, 32, 32)),
    "dvs_gesture_net_lif": Family(
        parametric(parametric_lif_net.DVSGestureNet, neuron.LIFNode), (2, 128, 128), keep=("conv_fc.25",), slow=True
    ),
    "dvs_gesture_net_plif": Family(
        parametric(parametric_lif_net.DVSGestureNet, neuron.ParametricLIFNode), (2, 128, 128), keep=("conv_fc.25",)
    ),
    "cifar10_net_lif": Family(
        parametric(parametric_lif_net.CIFAR10Net, neuron.LIFNode), (3, 32, 32), keep=("conv_fc.25",), slow=True
    ),
    "cifar10_net_plif": Family(
        parametric(parametric_lif_net.CIFAR10Net, neuron.ParametricLIFNode), (3, 32, 32), keep=("conv_fc.25",)
    ),
    "tdbn": Family(lambda: multi_step(Gap(norm=lambda c: layer.ThresholdDependentBatchNorm2d(1.0, 0.5, c))), modes="m"),
    "tebn": Family(lambda: multi_step(Gap(norm=lambda c: layer.TemporalEffectiveBatchNorm2d(STEPS, c))), modes="m"),
    "tebn_as_many_channels_as_steps": Family(
        lambda: multi_step(Gap(norm=lambda c: layer.TemporalEffectiveBatchNorm2d(STEPS, c), widths=(STEPS, STEPS))),
        modes="m",
    ),
    "seq_to_ann_container": Family(seq_to_ann, modes="m", keep=("6.0",)),
    "multi_step_container": Family(multi_step_containers, modes="m", keep=("2.0",)),
    "flatten_time_and_batch": Family(FlattensTime, modes="m"),
    "voting_layer": Family(voting, keep=("10",)),
    "concat": Family(Concat),
    "if": Family(lambda: Gap(lambda _: neuron.IFNode(v_threshold=0.5))),
    "klif": Family(lambda: Gap(lambda _: neuron.KLIFNode(v_threshold=0.5))),
    "plif": Family(lambda: Gap(lambda _: neuron.ParametricLIFNode(v_threshold=0.5))),
    "psn": Family(lambda: multi_step(Gap(lambda _: neuron.PSN(STEPS))), modes="m"),
    "psn_as_many_channels_as_steps": Family(
        lambda: multi_step(Gap(lambda _: neuron.PSN(STEPS), widths=(STEPS, STEPS))), modes="m"
    ),
    "masked_psn": Family(lambda: multi_step(Gap(lambda _: neuron.MaskedPSN(2, STEPS))), modes="m"),
    "sliding_psn": Family(lambda: Gap(lambda _: neuron.SlidingPSN(2))),
    "sliding_psn_as_many_channels_as_taps": Family(lambda: Gap(lambda _: neuron.SlidingPSN(4), widths=(4, 4))),
    "threshold_parameter_c": Family(lambda: Gap(lambda c: ChannelNeuron(c, (c,), "parameter"))),
    "threshold_parameter_c11": Family(lambda: Gap(lambda c: ChannelNeuron(c, (c, 1, 1), "parameter"))),
    "threshold_buffer": Family(lambda: Gap(lambda c: ChannelNeuron(c, (c, 1, 1), "buffer"))),
    "threshold_attribute": Family(lambda: Gap(lambda c: ChannelNeuron(c, (c, 1, 1), "attribute"))),
    "norm_in_neuron": Family(lambda: Gap(lambda c: neuron.MPBNLIFNode(v_threshold=0.5, out_channels=c))),
    "threshold_and_tau": Family(lambda: Gap(lambda c: ChannelNeuron(c, (c, 1, 1), "parameter", tau=True))),
    "own_neuron": Family(lambda: Gap(lambda c: OverTime(c)), neuron_types=(OverTime,)),
    "own_neuron_as_many_channels_as_steps": Family(
        lambda: multi_step(Gap(lambda c: OverTime(c), widths=(STEPS, STEPS))), modes="m", neuron_types=(OverTime,)
    ),
    "own_scale": Family(Scaled),
    "loop_and_stack": Family(lambda: Loop("stack"), modes="s", keep=("net.fc",), timed=True),
    "loop_and_sum": Family(lambda: Loop("sum"), modes="s", keep=("net.fc",), timed=True),
    "loop_that_resets": Family(lambda: Loop("sum", resets=True), modes="s", keep=("net.fc",), timed=True),
    "directly_coded": Family(DirectlyCoded, modes="s", keep=("net.fc",)),
    "grouped": Family(lambda: Gap(second=grouped)),
    "depthwise": Family(lambda: Gap(second=depthwise)),
    "linear_only": Family(linear_only, (20,), keep=("5",)),
    "spikformer": Family(spikformer_tiny, (3, 16, 16), modes="m", keep=("head", "blocks.0.attn.qkv_conv_bn.0")),
}
REFUSED: dict[str, Family] = {
    "through_time_norm": Family(through_time),
    "linear_recurrent": Family(
        lambda: recurrent(lambda inner: layer.LinearRecurrentContainer(inner, 12, 12)), (20,), keep=("3",)
    ),
    "element_wise_recurrent": Family(
        lambda: recurrent(lambda inner: layer.ElementWiseRecurrentContainer(inner, torch.add)), (20,), keep=("3",)
    ),
    "spikformer_qkv": Family(spikformer_tiny, (3, 16, 16), modes="m", keep=("head",)),
    "classifier": Family(Gap, keep=()),
}
