"""SpikingJelly's usual neurons in operations of PyTorch alone: a program with them runs without SpikingJelly."""

from __future__ import annotations

from typing import Any

import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn


def plain_(model: nn.Module) -> nn.Module:
    """Makes the neurons of a model compute what they compute by operations of PyTorch, in place; for inference only.

    SpikingJelly 2 computes its neurons by operators of its own (`sj_lif::forward`), which `torch.export` writes down by
    name: a process that has not imported SpikingJelly cannot load that. The formulas are those of SpikingJelly's CPU
    operators, in their order, so the spikes are the same. LIFNode, IFNode and ParametricLIFNode are replaced; what is
    derived from them, other neurons, and neurons of reduced precision stay as they are.

    Args:
        model: a copy that nobody trains.

    Returns:
        The model.
    """
    for module in model.modules():
        kind = _PLAIN.get(type(module))
        if kind is not None and getattr(module, "_neuron_precision", None) is None:
            module.__class__ = kind
    return model


class _InSteps:
    """The loop over time, one step of which the classes below know; SpikingJelly keeps and resets the state."""

    def _charge(self, v: Tensor, x: Tensor) -> Tensor:
        raise NotImplementedError

    def single_step_functional_forward(
        self: Any, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **_: object
    ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        h = self._charge(states[0], inputs[0].float())
        spike = (h >= self.v_threshold).to(torch.float32)
        v = h - spike * self.v_threshold if self.v_reset is None else spike * self.v_reset + (1 - spike) * h
        return (spike.to(inputs[0].dtype),), (v, *states[1:])

    def multi_step_functional_forward(
        self: Any, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **_: object
    ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        spikes = []
        for x in inputs[0]:
            (spike,), states = self.single_step_functional_forward((x,), states)
            spikes.append(spike)
        return (torch.stack(spikes),), states


class _Integrating(_InSteps, neuron.IFNode):  # type: ignore[misc]
    def _charge(self, v: Tensor, x: Tensor) -> Tensor:
        return v + x


class _Leaking(_InSteps, neuron.LIFNode):  # type: ignore[misc]
    def _charge(self, v: Tensor, x: Tensor) -> Tensor:
        above = v - (self.v_reset or 0.0)
        charged: Tensor = v + (x - above) / self.tau if self.decay_input else v - above / self.tau + x
        return charged


class _LeakingAsLearned(_InSteps, neuron.ParametricLIFNode):  # type: ignore[misc]
    def _charge(self, v: Tensor, x: Tensor) -> Tensor:
        share, above = self.w.float().sigmoid(), v - (self.v_reset or 0.0)
        charged: Tensor = v + (x - above) * share if self.decay_input else v - above * share + x
        return charged


_PLAIN: dict[type[nn.Module], type[nn.Module]] = {
    neuron.IFNode: _Integrating,
    neuron.LIFNode: _Leaking,
    neuron.ParametricLIFNode: _LeakingAsLearned,
}
