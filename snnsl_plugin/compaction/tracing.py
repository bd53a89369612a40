"""A forward pass that Torch-Pruning's dependency graph can follow: stateless, with neurons that pass their input on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from snnsl_plugin.anatomy import neurons, reset_, shadow, time_first

#: `s`: one time step without a time axis; `m`: the code as it stands, for models that only run in multi-step mode.
How: TypeAlias = Literal["s", "m"]
Forward: TypeAlias = Callable[[nn.Module, Any], Any]


def forward_fn(
    how: How,
    seen: dict[nn.Module, int],
    *,
    user: Forward | None = None,
    neuron_types: Sequence[type[nn.Module]] = (),
) -> Forward:
    """A `forward_fn` for Torch-Pruning.

    A neuron in multi-step mode unbinds the time axis, which Torch-Pruning reads as a split of channels, and a potential
    left over from an earlier batch brings that batch's graph along. Neither is there in a single step from rest in
    which neurons hand on what they get.

    Args:
        how: in which mode the model runs.
        seen: filled with how many channels each neuron got.
        user: how the model is called; `model(x)`, `model(*x)` or `model(**x)` where omitted.
        neuron_types: classes of one's own that are neurons.

    Returns:
        A function from the model and its example input, (T, N, ...) for a model in multi-step mode, to its output. The
        model is left as it was, also where the pass fails.
    """

    def forward(model: nn.Module, example: Any) -> Any:
        timed = time_first(model)
        with traceable(model, how, seen, neuron_types=neuron_types):
            x = _first_step(example) if how == "s" and timed else example
            return (user or call)(model, x)

    return forward


@contextmanager
def traceable(
    model: nn.Module, how: How, seen: dict[nn.Module, int], *, neuron_types: Sequence[type[nn.Module]] = ()
) -> Iterator[None]:
    """The model at rest, its neurons element-wise; step modes, forwards and memories are as before afterwards.

    Args:
        model: any model.
        how: `s` also switches everything to single steps: containers over time run what they contain once.
        seen: filled with how many channels each neuron got.
        neuron_types: classes of one's own that are neurons.
    """
    with ExitStack() as stack:
        reset_(model)
        stack.callback(reset_, model)
        alone = neurons(model, tuple(neuron_types))
        for neuron in alone.values():
            axis = 2 if how == "m" and getattr(neuron, "step_mode", "s") == "m" else 1
            shadow(neuron, _passing_on(neuron, axis, seen), stack)
        if how == "s":
            for module in model.modules():
                _in_single_step(module, stack)
        yield


def call(model: nn.Module, x: Any) -> Any:
    """Runs a model on what Torch-Pruning takes as example inputs: a tensor, a sequence of arguments, or a mapping."""
    if isinstance(x, dict):
        return model(**x)
    if isinstance(x, tuple | list):
        return model(*x)
    return model(x)


def _passing_on(neuron: nn.Module, axis: int, seen: dict[nn.Module, int]) -> Callable[..., Tensor]:
    def forward(x: Tensor, *_: Any, **__: Any) -> Tensor:
        seen[neuron] = x.shape[axis] if x.dim() > axis else x.shape[-1]
        return x * 1.0  # a node of its own in the graph

    return forward


def _in_single_step(module: nn.Module, stack: ExitStack) -> None:
    from spikingjelly.activation_based import base, layer
    from spikingjelly.activation_based.layer import bn

    if isinstance(module, layer.SeqToANNContainer | layer.MultiStepContainer):
        shadow(module, lambda x: nn.Sequential.forward(module, x), stack)
    elif isinstance(module, bn._ThresholdDependentBatchNormBase | bn._TemporalEffectiveBatchNormBase):
        # These norms scale a batch norm by a constant or by a weight a step, neither of which moves channels.
        shadow(module, lambda x: _BatchNorm.forward(module, x), stack)  # type: ignore[arg-type]
    elif (
        isinstance(module, base.StepModule) and "_step_mode" in module.__dict__ and "s" in module.supported_step_mode()
    ):
        stack.callback(module.__dict__.__setitem__, "_step_mode", module.__dict__["_step_mode"])
        module.step_mode = "s"


def _first_step(example: Any) -> Any:
    if isinstance(example, Tensor):
        return example[0]
    if isinstance(example, dict):
        return {key: _first_step(value) for key, value in example.items()}
    if isinstance(example, tuple | list):
        return type(example)(_first_step(value) for value in example)
    return example
