"""Which channels to cut, and what mends the net afterwards: seven criteria, two ratios, four stages, on the bench tasks.

    SNNSL_DATA=... python tests/benchmarks/structured_criteria.py --task digits cifar100 --seeds 0 1 2 --cache DIR

A dense network is trained once for each task and seed and cut from there; every row has the same initial weights, data
and batch order for its seed, and one thread. Ratios are of channels, in every group but the classifier. The stages:
cut; batch norms re-estimated on the training part; fine-tuned from there; fine-tuned with the virtual guide of reverse
distillation instead. Adds to docs/results/structured_<task>.json and prints the table; finished rows are not repeated.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
import torch_pruning as tp
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.compaction.recalibration import recalibrate_
from snnsl_plugin.for_torch_pruning import SpikingImportance, SpikingPruner, calibrate
from snnsl_plugin.metrics.measure import measure
from snnsl_plugin.recipe import assemble
from snnsl_plugin.recipe.load import load
from snnsl_plugin.training.distiller import ReverseDistiller
from snnsl_plugin.training.guides.virtual import virtual
from snnsl_plugin.training.loop import Training, batches, fit
from snnsl_plugin.training.losses import cross_entropy
from snnsl_plugin.training.seeds import derived, generator

ROOT = Path(__file__).parents[2]
RATIOS = (0.5, 0.75)
#: recipe, overrides, epochs of fine-tuning
TASKS = {"digits": ("digits", 4), "cifar100": ("bench/cifar100", 6)}
DENSE = ["pruning={type: dense}", "distillation=null", "dense_baseline=false", "tracking={mlflow: false}", "threads=1"]
CRITERIA = {
    "random": lambda: tp.importance.RandomImportance(),
    "L2": lambda: tp.importance.MagnitudeImportance(p=2),
    "Taylor": lambda: tp.importance.TaylorImportance(),
    "rate": lambda: SpikingImportance(p=2, weight_power=0.0),
    "rate x L2": lambda: SpikingImportance(p=2),
    "L2 / rate^.25": lambda: SpikingImportance(p=2, rate_power=-0.25),
    "L2 / rate": lambda: SpikingImportance(p=2, rate_power=-1.0),
}


def dense_network(task: str, seed: int, cache: Path) -> tuple[assemble.Data, nn.Module]:
    """The trained dense network of a task and seed, from the cache where it has been trained before."""
    recipe = load(TASKS[task][0], [*DENSE, f"seed={seed}"])
    torch.set_num_threads(1)
    parts = assemble.data(recipe)
    made = assemble.assemble(recipe, parts)
    stored = cache / f"{task}_{seed}.safetensors"
    if stored.is_file():
        made.model.load_state_dict(load_file(stored))
    else:
        for _ in fit(made.model, parts.train, parts.validation, made.optimizer, made.how):
            pass
        reset_(made.model)
        cache.mkdir(parents=True, exist_ok=True)
        save_file(made.model.state_dict(), stored)
    return parts, made.model


def judged(model: nn.Module, parts: assemble.Data) -> dict[str, float]:
    """Accuracy and operations on the test part."""
    seen = measure(model, batches(parts.test, "cpu"))
    return {
        "accuracy": seen.accuracy,
        "synops": seen.synops_per_sample,
        "energy_pj": seen.energy_pj_per_sample["total"],
    }


def training_batches(parts: assemble.Data, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over the training part, in the order of the seed."""
    return parts.train.epoch(generator(seed, "order", 1))


def gradients_(model: nn.Module, parts: assemble.Data, seed: int, count: int = 10) -> None:
    """Gradients of some training batches, added up in the parameters."""
    model.train()
    model.zero_grad()
    for number, (x, y) in enumerate(training_batches(parts, seed)):
        if number == count:
            break
        reset_(model)
        cross_entropy(model(x), y).backward()
    reset_(model)


