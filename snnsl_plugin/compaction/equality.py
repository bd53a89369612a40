"""Whether two models compute the same, in double precision where they can."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import neurons, reset_, shadow, time_first
from snnsl_plugin.compaction.tracing import Forward, call
from snnsl_plugin.errors import CannotCut

#: Largest difference, as a share of the largest output, by the type that was computed in.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-6}
#: How often a model of single steps is called: what one step leaves for the next counts too.
_CALLS = 3
_FAILURES = (RuntimeError, ValueError, IndexError, TypeError, AssertionError, AttributeError, ArithmeticError)


def difference(
    dense: nn.Module,
    cut: nn.Module,
    example: Any,
    forward: Forward | None = None,
    neuron_types: Sequence[type[nn.Module]] = (),
) -> str | None:
    """What differs between the outputs of two models in eval mode, on random inputs like the example.

    They are compared twice: as they are; and with neurons that hand on what they get, because a deep network at its
    initial weights may not fire at all, and constant outputs prove nothing. A model of single steps is called three
    times without a reset in between, or as often as the dense one can be.

    Args:
        dense: changed in place: its type, its mode, its neurons' memories.
        cut: the same.
        example: the shape, type and device of the input.
        forward: how the models are called.
        neuron_types: classes of one's own that are neurons.

    Returns:
        A few words, or None where they are equal: to 1e-9 of the largest output in float64, to 2e-6 in float32.

    Raises:
        CannotCut: the dense model cannot be run on such an input.
    """
    both = (dense, cut)
    floating = {parameter.dtype for model in both for parameter in model.parameters() if parameter.is_floating_point()}
    exact = floating <= {torch.float32, torch.float64}
    calls = 1 if time_first(dense, tuple(neuron_types)) else _CALLS
    for model in both:
        model.eval()
        if exact:
            model.double()
    inputs = [random_like(example, torch.float64 if exact else None, seed) for seed in range(calls)]
    try:
        _outputs(dense, inputs[:1], forward)
    except _FAILURES:
        # A tensor that the model makes itself stays in single precision, and does not mix with double.
        for model in both if floating == {torch.float32} else ():
            model.float()
        inputs = [random_like(example, None, seed) for seed in range(calls)]
    for linear in (False, True):
        with torch.no_grad(), _handing_on(linear, both, neuron_types):
            try:
                expected = _outputs(dense, inputs, forward)
            except _FAILURES as error:
                if linear:
                    return None  # a model that asks its neurons for more than what they got; it was compared as it is
                raise CannotCut(
                    f"this {type(dense).__name__} cannot be run on numbers like its example inputs to compare it with "
                    f"itself ({type(error).__name__}: {error}): pass verify=False to cut without that proof"
                ) from error
            try:
                found = _outputs(cut, inputs[: len(expected)], forward, len(expected))
            except _FAILURES as error:
                return f"the cut model cannot run ({type(error).__name__}: {error})"
        if told := _compared([*chain(*expected)], [*chain(*found)]):
            return told
    return None


def random_like(example: Any, dtype: torch.dtype | None = None, seed: int = 0) -> Any:
    """Numbers from [0, 1) in place of floating point ones, always the same; the rest of the example as it is.

    Args:
        example: a tensor, or tensors in sequences and mappings.
        dtype: of the numbers; as in the example where omitted.
        seed: what they are drawn from.
    """
    if isinstance(example, Tensor):
        if not example.is_floating_point():
            return example
        drawn = torch.rand(example.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return drawn.to(example.device, dtype or example.dtype)
    if isinstance(example, dict):
        return {key: random_like(value, dtype, seed) for key, value in example.items()}
    if isinstance(example, tuple | list):
        return type(example)(random_like(value, dtype, seed) for value in example)
    return copy.copy(example)


def _outputs(model: nn.Module, inputs: Sequence[Any], forward: Forward | None, least: int = 1) -> list[list[Tensor]]:
    reset_(model)
    found: list[list[Tensor]] = []
    try:
        for x in inputs:
            out = (forward or call)(model, x)
            values = out.values() if isinstance(out, dict) else out if isinstance(out, tuple | list) else [out]
            found.append([value for value in values if isinstance(value, Tensor)])
    except _FAILURES:
        if len(found) < least:
            raise
    finally:
        reset_(model)
    return found


def _compared(dense: list[Tensor], cut: list[Tensor]) -> str | None:
    shapes = [tuple(each.shape) for each in dense], [tuple(each.shape) for each in cut]
    if shapes[0] != shapes[1]:
        return f"the model's own output would change its shape from {shapes[0][0]} to {shapes[1][0]}"
    for one, other in zip(dense, cut, strict=True):
        scale = float(one.abs().max()) if one.numel() else 0.0
        apart = float((one - other).abs().max()) if one.numel() else 0.0
        if not apart <= _TOLERANCE.get(one.dtype, 1e-2) * max(scale, 1e-12) + 1e-12:
            return f"its outputs would change by {apart:.3g} where the largest is {scale:.3g}"
    return None


@contextmanager
def _handing_on(linear: bool, models: Sequence[nn.Module], neuron_types: Sequence[type[nn.Module]]) -> Iterator[None]:
    with ExitStack() as stack:
        for model in models if linear else ():
            for neuron in neurons(model, tuple(neuron_types)).values():
                shadow(neuron, lambda x, *_, **__: x * 1.0, stack)
        yield
