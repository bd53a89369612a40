"""Counting spikes while a model runs."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from snnsl_plugin.anatomy import LAYERS, channel_axis_of, neurons, weight_layers
from snnsl_plugin.core.spikes import spikes_per_channel
from snnsl_plugin.errors import MissingStatistic, NothingMatched
from snnsl_plugin.training.pooling import Sums


class SpikeRecorder:
    """Counts, per channel, the non-zero inputs of layers and the spikes of neurons.

    Works in step modes 's' ([N, C, ...] a call) and 'm' ([T, N, C, ...] a call), because the channel axis is counted
    from the end: -3 for a 2d convolution, -1 for a linear layer. Hooks exist only inside the `with` block.

    Args:
        model: any model; its convolutions and linear layers, and its spiking neurons, are recorded.
        layers: dotted module names whose inputs are counted; all of them where omitted, none for an empty list.
        neuron_types: classes of one's own to count as neurons.
        outputs: whether spikes of neurons are counted too.
        training_only: whether passes in eval mode, such as a validation, go by uncounted.

    Raises:
        NothingMatched: a name that is not a layer of the model; or there is nothing to record.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> with SpikeRecorder(model) as recorder:
        ...     _ = model(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        >>> recorder.input_rates()["0"].tolist()
        [1.0, 0.5]
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        layers: Sequence[str] | None = None,
        neuron_types: tuple[type[nn.Module], ...] = (),
        outputs: bool = True,
        training_only: bool = False,
    ) -> None:
        known = weight_layers(model)
        chosen = list(known) if layers is None else list(layers)
        if unknown := [name for name in chosen if name not in known]:
            raise NothingMatched(f"{unknown} are not layers of the model (layers: {', '.join(known)})")
        self._layers = {name: known[name] for name in chosen}
        self._neurons = neurons(model, neuron_types) if outputs else {}
        if not self._layers and not self._neurons:
            raise NothingMatched("nothing to record: the model has no convolution, linear layer or spiking neuron")
        self._training_only = training_only
        self._own = {*self._layers.values(), *self._neurons.values()}
        self._sums = Sums(self._device)
        self._handles: list[RemovableHandle] = []
        #: set to False to let forward passes go by uncounted
        self.recording = True

    def __enter__(self) -> SpikeRecorder:
        if self._handles:
            raise MissingStatistic("this recorder is already recording: leave its `with` block first")
        for name, layer in self._layers.items():
            self._handles.append(layer.register_forward_pre_hook(self._input_hook(name)))
        for name, module in self._neurons.items():
            self._handles.append(module.register_forward_hook(self._output_hook(name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def clear(self) -> None:
        """Starts counting anew."""
        self._sums.clear()

    def input_counts(self, layer: str) -> tuple[Tensor, float]:
        """Non-zero inputs per channel of a layer, shape (C,), float64, and the slots each channel had; over all ranks.

        Raises:
            MissingStatistic: no forward pass was recorded.
        """
        counts = self.all_input_counts()
        if layer not in counts:
            raise MissingStatistic(
                f"no input of {layer!r} was recorded: run the model inside the recorder's with block"
            )
        return counts[layer]

    def all_input_counts(self) -> dict[str, tuple[Tensor, float]]:
        """`input_counts` of every layer of which a forward pass was recorded, on whichever rank."""
        return {key.removeprefix("input/"): counts for key, counts in self._sums.all("input/").items()}

    def all_output_counts(self) -> dict[str, tuple[Tensor, float]]:
        """Spikes per channel of every neuron layer that has run, shape (C,), float64, and the slots of each channel."""
        return {key.removeprefix("output/"): counts for key, counts in self._sums.all("output/").items()}

    def input_rates(self) -> dict[str, Tensor]:
        """Fraction of non-zero inputs per channel of each recorded layer: shape (C,), in [0, 1]."""
        return self._rates("input/")

    def output_rates(self) -> dict[str, Tensor]:
        """Firing rate per channel of each neuron layer, per step: shape (C,), in [0, 1].

        The channel of a neuron layer is the axis behind the batch.
        """
        return self._rates("output/")

    def state_dict(self) -> dict[str, Tensor | float]:
        """The counts so far, over all ranks: plain tensors and numbers."""
        return self._sums.state_dict()

    def load_state_dict(self, state: dict[str, Tensor | float]) -> None:
        """Goes on from the counts of `state_dict`, however many ranks made them."""
        self._sums.load_state_dict(state)

    def _rates(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): counts / slots for key, (counts, slots) in self._sums.all(prefix).items()}

    def _device(self) -> torch.device:
        modules = (*self._layers.values(), *self._neurons.values())
        return next((each.device for module in modules for each in module.parameters()), torch.device("cpu"))

    def _input_hook(self, name: str):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            if self._counts_now(module):
                self._add(f"input/{name}", args[0], channel_axis(module))

        return hook

    def _output_hook(self, name: str):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if self._counts_now(module):
                spikes = output[0] if isinstance(output, tuple) else output
                self._add(f"output/{name}", spikes, channel_axis_of(module, spikes.dim()))

        return hook

    def _counts_now(self, module: nn.Module) -> bool:
        # A deep copy of the model carries the hooks along; what the copy does is not what the model does.
        own = module in self._own
        return own and self.recording and (module.training or not self._training_only)

    def _add(self, key: str, x: Tensor, axis: int) -> None:
        counts, slots = spikes_per_channel(x, axis)
        self._sums.add(key, counts, slots)


def channel_axis(layer: nn.Module) -> int:
    """A layer's channel axis, counted from the end: -1 for linear layers, -2, -3, -4 for 1d to 3d convolutions."""
    for sites, kind in enumerate(LAYERS[:3], start=1):
        if isinstance(layer, kind):
            return -1 - sites
    return -1
