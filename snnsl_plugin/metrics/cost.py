"""What networks cost, side by side: parameters, dense operations, spike-driven operations, energy, wall time.

None of these stands for another. A cut that halves the channels quarters the dense operations; how many spikes are
left, and how long it takes, has to be measured.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.errors import BadOption
from snnsl_plugin.metrics.latency import latency
from snnsl_plugin.metrics.layers import evaluating
from snnsl_plugin.metrics.measure import measure

_TITLES = {
    "parameters": "parameters",
    "dense_macs_per_sample": "dense MACs per sample, all steps",
    "synops_per_sample": "SynOps per sample",
    "macs_per_sample": "MACs of inputs not 0/1 per sample",
    "energy_pj_per_sample": "energy model, pJ per sample",
    "latency_ms": "wall time at batch 1, ms",
    "accuracy": "accuracy",
}


@dataclass(frozen=True)
class Cost:
    """What one network costs.

    Attributes:
        parameters: all of them.
        dense_macs_per_sample: multiply-accumulates of all convolutions, linear layers and matrix products over all
            time steps, from shapes: what dense kernels compute, whatever the spikes.
        synops_per_sample: accumulates that spikes cause, as in `metrics.measure`.
        macs_per_sample: multiply-accumulates that non-zero inputs other than 0/1 cause, as in `metrics.measure`.
        energy_pj_per_sample: the total of the energy model, which is a model.
        latency_ms: median wall time of one sample on this machine, in turns with the other networks.
        accuracy: on the same batches, in [0, 1].
    """

    parameters: int
    dense_macs_per_sample: int
    synops_per_sample: float
    macs_per_sample: float
    energy_pj_per_sample: float
    latency_ms: float
    accuracy: float


def dense_macs(model: nn.Module, x: Tensor) -> int:
    """Multiply-accumulates of one sample over all its time steps, from shapes.

    Counted by torch where the kernels are called, so step modes, containers, groups and attention make no difference.
    Torch-Pruning's own counter gives 0 for SpikingJelly's layers, and divides by T instead of by the batch size for
    torch's layers on (T, N, ...).

    Args:
        model: called with (T, 1, ...); its modes and states are as before afterwards.
        x: (T, N, ...); the first sample is used.

    Raises:
        BadOption: no sample, or nothing to count.

    Example:
        >>> dense_macs(nn.Linear(3, 5), torch.ones(4, 1, 3))
        60
    """
    if x.dim() < 2 or x.shape[1] == 0:
        raise BadOption(f"x is {tuple(x.shape)}; dense_macs needs (T, N, ...) with at least one sample")
    device = next((parameter.device for parameter in model.parameters()), x.device)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), evaluating(model):
        reset_(model)
        try:
            with counter:
                model(x[:, :1].to(device))
        finally:
            reset_(model)
    total = counter.get_total_flops()
    if total == 0:
        raise BadOption(f"{type(model).__name__} runs no convolution, linear layer or matrix product to count")
    return total // 2


def costs(
    models: Mapping[str, nn.Module],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    repeats: int = 20,
    neurons: Sequence[type[nn.Module]] = (),
) -> dict[str, Cost]:
    """Measures networks on the same data, one after the other, and their wall time in turns.

    Args:
        models: by the name to print; from (T, N, ...) to logits per step (T, N, K). The first one is what the others
            are compared with in `table`.
        batches: pairs of x (T, N, ...) and labels y (N,).
        repeats: timed runs of each network, >= 1.
        neurons: further classes that are spiking neurons.

    Returns:
        By the same names.

    Raises:
        BadOption: no model, no batch, or `repeats` below 1.
    """
    data = list(batches)
    if not models or not data:
        raise BadOption(f"there are {len(models)} models and {len(data)} batches to measure: give at least one of each")
    if repeats < 1:
        raise BadOption(f"repeats is {repeats}; a median needs at least 1")
    x = data[0][0]
    # Networks that are timed one after the other meet different noise; in turns they share it.
    for model in models.values():
        latency(model, x, repeats=1)
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(repeats):
        for name, model in models.items():
            times[name].append(latency(model, x, repeats=1, warm_up=0))
    found = {}
    for name, model in models.items():
        measured = measure(model, data, neurons=neurons)
        found[name] = Cost(
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            dense_macs_per_sample=dense_macs(model, x),
            synops_per_sample=measured.synops_per_sample or 0.0,
            macs_per_sample=measured.macs_per_sample or 0.0,
            energy_pj_per_sample=measured.energy_pj_per_sample["total"],
            latency_ms=statistics.median(times[name]),
            accuracy=measured.accuracy,
        )
    return found


def table(found: Mapping[str, Cost]) -> str:
    """Plain text: a row a measure, a column a network, and what share of the first one's each is.

    Args:
        found: what `costs` returned.
    """
    names = list(found)
    first = found[names[0]]
    rows = [["", *names]]
    for field in fields(Cost):
        values = [getattr(found[name], field.name) for name in names]
        base = getattr(first, field.name)
        cells = [_cell(values[0])]
        for value in values[1:]:
            shown = _cell(value)
            # Accuracy is compared by its difference elsewhere; a share of it says nothing.
            cells.append(shown if field.name == "accuracy" or not base else f"{shown} (x{value / base:.3g})")
        rows.append([_TITLES[field.name], *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(names) + 1)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: float) -> str:
    if isinstance(value, int) or (math.isfinite(value) and abs(value) >= 1000):
        return f"{value:,.0f}"
    return f"{value:.4g}"
