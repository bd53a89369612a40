"""Wall time of cut networks against dense ones: vgg9 and sew_resnet18 with half their channels, T=4, 32x32.

Called by run.py, or alone: python tests/benchmarks/structured.py
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

STEPS, SIDE, CLASSES = 4, 32, 10
ROUNDS = 5


def cut_in_half(model: nn.Module) -> nn.Module:
    """A copy in which every group of channels is half as wide; the classifier keeps its outputs."""
    import torch_pruning as tp

    from snnsl_plugin.for_torch_pruning import SpikingPruner

    half = copy.deepcopy(model).eval()
    example = torch.rand(STEPS, 1, 3, SIDE, SIDE)
    last = [module for module in half.modules() if isinstance(module, nn.Linear)][-1]
    SpikingPruner(
        half, example, importance=tp.importance.MagnitudeImportance(p=2), pruning_ratio=0.5, ignored_layers=[last]
    ).step()
    return half


def inference(model: Callable[[Tensor], Tensor], net: nn.Module, x: Tensor) -> Callable[[], float]:
    """Seconds of one call from rest; the reset is not timed."""
    from snnsl_plugin.anatomy import reset_

    def once() -> float:
        reset_(net)
        with torch.no_grad():
            began = time.perf_counter()
            model(x)
            return time.perf_counter() - began

    return once


def medians(works: dict[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of several pieces of work, taken in turns so that all meet the same noise.

    One round is as many calls as take about 0.2 s, of which the mean counts, so that a short call is not one sample.
    """
    calls = {}
    for name, work in works.items():
        work()
        work()
        calls[name] = max(1, min(50, round(0.2 / max(work(), 1e-6))))
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(statistics.mean(work() for _ in range(calls[name])))
    return {name: statistics.median(each) for name, each in times.items()}


def speed(dense: nn.Module, name: str, batch_sizes: tuple[int, ...], compiled: bool) -> dict[str, float]:
    """Dense time over cut time, eager and (of the cut network, against eager dense) with torch.compile."""
    from snnsl_plugin.metrics.cost import dense_macs

    dense.eval()
    half = cut_in_half(dense)
    x = torch.rand(STEPS, 1, 3, SIDE, SIDE)
    figures = {f"{name}_macs_cut_over_dense": dense_macs(half, x) / dense_macs(dense, x)}
    for size in batch_sizes:
        x = torch.rand(STEPS, size, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        works = {"dense": inference(dense, dense, x), "cut": inference(half, half, x)}
        if compiled:
            fast = copy.deepcopy(half)
            works["compiled"] = inference(torch.compile(fast), fast, x)
        took = medians(works)
        for word, seconds in took.items():
            figures[f"{name}_batch{size}_{word}_ms"] = seconds * 1e3
        figures[f"{name}_batch{size}_speedup"] = took["dense"] / took["cut"]
        if compiled:
            figures[f"{name}_batch{size}_compiled_speedup"] = took["dense"] / took["compiled"]
    return figures


def cut_vgg9(batch_sizes: tuple[int, ...] = (1, 16), compiled: bool = True) -> dict[str, float]:
    """vgg9 with half its channels: batch 1 and 16, eager and compiled."""
    from snnsl_plugin.models.vgg9 import vgg9

    torch.manual_seed(0)
    return speed(vgg9((3, SIDE, SIDE), CLASSES), "vgg9", batch_sizes, compiled)


def cut_sew_resnet18(batch_sizes: tuple[int, ...] = (1, 16)) -> dict[str, float]:
    """sew_resnet18 with half its channels: batch 1 and 16, eager."""
    from snnsl_plugin.models.sew_resnet import sew_resnet

    torch.manual_seed(0)
    return speed(sew_resnet((3, SIDE, SIDE), CLASSES, depth=18), "sew_resnet18", batch_sizes, False)


if __name__ == "__main__":
    torch.set_num_threads(2)
    for benchmark in (cut_vgg9, cut_sew_resnet18):
        print(json.dumps(benchmark(), indent=1), flush=True)
