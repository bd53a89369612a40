"""One factor at a time against gradual magnitude pruning, on a bench task: what helps at 5 % of the weights?

    SNNSL_DATA=... python tests/benchmarks/hypotheses.py cifar100 --seeds 0 1 2 --workers 2

Each run is the bench recipe with a few keys changed, judged by validation alone: the test set is not read. On nmnist the
seed is also the fold. Adds to docs/results/hypotheses_<task>.json and prints the table; finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date
from pathlib import Path

from scipy.stats import t as student

ROOT = Path(__file__).parents[2]
BASE = "gmp"
SWAP = "pruning.swap={name: cosine, first: 0.3, last: 0.0}"
BOTH = ["pruning.distribution=lamp", SWAP]
#: SynOps per sample of the reference, to ask another for as many; on validation data, seeds 0 to 2.
SYNOPS = {"cifar100": 23_400, "nmnist": 21_300}
#: Name -> (which question it answers, the keys that it changes).
ARMS: dict[str, tuple[str, list[str]]] = {
    BASE: ("reference", []),
    "ramp ends at 40 %": ("does the ramp end too late?", ["pruning.until=40%"]),
    "ramp ends at 85 %": ("does the ramp end too late?", ["pruning.until=85%"]),
    "global": ("does allocation matter?", ["pruning.distribution=global"]),
    "lamp": ("does allocation matter?", ["pruning.distribution=lamp"]),
    "first and last dense": ("does allocation matter?", ["pruning.exclude=[conv1, fc2]"]),
    "self guide": ("does its own past teach it?", ["distillation={guide: {name: self}, temperature: 3, weight: 0.3}"]),
    "virtual guide": ("do weak guides teach it?", ["distillation={guide: virtual, temperature: 4, weight: 0.3}"]),
    "label smoothing 0.1": ("do weak guides teach it?", ["train.label_smoothing=0.1"]),
    "swap 0.1": ("do small swaps suffice?", ["pruning.swap={name: cosine, first: 0.1, last: 0.0}"]),
    "swap 0.3": ("do small swaps suffice?", ["pruning.swap={name: cosine, first: 0.3, last: 0.0}"]),
    "no weight decay": ("does weight decay hurt?", ["train.optimizer.weight_decay=0.0"]),
    "weight decay 0.1": ("does weight decay hurt?", ["train.optimizer.weight_decay=0.1"]),
    "rate band, weight 0.1": ("does a rate band help?", ["health=[rate_band]"]),
    "rate band, weight 1": ("does a rate band help?", ["health=[{name: rate_band, weight: 1.0}]"]),
    "wide surrogate": ("does a wider surrogate help?", ["health=[wide_surrogate]"]),
    "batch norm momentum 0.3": ("do batch norms lag behind?", ["health=[bn_momentum]"]),
    "silent neurons revived by scale": ("does reviving silent neurons help?", ["health=[revival]"]),
    "silent neurons revived by shift": ("does reviving silent neurons help?", ["health=[{name: revival, by: shift}]"]),
    "weights rescaled by layer": ("does pruning starve the drive?", ["health=[rescale]"]),
    "weights rescaled by channel": ("does pruning starve the drive?", ["health=[{name: rescale, per: channel}]"]),
    "spike_saliency": ("do spike-aware scores help?", ["pruning.criterion=spike_saliency"]),
    "fisher": ("does a score of the loss help?", ["pruning.criterion=fisher"]),
    "hebbian": ("do spike-aware scores help?", ["pruning.criterion=hebbian", "pruning.exclude=[fc2]"]),
    "activity_product": (
        "do spike-aware scores help?",
        ["pruning.criterion=activity_product", "pruning.exclude=[fc2]"],
    ),
    "criticality": ("do spike-aware scores help?", ["pruning.criterion=criticality", "pruning.exclude=[fc2]"]),
    "last dense": ("reference of those that drive a neuron", ["pruning.exclude=[fc2]"]),
    "synop_value": ("does a price for spikes help?", ["pruning.criterion=synop_value"]),
    "synop_value, global": (
        "does a price for spikes help?",
        ["pruning.criterion=synop_value", "pruning.distribution=global"],
    ),
    "fisher allocation": ("does allocation matter?", ["pruning.distribution=fisher"]),
    "synops allocation": ("does a price for spikes help?", ["pruning.distribution=synops"]),
    "synops allocation, half": (
        "does a price for spikes help?",
        ["pruning.distribution={name: synops, share: 0.5}"],
    ),
    "grown by coincidence": (
        "does it matter where one grows?",
        ["pruning.swap={name: cosine, first: 0.1, last: 0.0}", "pruning.growth=coincidence", "pruning.exclude=[fc2]"],
    ),
    "grown by gradient per synop": (
        "does it matter where one grows?",
        ["pruning.swap={name: cosine, first: 0.1, last: 0.0}", "pruning.growth=gradient_per_synop"],
    ),
    "price 0.2": ("does a price on weights help?", ["pruning.penalty=0.2"]),
    "global, price 0.05": ("do they add up?", ["pruning.distribution=global", "pruning.penalty=0.05"]),
    "global, price 0.2": ("do they add up?", ["pruning.distribution=global", "pruning.penalty=0.2"]),
    "global, price 0.5": ("do they add up?", ["pruning.distribution=global", "pruning.penalty=0.5"]),
    "lamp, price 0.2": ("do they add up?", ["pruning.distribution=lamp", "pruning.penalty=0.2"]),
    "global, price 0.2, swap 0.3": (
        "do they add up?",
        ["pruning.distribution=global", "pruning.penalty=0.2", SWAP],
    ),
    "dpap": (
        "how far does it go?",
        ["pruning={type: snnsl.dpap, pressure: 48.7, every: 20it, start: 0it, until: '70%'}"],
    ),
    "sd_snn": (
        "how far does it go?",
        ["pruning={type: snnsl.sd_snn, patience: 3, pressure: 4, every: 20it, start: 0it, until: '70%'}"],
    ),
    "lamp at gmp's SynOps": (
        "allocation, at equal SynOps?",
        ["pruning.distribution=lamp", "pruning.budget={name: synops, per_sample: {synops}}"],
    ),
    "lamp, swap 0.3": ("do they add up?", BOTH),
    "lamp, swap 0.3, virtual guide": (
        "do they add up?",
        [*BOTH, "distillation={guide: virtual, temperature: 4, weight: 0.3}"],
    ),
    "lamp, swap 0.3, label smoothing 0.1": ("do they add up?", [*BOTH, "train.label_smoothing=0.1"]),
}


def keys(task: str, arm: str, seed: int) -> list[str]:
    """What a run changes of the bench recipe."""
    fold = [f"data.fold={seed}"] if task == "nmnist" else []
    return [*(key.replace("{synops}", str(SYNOPS[task])) for key in ARMS[arm][1]), *fold, f"seed={seed}"]


def train(task: str, arm: str, seed: int) -> dict[str, float]:
    """One run, in a process of its own; its measures on the validation part."""
    from snnsl_plugin.recipe.load import load
    from snnsl_plugin.recipe.runner import run

    with tempfile.TemporaryDirectory() as folder:
        recipe = load(f"bench/{task}", keys(task, arm, seed))
        result = run(recipe, run_dir=Path(folder) / "run", judge="validation")
    return {
        "digest": result["digest"],
        "accuracy": result["accuracy"]["validation"],
        "connections": result["density"]["connections"]["live"],
        "synops": result["validation"]["synops_per_sample"],
        "silent": statistics.mean(result["silent"].values()),
        "seconds": result["wall_s"],
    }


def digest_of(task: str, arm: str, seed: int) -> str:
    """What names a run: the same again is not trained again."""
    from snnsl_plugin.recipe.digest import digest
    from snnsl_plugin.recipe.load import load

    return digest(load(f"bench/{task}", keys(task, arm, seed)))


def rows(runs: dict[str, dict[str, dict[str, float]]]) -> Iterator[str]:
    """The table as Markdown: means over seeds, and differences from the reference paired by seed."""
    yield "| arm | question | validation accuracy, % | difference, points, 95 % | seeds | connections | SynOps | silent |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    for arm, (question, _) in ARMS.items():
        done = runs.get(arm, {})
        if not done:
            continue
        mean = {key: statistics.mean(run[key] for run in done.values()) for key in ("connections", "synops", "silent")}
        pairs = [
            100 * (run["accuracy"] - runs[BASE][seed]["accuracy"]) for seed, run in done.items() if seed in runs[BASE]
        ]
        said = "reference" if arm == BASE else interval(pairs)
        accuracy = 100 * statistics.mean(run["accuracy"] for run in done.values())
        yield (
            f"| {arm} | {question} | {accuracy:.1f} | {said} | {len(done)} | {mean['connections']:,.0f} | {mean['synops']:,.0f} | "
            f"{mean['silent']:.2f} |"
        )


def interval(pairs: list[float]) -> str:
    """A mean and Student's 95 % interval around it, in words."""
    mean, low, high = interval_of(pairs)
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]" if len(pairs) > 1 else f"{mean:+.1f}"


