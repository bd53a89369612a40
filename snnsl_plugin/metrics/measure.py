"""One pass over a loader that measures accuracy, operations, energy and firing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnsl_plugin.anatomy import reset_, weight_name
from snnsl_plugin.core.spikes import silent
from snnsl_plugin.errors import BadOption, Diverged
from snnsl_plugin.metrics.energy import energy_pj
from snnsl_plugin.metrics.layers import connection_masks, evaluating, firing_neurons, synaptic_layers
from snnsl_plugin.metrics.synops import SynapseCounter


@dataclass(frozen=True)
class Measurement:
    """What one pass measured; `metrics.definitions` says each in a sentence.

    Attributes:
        accuracy: of the argmax of the time-mean logits, in [0, 1].
        loss: mean cross-entropy of the time-mean logits, in nats.
        samples: how many were seen.
        synops_per_sample: kept non-zero synapses driven by binary inputs, over all steps; None if not counted.
        macs_per_sample: the same for layers and batches whose inputs are not all 0 or 1; None if not counted.
        energy_pj_per_sample: the parts of `metrics.energy.energy_pj`; empty if not counted.
        firing_rate: per neuron layer, the share of neurons that fire in a step, in [0, 1].
        silent: per neuron layer, the share of neurons (every channel and site) that never fired, in [0, 1].
        input_rate: per convolution or linear layer, the share of its inputs that are not zero; empty if not counted.
    """

    accuracy: float
    loss: float
    samples: int
    synops_per_sample: float | None
    macs_per_sample: float | None
    energy_pj_per_sample: dict[str, float]
    firing_rate: dict[str, float]
    silent: dict[str, float]
    input_rate: dict[str, float]


def measure(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    masks: Mapping[str, Tensor] | None = None,
    synops: bool = True,
    neurons: Sequence[type[nn.Module]] = (),
) -> Measurement:
    """Runs the model over all batches in eval mode, without gradients, with neuron states reset before each batch.

    Afterwards training flags are as before, no hook is left, and the states are reset. Operations of a batch count as
    accumulates (SynOps) where that batch's inputs to the layer are all 0 or 1, otherwise as multiply-accumulates;
    NeuroBench draws the same line. The energy model's input layer is the first one that the forward pass calls.

    Args:
        model: from (T, N, ...) to logits per step (T, N, K).
        batches: pairs of x (T, N, ...) and labels y (N,), moved to the model's device.
        masks: bool, keyed by unwrapped dotted parameter name; a layer without one keeps all. Zero weights never count.
        synops: whether operations, energy and input rates are counted.
        neurons: further classes that are spiking neurons.

    Raises:
        BadOption: there is no batch, or the model's output is not (T, N, K).
        Diverged: a logit is NaN or infinite.
        NothingMatched: the model has no synaptic layer, or a mask belongs to none.
    """
    tally = _Tally(model, masks, synops, neurons)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with torch.no_grad(), evaluating(model), tally.watching(model):
        try:
            for x, y in batches:
                reset_(model)
                tally.start_batch(x.shape[0])
                tally.judge(model(x.to(device)), y.to(device))
        finally:
            reset_(model)
    return tally.result()


@dataclass(frozen=True)
class Operations:
    """What one pass without labels measured.

    Attributes:
        samples: how many were seen.
        synops: per sample, over all steps.
        energy_pj: the parts of `metrics.energy.energy_pj`, per sample.
    """

    samples: int
    synops: float
    energy_pj: dict[str, float]


def operations(model: nn.Module, inputs: Iterable[Tensor], *, masks: Mapping[str, Tensor] | None = None) -> Operations:
    """SynOps and energy as `measure` counts them, of a model whose answers nobody judges.

    Args:
        model: takes (T, N, ...); afterwards its states are reset and its modes as before.
        inputs: batches (T, N, ...), moved to the model's device.
        masks: as for `measure`.

    Raises:
        BadOption: there is no batch.
        NothingMatched: the model has no synaptic layer, or a mask belongs to none.
    """
    tally = _Tally(model, masks, True, ())
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with torch.no_grad(), evaluating(model), tally.watching(model):
        try:
            for x in inputs:
                reset_(model)
                tally.start_batch(x.shape[0])
                model(x.to(device))
                tally.samples += x.shape[1]
        finally:
            reset_(model)
    found = tally.result()
    return Operations(found.samples, found.synops_per_sample or 0.0, found.energy_pj_per_sample)


class _Tally:
    """Sums over batches; its methods are called by hooks while the model runs."""

    def __init__(
        self, model: nn.Module, masks: Mapping[str, Tensor] | None, synops: bool, neurons: Sequence[type[nn.Module]]
    ) -> None:
        self.samples = 0
        self.correct = 0
        self.loss = 0.0
        self.steps = 1
        self.neuron_updates = 0
        self.input_macs = 0
        self.input_macs_once = 0.0
        self.input_layer: str | None = None
        kept = connection_masks(model, masks) if synops else {}
        layers = synaptic_layers(model) if synops else {}
        self.counters = {
            name: SynapseCounter(layer, kept[weight_name(name)] & (layer.weight.detach() != 0))
            for name, layer in layers.items()
        }
        self.inputs = {name: [0, 0] for name in layers}
        self.neurons = firing_neurons(model, neurons)
        self.fired: dict[str, dict[torch.Size, Tensor]] = {name: {} for name in self.neurons}
        self.slots = dict.fromkeys(self.neurons, 0)

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Hooks on every counted layer, gone afterwards, also when the body raises."""
        handles = []
        try:
            for name, module in model.named_modules():
                if name in self.counters:
                    handles.append(module.register_forward_pre_hook(self._count(name)))
                if name in self.neurons:
                    handles.append(module.register_forward_hook(self._listen(name)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _count(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            x = arguments[0]
            self.input_layer = self.input_layer or name
            macs = self.counters[name].add(x)[1]
            if name == self.input_layer:
                self.input_macs += macs
                self.input_macs_once += macs / self.steps
            self.inputs[name][0] += int(torch.count_nonzero(x))
            self.inputs[name][1] += x.numel()

        return hook

    def _listen(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, _: tuple[Any, ...], out: Any) -> None:
            spikes: Tensor = out[0] if isinstance(out, tuple | list) else out
            leading = 2 if getattr(module, "step_mode", "s") == "m" else 1
            shape = spikes.shape[leading:]
            fired = torch.count_nonzero(spikes.reshape(-1, *shape), dim=0)
            before = self.fired[name].get(shape)
            self.fired[name][shape] = fired if before is None else before + fired
            self.slots[name] += spikes.numel()
            self.neuron_updates += spikes.numel()

        return hook

    def start_batch(self, steps: int) -> None:
        self.steps = steps

    def judge(self, out: Tensor, y: Tensor) -> None:
        if not isinstance(out, Tensor) or out.dim() != 3 or out.shape[1] != y.shape[0]:
            shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise BadOption(f"the model returned {shape} for {y.shape[0]} samples; it must return logits (T, N, K)")
        logits = out.float().mean(0)
        if not bool(torch.isfinite(logits).all()):
            raise Diverged("a logit is NaN or infinite: the weights or the input are no longer finite")
        self.loss += float(F.cross_entropy(logits, y, reduction="sum"))
        self.correct += int((logits.argmax(1) == y).sum())
        self.samples += y.shape[0]

    def result(self) -> Measurement:
        if self.samples == 0:
            raise BadOption("nothing to measure: the loader gave no samples")
        n = self.samples
        acs = sum(counter.acs for counter in self.counters.values())
        macs = sum(counter.macs for counter in self.counters.values())
        energy = energy_pj(
            input_macs=self.input_macs / n,
            input_macs_once=self.input_macs_once / n,
            other_macs=(macs - self.input_macs) / n,
            acs=acs / n,
            neuron_updates=self.neuron_updates / n,
        )
        times_fired = {
            name: torch.cat([times.flatten() for times in shapes.values()])
            for name, shapes in self.fired.items()
            if shapes
        }
        return Measurement(
            accuracy=self.correct / n,
            loss=self.loss / n,
            samples=n,
            synops_per_sample=acs / n if self.counters else None,
            macs_per_sample=macs / n if self.counters else None,
            energy_pj_per_sample=energy if self.counters else {},
            firing_rate={name: int(times.sum()) / self.slots[name] for name, times in times_fired.items()},
            silent={name: silent(times) for name, times in times_fired.items()},
            input_rate={name: hits / total for name, (hits, total) in self.inputs.items() if total},
        )
