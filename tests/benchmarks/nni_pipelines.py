"""An NNI pipeline with AGPPruner(LevelPruner), and the same with one line changed, on the bench tasks.

    SNNSL_DATA=... python tests/benchmarks/nni_pipelines.py --task cifar100 nmnist --seeds 0 1 2

Every run has the same data, initial weights, batch order, epochs, optimizer and learning rates for its seed (on nmnist
the seed is also the fold), one thread, and the same updates at the same steps. The epoch is chosen on validation among
those at the final density; the test set is read once. Adds to docs/results/nni_pipelines_<task>.json and prints the table;
finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import time
import warnings
from pathlib import Path

import nni
import torch
from nni.compression import TorchEvaluator
from nni.compression.pruning import AGPPruner, LevelPruner

from snnsl_plugin.anatomy import reset_, weight_layers, weight_name
from snnsl_plugin.for_nni import SpikingDynamicPruner, apply_masks_, export_masks
from snnsl_plugin.metrics.measure import measure
from snnsl_plugin.metrics.paths import live_paths
from snnsl_plugin.recipe import assemble, digest
from snnsl_plugin.recipe.load import load
from snnsl_plugin.training.learning_rate import LEARNING_RATES
from snnsl_plugin.training.loop import batches
from snnsl_plugin.training.losses import cross_entropy
from snnsl_plugin.training.seeds import derived, generator

ROOT = Path(__file__).parents[2]
DENSITY, INTERVAL, UNTIL = 0.05, 20, 0.7


def agp(model, config, evaluator, times):
    return AGPPruner(LevelPruner(model, config, evaluator), interval_steps=INTERVAL, total_times=times)


def dynamic(**options):
    def line(model, config, evaluator, times):
        return SpikingDynamicPruner(model, config, evaluator, interval_steps=INTERVAL, total_times=times, **options)

    return line


# The line that differs, and what else the entry of the config says.
LINES = {
    "AGPPruner(LevelPruner)": (agp, {}),
    "SpikingDynamicPruner": (dynamic(), {}),
    "SpikingDynamicPruner, swap=None": (dynamic(swap=None), {}),
    "SpikingDynamicPruner, distribution=None": (dynamic(distribution=None), {}),
    "AGPPruner(LevelPruner), global_group_id": (agp, {"global_group_id": 0}),
    "SpikingDynamicPruner, global_group_id": (dynamic(), {"global_group_id": 0}),
    "no pruner": None,
}


def run(task: str, line: str, seed: int, epochs: int | None = None) -> dict[str, float]:
    """One pipeline, as somebody who uses NNI would write it."""
    overrides = [f"seed={seed}"] + ([f"data.fold={seed}"] if task == "nmnist" else [])
    recipe = load(f"bench/{task}", overrides)
    torch.set_num_threads(1)
    parts = assemble.data(recipe)
    model = assemble.network(recipe, parts.splits)
    epochs = epochs or recipe.train.epochs
    total = epochs * len(parts.train)
    times = int(UNTIL * total) // INTERVAL
    rate = LEARNING_RATES[recipe.train.lr_schedule]
    best: dict = {"validation": -1.0}
    cost: list[float] = []

    def training_step(batch, model):
        reset_(model)
        return cross_entropy(model(batch[0]), batch[1])

    def train(model, optimizer, training_step, scheduler, max_steps, max_epochs):
        step, start = 0, optimizer.param_groups[0]["lr"]
        for epoch in range(1, max_epochs + 1):
            torch.manual_seed(derived(recipe.seed, "epoch", epoch))
            model.train()
            for batch in parts.train.epoch(generator(recipe.seed, "order", epoch)):
                began = time.perf_counter()
                optimizer.param_groups[0]["lr"] = start * rate(step / total)
                optimizer.zero_grad()
                training_step(batch, model).backward()
                optimizer.step()
                cost.append(time.perf_counter() - began)
                step += 1
            found = measure(model, batches(parts.validation, "cpu"), synops=False).accuracy
            at_last_density = line == "no pruner" or step >= times * INTERVAL
            if at_last_density and found > best["validation"]:
                best.update(validation=found, epoch=epoch, state=copy.deepcopy(model.state_dict()))

    chosen = recipe.train.optimizer
    optimizer = nni.trace(torch.optim.AdamW)(model.parameters(), lr=chosen.lr, weight_decay=chosen.weight_decay)
    if line == "no pruner":
        train(model, optimizer, training_step, None, None, epochs)
        masks = {}
        model.load_state_dict(best["state"])
    else:
        made, further = LINES[line]
        config = [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 1.0 - DENSITY} | further]
        pruner = made(model, config, TorchEvaluator(train, optimizer, training_step), times)
        pruner.compress(None, epochs)
        model.load_state_dict(best["state"])
        masks = export_masks(pruner)
        pruner.unwrap_model()
        apply_masks_(model, masks)
    kept = {weight_name(name): mask["weight"].bool() for name, mask in masks.items()}
    tested = measure(model, batches(parts.test, "cpu"), masks=kept)
    x, _ = next(iter(batches(parts.test, "cpu")))
    weights = sum(layer.weight.numel() for layer in weight_layers(model).values())
    return {
        "digest": digest.digest(recipe),
        "test": tested.accuracy,
        "validation": best["validation"],
        "epoch": best["epoch"],
        "density": sum(int(mask.sum()) for mask in kept.values()) / weights if kept else 1.0,
        "connections": live_paths(model, x[:, :1], kept).connections,
        "synops": tested.synops_per_sample,
        "seconds_per_step": statistics.median(cost),
    }


def table(results: dict[str, dict[str, float]], task: str) -> str:
    """Mean and range over seeds, Markdown."""
    lines = [
        "| line | test accuracy (seeds) | mean | density | live connections | SynOps a sample |",
        "|---|---|---|---|---|---|",
    ]
    for line in LINES:
        found = [value for key, value in sorted(results.items()) if key.startswith(f"{task}/{line}/")]
        if found:
            each = " ".join(f"{100 * value['test']:.1f}" for value in found)
            mean = {
                key: statistics.mean(value[key] for value in found)
                for key in ("test", "density", "connections", "synops")
            }
            lines.append(
                f"| {line} | {each} | {100 * mean['test']:.1f} | {mean['density']:.4f} | {mean['connections']:,.0f} | "
                f"{mean['synops']:,.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", default=["cifar100", "nmnist"], choices=["cifar100", "nmnist"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--lines", nargs="+", default=list(LINES), choices=list(LINES))
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    for task in chosen.task:
        for seed in chosen.seeds:
            for line in chosen.lines:
                key = f"{task}/{line}/{seed}"
                store = ROOT / "docs" / "results" / f"nni_pipelines_{task}.json"
                results = json.loads(store.read_text()) if store.exists() else {}
                if key in results:
                    continue
                began = time.perf_counter()
                found = run(task, line, seed)
                results = json.loads(store.read_text()) if store.exists() else {}
                results[key] = found | {"wall_s": time.perf_counter() - began}
                beside = store.with_suffix(".tmp")
                beside.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")
                os.replace(beside, store)
                print(key, {name: round(value, 4) for name, value in found.items() if name != "digest"}, flush=True)
    for task in chosen.task:
        results = json.loads((ROOT / "docs" / "results" / f"nni_pipelines_{task}.json").read_text())
        print(f"\n{task}\n\n{table(results, task)}")


if __name__ == "__main__":
    main()