def interval_of(pairs: list[float]) -> tuple[float, float, float]:
    """A mean and both ends of Student's 95 % interval around it; without ends for a single number."""
    mean = statistics.mean(pairs)
    if len(pairs) < 2:
        return mean, -math.inf, math.inf
    half = student.ppf(0.975, len(pairs) - 1) * statistics.stdev(pairs) / len(pairs) ** 0.5
    return mean, mean - half, mean + half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("cifar100", "nmnist"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    path = ROOT / "docs" / "results" / f"hypotheses_{given.task}.json"
    stored = json.loads(path.read_text("utf-8")) if path.is_file() else {"runs": {}}
    runs: dict[str, dict[str, dict[str, float]]] = stored["runs"]
    wanted = [
        (arm, seed)
        for seed in given.seeds
        for arm in given.arms
        if runs.get(arm, {}).get(str(seed), {}).get("digest") != digest_of(given.task, arm, seed)
    ]
    with ProcessPoolExecutor(given.workers, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        pending = {pool.submit(train, given.task, arm, seed): (arm, seed) for arm, seed in wanted}
        for count, future in enumerate(as_completed(pending), start=1):
            arm, seed = pending[future]
            runs.setdefault(arm, {})[str(seed)] = future.result()
            print(f"{count}/{len(wanted)} {arm}, seed {seed}: {future.result()['accuracy']:.4f}", flush=True)
            path.write_text(json.dumps({"date": date.today().isoformat(), "runs": runs}, indent=1) + "\n", "utf-8")
    print("\n".join(rows(runs)))


if __name__ == "__main__":
    main()
