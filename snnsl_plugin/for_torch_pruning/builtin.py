"""Torch-Pruning's importances by name, and what they are measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning.pruner.importance import FPGMImportance

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.errors import UnknownName
from snnsl_plugin.training.losses import cross_entropy
from snnsl_plugin.training.statistics import needed

#: Those of Torch-Pruning that work: its OBDCImportance and ActivationImportance do not, on no model or over time.
BUILTIN: Mapping[str, Callable[..., Any]] = {
    "random": tp.importance.RandomImportance,
    "magnitude": tp.importance.GroupMagnitudeImportance,
    "lamp": tp.importance.LAMPImportance,
    "fpgm": FPGMImportance,
    "bn_scale": tp.importance.BNScaleImportance,
    "taylor": tp.importance.GroupTaylorImportance,
    "hessian": tp.importance.GroupHessianImportance,
}


def importance(name: str, **options: Any) -> Any:
    """An importance.

    Args:
        name: of `BUILTIN`, or `spiking`.
        **options: of its class.

    Raises:
        UnknownName: no such importance.
    """
    if name == "spiking":
        from snnsl_plugin.for_torch_pruning.importance import SpikingImportance

        return SpikingImportance(**options)
    if name not in BUILTIN:
        raise UnknownName("importance", name, [*BUILTIN, "spiking"])
    return BUILTIN[name](**options)


def ratio(kept: float) -> float:
    """Torch-Pruning's pruning_ratio that keeps a share of channels, in (0, 1).

    1 - (1 - 0.1) is 0.0999..., of which Torch-Pruning's int() would keep a channel too few, or none of ten.
    """
    return 1.0 - kept - 1e-9


@contextmanager
def measured(
    name: str,
    scores: Any,
    model: nn.Module,
    draw: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    *,
    gradients: bool = True,
) -> Iterator[None]:
    """What an importance needs of the data is there inside; where gradients were measured they are gone afterwards.

    Args:
        name: of the importance.
        scores: the importance.
        model: in whatever mode; left in it.
        draw: batches of the training part: inputs (T, N, ...) and classes (N,).
        gradients: whether each `grad` is measured as well for the importances that read it; as it is where not.
    """
    if name == "spiking":
        from snnsl_plugin.for_torch_pruning.calibration import calibrate

        asks = needed([scores.criterion]) & {"grad", "grad_square"}
        calibrate(model, draw(), loss=cross_entropy if asks else None)
    of_gradients = gradients and name in ("taylor", "hessian")
    if of_gradients:
        _gradients_(model, draw(), squares=name == "hessian")
    yield
    if of_gradients:
        model.zero_grad(set_to_none=True)


def _gradients_(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, squares: bool) -> None:
    """Leaves in each `grad` the mean gradient over batches, or the mean of the squares of those of single samples.

    In eval mode, so that looking moves no running statistics. Single samples are those of the first batch: one pass
    each. Torch-Pruning's own `accumulate_grad` is to sum the squares, but looks its parameters up by name and so keeps
    those of the last sample only.
    """
    training = {module: module.training for module in model.modules()}
    model.eval()
    sums: dict[nn.Parameter, Tensor] = {}
    count = 0
    for x, target in _single(batches) if squares else batches:
        reset_(model)
        model.zero_grad(set_to_none=True)
        cross_entropy(model(x), target).backward()  # type: ignore[no-untyped-call]
        count += 1
        for parameter in model.parameters():
            if parameter.grad is not None:
                found = parameter.grad.square() if squares else parameter.grad
                sums[parameter] = sums[parameter] + found if parameter in sums else found.clone()
    reset_(model)
    for parameter in model.parameters():
        parameter.grad = sums[parameter] / count if parameter in sums else None
    for module, mode in training.items():
        module.training = mode


def _single(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    x, target = next(iter(batches))
    return ((x[:, number : number + 1], target[number : number + 1]) for number in range(len(target)))
