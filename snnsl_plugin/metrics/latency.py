"""Wall time of one inference at batch size 1."""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.errors import BadOption
from snnsl_plugin.metrics.layers import evaluating


def latency(model: nn.Module, x: Tensor, *, repeats: int = 20, warm_up: int = 3) -> float:
    """Median milliseconds per sample at batch size 1, states reset before each repeat (not timed).

    Measured on this machine with dense kernels: fewer connections do not make it shorter. It stands beside the energy
    model to say so.

    Args:
        model: from (T, N, ...) to anything.
        x: inputs (T, N, ...); the first sample is used.
        repeats: timed runs, >= 1.
        warm_up: runs before, not timed.

    Returns:
        Milliseconds.

    Raises:
        BadOption: `repeats` below 1, or no sample.
    """
    if repeats < 1:
        raise BadOption(f"repeats is {repeats}; a median needs at least 1")
    if x.dim() < 2 or x.shape[1] == 0:
        raise BadOption(f"x is {tuple(x.shape)}; latency needs (T, N, ...) with at least one sample")
    device = next((parameter.device for parameter in model.parameters()), x.device)
    sample = x[:, :1].to(device)
    seconds = []
    with torch.no_grad(), evaluating(model):
        for run in range(warm_up + repeats):
            reset_(model)
            _finish(device)
            start = time.perf_counter()
            model(sample)
            _finish(device)
            if run >= warm_up:
                seconds.append(time.perf_counter() - start)
        reset_(model)
    return statistics.median(seconds) * 1e3


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
