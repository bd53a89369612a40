"""Whether two models compute the same, in double precision where they can."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import neurons, reset_, shadow
from snnsl_plugin.compaction.tracing import Forward, call

#: Largest difference, as a share of the largest output, by the type that was computed in.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-6}


def difference(
    dense: nn.Module,
    cut: nn.Module,
    example: Any,
    forward: Forward | None = None,
    neuron_types: Sequence[type[nn.Module]] = (),
) -> str | None:
    """What differs between the outputs of two models in eval mode, on a random input like the example.

    They are compared twice: as they are; and with neurons that hand on what they get, because a deep network at its
    initial weights may not fire at all, and constant outputs prove nothing.

    Args:
        dense: changed in place: its type, its mode, its neurons' memories.
        cut: the same.
        example: the shape, type and device of the input.
        forward: how the models are called.
        neuron_types: classes of one's own that are neurons.

    Returns:
        A few words, or None where they are equal: to 1e-9 of the largest output in float64, to 2e-6 in float32.
    """
    exact = _doubled(dense) is not None and _doubled(cut) is not None
    x = random_like(example, torch.float64 if exact else None)
    for model in (dense, cut):
        model.eval()
    for linear in (False, True):
        try:
            with torch.no_grad(), _handing_on(linear, (dense, cut), neuron_types):
                told = _compared(_outputs(dense, x, forward), _outputs(cut, x, forward))
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            return f"the cut model cannot run ({type(error).__name__}: {error})"
        if told:
            return told
    return None


def random_like(example: Any, dtype: torch.dtype | None = None) -> Any:
    """Numbers from [0, 1) in place of floating point ones, always the same; the rest of the example as it is."""
    if isinstance(example, Tensor):
        if not example.is_floating_point():
            return example
        drawn = torch.rand(example.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return drawn.to(example.device, dtype or example.dtype)
    if isinstance(example, dict):
        return {key: random_like(value, dtype) for key, value in example.items()}
    if isinstance(example, tuple | list):
        return type(example)(random_like(value, dtype) for value in example)
    return copy.copy(example)


def _doubled(model: nn.Module) -> nn.Module | None:
    floating = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return model.double() if floating <= {torch.float32, torch.float64} else None


def _outputs(model: nn.Module, x: Any, forward: Forward | None) -> list[Tensor]:
    reset_(model)
    out = (forward or call)(model, x)
    reset_(model)
    values = out.values() if isinstance(out, dict) else out if isinstance(out, tuple | list) else [out]
    return [value for value in values if isinstance(value, Tensor)]


def _compared(dense: list[Tensor], cut: list[Tensor]) -> str | None:
    shapes = [tuple(each.shape) for each in dense], [tuple(each.shape) for each in cut]
    if shapes[0] != shapes[1]:
        return f"the model's own output would change its shape from {shapes[0]} to {shapes[1]}"
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
