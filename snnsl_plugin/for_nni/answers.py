"""What a network says to a whole batch: the outputs that NNI's wrappers recorded, with the time axis in front."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from nni.compression.base.target_space import DistillationTargetSpace
from torch import Tensor, nn

from snnsl_plugin.anatomy import time_first
from snnsl_plugin.errors import BadOption, MissingStatistic

Predict = Callable[[Any, nn.Module], Any]


class Answering(nn.Module):
    """A network that is asked with a batch, as a guide asks it, and answers with one recorded output.

    Args:
        network: wrapped by NNI, which records outputs as they come.
        module: NNI's name of the module whose output is the answer.
        target: its target name, e.g. `_output_0`.
        predict: runs the network on a batch; where omitted, somebody has just done so.
        labels: gives a batch's labels, whose number tells samples from time steps.
    """

    def __init__(
        self, network: nn.Module, module: str, target: str, predict: Predict | None, labels: Callable[[Any], Any]
    ) -> None:
        super().__init__()
        self.network = network
        self._module, self._target, self._predict, self._labels = module, target, predict, labels

    def forward(self, batch: Any) -> Tensor:
        """The output, (T, N, ...)."""
        space = space_of(self.network, self._module, self._target)
        if self._predict is not None:
            space.clean()
            self._predict(batch, self.network)
        answer = recorded(space, self.network, samples(self._labels(batch)))
        space.clean()
        return answer


def space_of(network: nn.Module, module: str, target: str) -> DistillationTargetSpace:
    """The target that records an output of a wrapped network, or of its deep copy."""
    wrapper: Any = network.get_submodule(module)._nni_wrapper
    return wrapper.distillation_target_spaces[target]


def recorded(space: DistillationTargetSpace, network: nn.Module, count: int | None, *, trained: bool = False) -> Tensor:
    """What was recorded since the last `clean()`, as (T, N, ...).

    A module that was called T times has a tensor a step. One that was called once has them all, (T, N, ...) or, inside
    a SeqToANNContainer, (T N, ...); without a time axis T is 1.

    Args:
        space: in buffer mode `append`.
        network: its neurons tell whether time comes first.
        count: samples of the batch; None where it is unknown.
        trained: only outputs that carry a gradient, so that a validation in between leaves no trace.

    Raises:
        MissingStatistic: nothing was recorded.
        BadOption: an output whose first axes are neither steps nor samples.
    """
    states = [state for state in space.hidden_states if state.requires_grad or not trained]
    if not states:
        raise MissingStatistic(
            f"module {space._wrapper.name!r} gave no output in this training step: let the step run the model, or name "
            "another module in the config list"
        )
    if len(states) > 1:
        return torch.stack(states)
    (output,) = states
    timed = time_first(network)
    if count is None:
        return output if timed and output.dim() > 2 else output.unsqueeze(0)
    if timed and output.dim() > 2 and output.shape[1] == count:
        return output
    if output.shape[0] % count:
        raise BadOption(
            f"module {space._wrapper.name!r} gave an output of shape {tuple(output.shape)} for {count} samples: name a "
            "module whose output is (T, N, ...) or (N, ...)"
        )
    return output.reshape(-1, count, *output.shape[1:])


def labels_of(batch: Any) -> Tensor | None:
    """The labels of a batch as most loaders give it: the second of a pair, or `labels`, `label`, `target` of a mapping.

    >>> labels_of((torch.zeros(2, 3), torch.tensor([0, 1])))
    tensor([0, 1])
    """
    found: Any = None
    if isinstance(batch, Mapping):
        found = next((batch[key] for key in ("labels", "label", "target", "targets") if key in batch), None)
    elif isinstance(batch, Sequence) and len(batch) > 1:
        found = batch[1]
    return found if isinstance(found, Tensor) else None


def samples(labels: Tensor | None) -> int | None:
    """How many samples a batch has, where its labels are known."""
    return None if labels is None else len(labels)
