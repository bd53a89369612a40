"""What a run ends with: the chosen epoch measured once, and the result and checkpoint that say so."""

from __future__ import annotations

import platform
import statistics
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from torch import nn

from snnsl_plugin import __version__
from snnsl_plugin.anatomy import weight_layers
from snnsl_plugin.core import masks as mask_functions
from snnsl_plugin.metrics.measure import Measurement, measure
from snnsl_plugin.metrics.memory import peak_memory_mib
from snnsl_plugin.metrics.paths import live_paths
from snnsl_plugin.recipe import compact, folder
from snnsl_plugin.recipe.assemble import Assembled
from snnsl_plugin.recipe.budgets import budget_told
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.training import checkpoint
from snnsl_plugin.training.distiller import ReverseDistiller
from snnsl_plugin.training.loop import batches


def finish(
    recipe: Recipe,
    made: Assembled,
    saved: dict[str, Any],
    run_dir: Path,
    own: str,
    name: str,
    began: float,
    judge: Literal["test", "validation"],
    writes: bool,
) -> dict[str, Any]:
    """Reads the test set, once, for the last and for the selected epoch, and writes the finished checkpoint.

    With `validation` as judge the test set is not read: the network is measured on the validation part alone.

    Args:
        recipe: what was trained.
        made: the trained network and all about it; its pruner and its guide end here.
        saved: the progress that a checkpoint holds; its best epoch is what is measured.
        run_dir: the folder of the run.
        own: the recipe's digest.
        name: the recipe's name.
        began: when the run began, by `time.perf_counter`.
        judge: the part that the network is measured on.
        writes: whether this process writes the checkpoint.

    Returns:
        The result, as `result.json` has it.
    """
    model, pruner, device = made.model, made.pruner, made.how.device
    part, tested = (made.data.test, True) if judge == "test" else (made.data.validation, False)
    model.eval()
    last = measure(model, batches(part, device), synops=False) if tested else None
    model.load_state_dict(saved["best"]["model"])
    # What is cut is gone and has no mask.
    masked = None if isinstance(pruner, compact.Cutting) else pruner
    masks = {key: value.clone() for key, value in masked.masks.items()} if masked else {}
    masks |= saved["best"].get("masks", {})  # those of the last epoch may be others
    if pruner:
        pruner.finish()
    if isinstance(made.distiller, ReverseDistiller):
        made.distiller.finish()
    measured = measure(model, batches(part, device), masks=masks or None)
    validated = measure(model, batches(made.data.validation, device), masks=masks or None) if tested else measured
    paths = live_paths(model, next(batches(part, device))[0][:, :1], masks=masks or None)
    left, sizes = sizes_of(model), made.sizes
    kept = {layer: int(masks[f"{layer}.weight"].count_nonzero()) if masks else n for layer, n in left.items()}
    parameters = sum(p.numel() for p in model.parameters())
    total = sum(sizes.values())
    requested = pruner.requested if pruner else sizes
    result = {
        "schema": 1,
        "recipe": name,
        "digest": own,
        "seed": recipe.seed,
        "status": "finished",
        "accuracy": {
            "test": measured.accuracy if tested else None,
            "test_last": last.accuracy if last else None,
            "validation": saved["best"]["accuracy"],
            "dense_test": None,
        },
        "density": {
            "weights": {
                "requested": pruner.target if pruner else 1.0,
                "achieved": mask_functions.density(masks.values()) if masks else sum(kept.values()) / total,
                "kept": sum(kept.values()),
                "total": total,
            },
            "connections": {
                "live": paths.connections,
                "forward": paths.forward_connections,
                "density": paths.connections / total,
            },
            "layers": {
                layer: {
                    "requested": requested[layer] / n if layer in requested else None,
                    "achieved": kept[layer] / n,
                    "kept": kept[layer],
                    "total": n,
                }
                for layer, n in sizes.items()
            },
        },
        "regrown": pruner.born if pruner else 0,
        **as_result(measured),
        "validation": {
            "synops_per_sample": validated.synops_per_sample,
            "energy_pj_per_sample": validated.energy_pj_per_sample,
        },
        "parameters": {"dense": made.parameters, "kept": parameters - sum(left.values()) + sum(kept.values())},
        "epochs": saved["epoch"],
        "selected_epoch": saved["best"]["epoch"],
        "seconds_per_epoch": statistics.median(saved["seconds"]),
        "peak_memory_mib": peak_memory_mib(device),
        "skipped_samples": made.data.splits.skipped,
        "mlflow_run_id": None,
        "versions": versions(),
        "wall_s": time.perf_counter() - began,
    }
    result |= budget_told(pruner, result, run_dir)
    # The result lies in the checkpoint too: the state to resume from is gone from it, so a run that is killed before
    # result.json is written goes on from here.
    if isinstance(pruner, compact.Cutting):
        compact.save(run_dir, model, pruner)
    progress = saved | {"best": None, "result": result}
    if writes:
        checkpoint.save(
            run_dir / folder.CHECKPOINT,
            {"digest": own, "progress": progress, "model": model.state_dict(), "masks": masks},
        )
    return result


def as_result(measured: Measurement) -> dict[str, Any]:
    """What one pass over a part measured, as `result.json` has it."""
    return {
        "synops_per_sample": measured.synops_per_sample,
        "macs_per_sample": measured.macs_per_sample,
        "energy_pj_per_sample": measured.energy_pj_per_sample,
        "firing_rate": measured.firing_rate,
        "silent": measured.silent,
    }


def sizes_of(model: nn.Module) -> dict[str, int]:
    """Weights of every convolution and linear layer, by its name."""
    return {name: layer.weight.numel() for name, layer in weight_layers(model).items()}


def versions() -> dict[str, str]:
    """What a run was made with."""
    found = {"python": platform.python_version(), "snnsl-plugin": __version__}
    for name in ("torch", "torchvision", "spikingjelly", "tonic", "numpy", "scikit-learn", "nni", "torch-pruning"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found