def finetuned(model: nn.Module, parts: assemble.Data, seed: int, epochs: int, guided: bool) -> nn.Module:
    """A copy, trained on for some epochs, with or without a guide."""
    model = copy.deepcopy(model)
    torch.manual_seed(derived(seed, "finetune"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    how = Training(epochs=epochs, seed=derived(seed, "finetune") % 2**31)
    distiller = ReverseDistiller(virtual(), temperature=4.0, weight=0.3) if guided else None
    for _ in fit(model, parts.train, parts.validation, optimizer, how, distiller=distiller):
        pass
    return model


def row(task: str, seed: int, criterion: str, ratio: float, cache: Path) -> dict[str, dict[str, float]]:
    """All stages of one criterion at one ratio."""
    parts, model = dense_network(task, seed, cache)
    epochs = TASKS[task][1]
    before = sum(parameter.numel() for parameter in model.parameters())
    calibrate(model, training_batches(parts, seed))
    gradients_(model, parts, seed)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    example = next(batches(parts.validation, "cpu"))[0][:, :2]
    torch.manual_seed(derived(seed, "random"))
    SpikingPruner(model, example, CRITERIA[criterion](), pruning_ratio=ratio, ignored_layers=[last]).step()
    stages = {"cut": judged(model, parts)}
    stages["cut"]["parameters"] = sum(parameter.numel() for parameter in model.parameters()) / before
    recalibrate_(model, training_batches(parts, seed))
    stages["recalibrated"] = judged(model, parts)
    stages["fine-tuned"] = judged(finetuned(model, parts, seed, epochs, guided=False), parts)
    stages["reverse KD"] = judged(finetuned(model, parts, seed, epochs, guided=True), parts)
    return stages


def table(done: dict[str, dict]) -> str:
    """Mean and standard deviation over seeds."""
    lines = [
        "| channels | criterion | cut | recalibrated | fine-tuned | reverse KD | SynOps, fine-tuned / dense |",
        "|---|---|---|---|---|---|---|",
    ]
    dense = {seed: each["dense"] for seed, each in done.items() if "dense" in each}

    def spread(values: list[float]) -> str:
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        return f"{100 * statistics.mean(values):.1f} ± {100 * deviation:.1f}"

    lines.append(f"| all | dense | {spread([each['accuracy'] for each in dense.values()])} | | | | 1 |")
    for ratio in RATIOS:
        for criterion in CRITERIA:
            rows = {seed: each[f"{criterion}/{ratio}"] for seed, each in done.items() if f"{criterion}/{ratio}" in each}
            if not rows:
                continue
            cells = [
                spread([r[stage]["accuracy"] for r in rows.values()])
                for stage in ("cut", "recalibrated", "fine-tuned", "reverse KD")
            ]
            share = statistics.mean(r["fine-tuned"]["synops"] / dense[seed]["synops"] for seed, r in rows.items())
            lines.append(f"| {1 - ratio:.0%} | {criterion} | {' | '.join(cells)} | {share:.3f} |")
    return "\n".join(lines)


def stored(path: Path) -> dict[str, dict]:
    """Finished rows by seed."""
    return json.loads(path.read_text()) if path.is_file() else {}


def main() -> None:
    """Runs what is missing and prints the tables."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    words.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    words.add_argument("--cache", type=Path, required=True)
    words.add_argument("--only-dense", action="store_true")
    chosen = words.parse_args()
    warnings.filterwarnings("ignore", module="torch_pruning")
    for task in chosen.task:
        path = ROOT / "docs" / "results" / f"structured_{task}.json"
        for seed in chosen.seeds:
            parts, model = dense_network(task, seed, chosen.cache)
            if chosen.only_dense:
                continue
            for criterion in ("dense", *CRITERIA):
                for ratio in RATIOS if criterion != "dense" else (None,):
                    key = criterion if ratio is None else f"{criterion}/{ratio}"
                    if key in stored(path).get(str(seed), {}):
                        continue
                    made = judged(model, parts) if ratio is None else row(task, seed, criterion, ratio, chosen.cache)
                    done = stored(path)  # another process may have added to it meanwhile
                    done.setdefault(str(seed), {})[key] = made
                    fresh = path.with_suffix(f".{os.getpid()}")
                    fresh.write_text(json.dumps(done, indent=1) + "\n")
                    os.replace(fresh, path)
        if path.is_file():
            print(f"\n{task}\n{table(json.loads(path.read_text()))}", flush=True)


if __name__ == "__main__":
    main()
