"""How often every channel fires, recorded before channels are chosen, and kept beside the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import LAYERS, as_found, neurons, reset_, unwrapped, weight_layers
from snnsl_plugin.compaction.tracing import Forward
from snnsl_plugin.errors import Diverged, MissingStatistic
from snnsl_plugin.training.affine import NORMS
from snnsl_plugin.training.recorder import SpikeRecorder


@dataclass(frozen=True)
class Calibration:
    """What a calibration has seen; importances find it by themselves.

    Attributes:
        inputs: by layer name, the share of inputs of each channel that are not zero, shape (in,), in [0, 1].
        outputs: by neuron name, the firing rate of each channel per step, shape (C,), in [0, 1].
        batches: how many there were.
        loss: the mean over batches, or None where no loss was asked for.
    """

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    batches: int
    loss: float | None


@dataclass(frozen=True)
class Spikes:
    """Counts of one layer's inputs or of one neuron layer's outputs.

    Attributes:
        counts: not zero, per channel, shape (C,), float64.
        ones: exactly one, the same.
        slots: how many numbers each channel had: steps x samples x sites.
    """

    counts: Tensor
    ones: Tensor
    slots: float

    @property
    def rate(self) -> Tensor:
        """Share of non-zero entries per channel, shape (C,), in [0, 1]."""
        return self.counts / self.slots

    @property
    def saturated(self) -> Tensor:
        """Bool (C,): channels with one spike at every step, sample and site."""
        return self.ones == self.slots

    def without(self, channels: Sequence[int]) -> Spikes:
        """The channels that are left."""
        gone = set(channels)
        keep = [channel for channel in range(len(self.counts)) if channel not in gone]
        return replace(self, counts=self.counts[keep], ones=self.ones[keep])


@dataclass(frozen=True)
class Known:
    """All that is known about one module.

    Attributes:
        inputs: of a convolution or linear layer.
        outputs: of a neuron layer.
        gradients: by parameter name, the means over batches of the gradient and of its square.
    """

    inputs: Spikes | None = None
    outputs: Spikes | None = None
    gradients: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


# An importance of Torch-Pruning is made without a model and sees modules only, so what is known must be found by
# module. Attributes on foreign modules would be copied, saved and pruned by others; here they die with their module.
_KNOWN: WeakKeyDictionary[nn.Module, Known] = WeakKeyDictionary()


def calibrate(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    loss: Callable[[Any, Any], Tensor] | None = None,
    forward: Forward | None = None,
    batches: int | None = None,
    neuron_types: Sequence[type[nn.Module]] = (),
) -> Calibration:
    """Runs a model over batches and remembers how often each channel fires, for every later `SpikingImportance`.

    The model runs in eval mode, at rest before each batch. Afterwards train flags, memories and gradients are as they
    were. What is remembered belongs to these modules: a copy of the model needs a calibration of its own, another
    calibration replaces it, and it follows the cuts of this package's pruners, not those of others.

    Args:
        model: in either step mode, also one that loops over time by itself.
        loader: of batches: x, or (x, y, ...), where x is what the model takes, (T, N, ...) in multi-step mode. Tensors
            are moved to the model's device.
        loss: `loss(outputs, y)`, a scalar; with it the gradients of the weights, taken through the surrogate, are
            remembered too, for the criteria `taylor` and `fisher`.
        forward: how the model is called, where `model(x)` is not how.
        batches: how many to take at most; all where omitted.
        neuron_types: classes of one's own that are neurons.

    Returns:
        The rates by dotted module name.

    Raises:
        MissingStatistic: the loader has no batch, or no labels where there is a loss.
        Diverged: the loss is not finite.
        NothingMatched: the model has neither layers nor neurons.

    Example:
        >>> from spikingjelly.activation_based import neuron
        >>> model = nn.Sequential(nn.Linear(1, 2, bias=False), neuron.IFNode())
        >>> _ = nn.init.constant_(model[0].weight[1:], 0.0), nn.init.constant_(model[0].weight[:1], 2.0)
        >>> calibrate(model, [torch.ones(4, 1)]).outputs["1"].tolist()
        [1.0, 0.0]
    """
    inner = unwrapped(model)
    device = next((parameter.device for parameter in inner.parameters()), torch.device("cpu"))
    gradients = _Gradients(inner) if loss else None
    counting = _Counting(inner, neuron_types=tuple(neuron_types))
    seen = 0
    with as_found(inner), counting:
        inner.eval()
        for batch in loader:
            if seen == batches:
                break
            x, y = _parts(batch, device)
            reset_(inner)
            with torch.set_grad_enabled(loss is not None):
                outputs = (forward or _call)(model, x)
                if loss and gradients:
                    if y is None:
                        raise MissingStatistic("a loss needs labels: the loader has to give (x, y)")
                    gradients.add(loss(outputs, y))
            seen += 1
    if not seen:
        raise MissingStatistic("there is nothing to calibrate on: the loader gave no batch")
    return _remembered(inner, counting, gradients, seen, tuple(neuron_types))


def known(module: nn.Module) -> Known:
    """What the last calibration saw of a module; nothing where there was none."""
    return _KNOWN.get(module, Known())


def held(model: nn.Module) -> dict[nn.Module, Known]:
    """What is known of all modules of a model, to be put back by `put_back`."""
    return {module: _KNOWN[module] for module in model.modules() if module in _KNOWN}


def put_back(before: Mapping[nn.Module, Known]) -> None:
    """Undoes what `follow` did since `held`."""
    _KNOWN.update(before)


def follow(module: nn.Module, channels: Sequence[int], *, reads: bool) -> None:
    """Cuts what is known of a module together with its channels.

    Args:
        module: a neuron, or a layer that reads them.
        channels: that are gone.
        reads: whether they were the module's inputs; nothing is known of outputs of layers.
    """
    now = _KNOWN.get(module)
    if now is None:
        return
    if isinstance(module, LAYERS):
        if reads and now.inputs:
            _KNOWN[module] = replace(now, inputs=now.inputs.without(channels))
    elif now.outputs:
        _KNOWN[module] = replace(now, outputs=now.outputs.without(channels))


class _Counting(SpikeRecorder):
    """Also counts ones."""

    def _add(self, key: str, x: Tensor, axis: int) -> None:
        super()._add(key, x, axis)
        super()._add(f"ones/{key}", x == 1, axis)

    def spikes(self, key: str) -> Spikes | None:
        counted = self._sums.of(key)
        if counted is None:
            return None
        ones, slots = self._sums.of(f"ones/{key}") or counted
        return Spikes(counted[0].cpu(), ones.cpu(), slots)


class _Gradients:
    """Means of gradients and of their squares, without touching `.grad`."""

    def __init__(self, model: nn.Module) -> None:
        self._owned = [
            (module, word, parameter)
            for module in model.modules()
            if isinstance(module, (*LAYERS, *NORMS, nn.modules.conv._ConvNd))
            for word, parameter in module.named_parameters(recurse=False)
            if parameter.requires_grad
        ]
        self._sums = [(torch.zeros_like(p), torch.zeros_like(p)) for _, _, p in self._owned]
        self.losses: list[float] = []

    def add(self, loss: Tensor) -> None:
        self.losses.append(float(loss.detach()))
        if not torch.isfinite(loss.detach()).all():
            raise Diverged(
                f"the loss of calibration batch {len(self.losses)} is {self.losses[-1]}: no gradient is finite"
            )
        found = torch.autograd.grad(loss, [parameter for _, _, parameter in self._owned], allow_unused=True)
        for (total, squares), gradient in zip(self._sums, found, strict=True):
            if gradient is not None:
                total += gradient
                squares += gradient.square()

    def means(self) -> dict[nn.Module, dict[str, tuple[Tensor, Tensor]]]:
        found: dict[nn.Module, dict[str, tuple[Tensor, Tensor]]] = {}
        for (module, word, _), (total, squares) in zip(self._owned, self._sums, strict=True):
            found.setdefault(module, {})[word] = (total / len(self.losses), squares / len(self.losses))
        return found


def _remembered(
    model: nn.Module,
    counting: _Counting,
    gradients: _Gradients | None,
    batches: int,
    neuron_types: tuple[type[nn.Module], ...],
) -> Calibration:
    names = {module: name for name, module in model.named_modules()}
    inputs: dict[nn.Module, Spikes | None]
    inputs = {layer: counting.spikes(f"input/{name}") for name, layer in weight_layers(model).items()}
    outputs = {neuron: counting.spikes(f"output/{name}") for name, neuron in neurons(model, neuron_types).items()}
    means = gradients.means() if gradients else {}
    for module in {**inputs, **outputs, **means}:
        _KNOWN[module] = Known(inputs.get(module), outputs.get(module), means.get(module, {}))
    return Calibration(
        {names[layer]: spikes.rate for layer, spikes in inputs.items() if spikes},
        {names[neuron]: spikes.rate for neuron, spikes in outputs.items() if spikes},
        batches,
        sum(gradients.losses) / batches if gradients else None,
    )


def _parts(batch: Any, device: torch.device) -> tuple[Any, Any]:
    x, y = (batch[0], batch[1] if len(batch) > 1 else None) if isinstance(batch, tuple | list) else (batch, None)
    return tuple(part.to(device) if isinstance(part, Tensor) else part for part in (x, y))  # type: ignore[return-value]


def _call(model: nn.Module, x: Any) -> Any:
    return model(**x) if isinstance(x, dict) else model(x)
