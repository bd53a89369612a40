"""The numbers of one finished run, read from its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import reset_, weight_layers
from snnsl_plugin.metrics.layers import evaluating
from snnsl_plugin.recipe import folder
from snnsl_plugin.tracking.journal import read


def numbers(run: Path, *, judge: Literal["test", "validation"], macs: Mapping[str, int]) -> dict[str, float | None]:
    """What a table shows of a finished run.

    Args:
        run: its folder.
        judge: the part whose accuracy is compared; with `validation` those of the test set are left out.
        macs: multiply-accumulates of a sample in the dense network, by layer.
    """
    done = folder.result(run) or {}
    accuracy, energy = done["accuracy"], done["energy_pj_per_sample"].get("total")
    shown = judge == "test"
    return {
        "accuracy": accuracy[judge],
        "accuracy_test": accuracy["test"] if shown else None,
        "accuracy_test_last": accuracy["test_last"] if shown else None,
        "accuracy_validation": accuracy["validation"],
        "density": done["density"]["weights"]["achieved"],
        "connections": done["density"]["connections"]["density"],
        "synops": done["synops_per_sample"],
        "macs": done["macs_per_sample"],
        "energy_nj": None if energy is None else energy / 1000,
        "epochs": done["epochs"],
        "training_cost": training_cost(run, macs),
        "wall_s": done["wall_s"],
        "seconds_per_epoch": done["seconds_per_epoch"],
        "peak_memory_mib": done["peak_memory_mib"],
    }


def layer_macs(model: nn.Module, x: Tensor) -> dict[str, int]:
    """Multiply-accumulates of one sample, by layer, from shapes: output values times weights per output channel.

    Args:
        model: as it is called in training; its modes and states are as before afterwards.
        x: (T, N, ...); the first sample is used.
    """
    layers = weight_layers(model)
    counts = dict.fromkeys(layers, 0)

    def counting(name: str, weight: Tensor) -> Callable[[nn.Module, Any, Tensor], None]:
        def count(module: nn.Module, inputs: Any, out: Tensor) -> None:
            counts[name] += out.numel() * weight.numel() // weight.shape[0]

        return count

    handles = [layer.register_forward_hook(counting(name, layer.weight)) for name, layer in layers.items()]
    try:
        with evaluating(model), torch.no_grad():
            model(x[:, :1])
    finally:
        for handle in handles:
            handle.remove()
        reset_(model)
    return counts


def training_cost(run: Path, macs: Mapping[str, int]) -> float:
    """Multiply-accumulates of a training without those of masked weights, as a share of the dense training's: a model.

    Forward and backward passes alike: what a machine would save that skips a masked weight from the update on that
    masked it. Dense gradients for growth, scores, statistics and a guide's own network are not counted. Masks of
    channels are charged for the inputs of dead channels, cuts are not: they are gone.

    Args:
        run: a run folder with its journal.
        macs: of a sample in the dense network, by layer.
    """
    total, step, since, area = sum(macs.values()), 0, 0, 0.0
    share: float | None = None
    sizes: dict[str, int] = {}

    def alive(metrics: Mapping[str, float], *, before: bool) -> float:
        kept = {name: metrics.get(f"density/{name}", 1.0) for name in macs}
        if before:  # what was masked before an update shows in what it changed
            for name in macs.keys() & sizes.keys():
                changed = metrics.get(f"dropped/{name}", 0.0) - metrics.get(f"born/{name}", 0.0)
                kept[name] += changed / sizes[name]
        return sum(macs[name] * kept[name] for name in macs) / total

    for event in read(run / folder.JOURNAL):
        step, sizes = event["step"], event.get("layers", sizes)
        if event["event"] == "mask_update":
            share = alive(event["metrics"], before=True) if share is None else share
            area, since = area + share * (step - since), step
            share = alive(event["metrics"], before=False)
    last = 1.0 if share is None else share
    return (area + last * (step - since)) / step if step else 1.0
