"""How many synaptic operations does a method need for the same accuracy?

    SNNSL_DATA=... python tests/benchmarks/synops.py nmnist --seeds 0 1 2 --workers 2

Every method is trained at four densities with five prices on operations (`synops_loss`), on a bench task; on nmnist the
seed is also the fold. Operating points are chosen by validation: a point stays if none that has as good an accuracy there
has fewer operations. Along those points ln(SynOps) is interpolated at the dense network's test accuracy less 0.5, 1 and 2
points. Intervals are of a bootstrap over seeds and, within each, over test images. Adds to docs/results/synops_<task>.json,
prints the tables and draws the curves; finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
DENSITIES = (0.02, 0.05, 0.1, 0.2)
PRICES = (0.0, 0.02, 0.05, 0.1, 0.2)
LOSSES = (0.5, 1.0, 2.0)
REFERENCE = "gmp"
METHODS: dict[str, list[str]] = {
    REFERENCE: [],
    "default": ["pruning.distribution=lamp", "pruning.swap={name: cosine, first: 0.3, last: 0.0}"],
    "synop_value": ["pruning.criterion=synop_value", "pruning.distribution=synops"],
}


def keys(task: str, method: str, density: float, price: float, seed: int) -> list[str]:
    """What a run changes of the bench recipe."""
    fold = [f"data.fold={seed}"] if task == "nmnist" else []
    if method == "dense":
        return ["pruning={type: dense}", *fold, f"seed={seed}"]
    priced = [f"health=[{{name: synops_loss, weight: {price}}}]"] if price else []
    return [*METHODS[method], f"pruning.density.last={density}", *priced, *fold, f"seed={seed}"]


def train(task: str, changed: list[str]) -> dict[str, Any]:
    """One run, in a process of its own: its measures, and which test images it got right."""
    import torch

    from snnsl_plugin.anatomy import reset_
    from snnsl_plugin.recipe import assemble
    from snnsl_plugin.recipe.load import load
    from snnsl_plugin.recipe.runner import run
    from snnsl_plugin.training.loop import batches

    recipe = load(f"bench/{task}", changed)
    with tempfile.TemporaryDirectory() as folder:
        result = run(recipe, run_dir=Path(folder) / "run")
        parts = assemble.data(recipe)
        network = assemble.load_network(Path(folder) / "run", parts).eval()
    right: list[int] = []
    with torch.no_grad():
        for x, y in batches(parts.test, "cpu"):
            reset_(network)
            right += (network(x).mean(0).argmax(1) == y).int().tolist()
    if not math.isclose(np.mean(right), result["accuracy"]["test"], abs_tol=1e-9):
        raise SystemExit(f"the network of {changed} answers otherwise than when it was measured")
    layers = result["density"]["layers"]
    return {
        "digest": result["digest"],
        "validation": result["accuracy"]["validation"],
        "validation_synops": result["validation"]["synops_per_sample"],
        "test": result["accuracy"]["test"],
        "synops": result["synops_per_sample"],
        "connections": result["density"]["connections"]["live"],
        "kept": {name: layer["kept"] for name, layer in layers.items()},
        "right": "".join(map(str, right)),
        "seconds": result["wall_s"],
    }


Runs = dict[str, dict[str, dict[str, Any]]]  #: method -> "density price" -> seed -> run


def front(points: dict[str, dict[str, Any]], seeds: list[str]) -> list[str]:
    """The points that no other beats on validation, means over seeds: from few operations to many."""
    mean = {
        point: tuple(np.mean([runs[seed][word] for seed in seeds]) for word in ("validation", "validation_synops"))
        for point, runs in points.items()
        if all(seed in runs for seed in seeds)
    }
    kept = [
        one
        for one, (accuracy, synops) in mean.items()
        if not any(
            other != one and a >= accuracy and s <= synops and (a, s) != (accuracy, synops)
            for other, (a, s) in mean.items()
        )
    ]
    return sorted(kept, key=lambda point: mean[point][1])


def log_synops_at(accuracy: float, curve: list[tuple[float, float]]) -> float:
    """ln(SynOps) where a curve of (test accuracy, ln SynOps) first reaches an accuracy; NaN where it never does.

    Between two points it is a straight line. What a point with fewer operations reaches, one with more reaches too.
    """
    best, at = -math.inf, math.nan
    for reached, spent in curve:
        if reached >= accuracy:
            if best == -math.inf:
                return spent
            return at + (spent - at) * (accuracy - best) / (reached - best)
        if reached > best:
            best, at = reached, spent
    return math.nan


def curve(
    runs: dict[str, dict[str, Any]], chosen: list[str], drawn: list[tuple[str, np.ndarray]]
) -> list[tuple[float, float]]:
    """Accuracy on drawn images and ln(SynOps), means over drawn seeds, of the chosen points."""
    return [
        (
            float(np.mean([hits(runs[point][seed])[images].mean() for seed, images in drawn])),
            float(np.log(np.mean([runs[point][seed]["synops"] for seed, _ in drawn]))),
        )
        for point in chosen
    ]


def hits(run: dict[str, Any]) -> np.ndarray:
    """1 for each test image that a run got right."""
    return np.frombuffer(run["right"].encode(), dtype=np.uint8) - ord("0")


def ratios(
    runs: Runs, method: str, seeds: list[str], repetitions: int = 2000
) -> Iterator[tuple[float, float, float, float]]:
    """Per loss of accuracy: SynOps of a method over the reference's, and its 95 % interval."""
    random = np.random.default_rng(0)
    chosen = {name: front(runs[name], seeds) for name in (method, REFERENCE)}
    dense = runs["dense"]["1"]
    whole = [(seed, np.arange(len(dense[seed]["right"]))) for seed in seeds]

    def at(drawn: list[tuple[str, np.ndarray]]) -> list[float]:
        reached = float(np.mean([hits(dense[seed])[images].mean() for seed, images in drawn]))
        curves = {name: curve(runs[name], points, drawn) for name, points in chosen.items()}
        return [
            log_synops_at(reached - loss / 100, curves[method]) - log_synops_at(reached - loss / 100, curves[REFERENCE])
            for loss in LOSSES
        ]

    repeated = []
    for _ in range(repetitions):
        picked = random.choice(len(seeds), len(seeds))
        repeated.append(at([(seeds[i], random.choice(whole[i][1], len(whole[i][1]))) for i in picked]))
    for loss, middle, many in zip(LOSSES, at(whole), np.transpose(repeated), strict=True):
        known = many[~np.isnan(many)]
        low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (math.nan, math.nan)
        yield loss, math.exp(middle), math.exp(low), math.exp(high)


def rows(runs: Runs, seeds: list[str]) -> Iterator[str]:
    """The ratios as Markdown."""
    yield "| method | dense less | SynOps / SynOps of " + REFERENCE + " | 95 % |"
    yield "|---|---:|---:|---:|"
    for method in METHODS:
        if method != REFERENCE and method in runs:
            for loss, ratio, low, high in ratios(runs, method, seeds):
                yield f"| {method} | {loss} | {ratio:.2f} | {low:.2f} to {high:.2f} |"


def draw(runs: Runs, seeds: list[str], path: Path) -> None:
    """All points, and the chosen ones joined."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    whole = [(seed, np.arange(len(runs["dense"]["1"][seed]["right"]))) for seed in seeds]
    for colour, method in zip(("#1b6ca8", "#c8553d", "#3a7d44"), METHODS, strict=True):
        points = [point for point, done in runs.get(method, {}).items() if all(seed in done for seed in seeds)]
        if not points:
            continue
        every, chosen = curve(runs[method], points, whole), curve(runs[method], front(runs[method], seeds), whole)
        axes.scatter([math.exp(x) for _, x in every], [100 * y for y, _ in every], s=12, color=colour, alpha=0.35)
        axes.plot(
            [math.exp(x) for _, x in chosen], [100 * y for y, _ in chosen], "o-", color=colour, label=method, ms=4
        )
    dense = 100 * float(np.mean([runs["dense"]["1"][seed]["test"] for seed in seeds]))
    axes.axhline(dense, color="0.4", lw=1, ls="--")
    axes.annotate("dense", (1, dense), xycoords=("axes fraction", "data"), ha="right", va="bottom", color="0.3")
    axes.set_xscale("log")
    axes.set_xlabel("SynOps per sample")
    axes.set_ylabel("test accuracy, %")
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("cifar100", "nmnist"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--print", action="store_true", help="print the table and draw, train nothing")
    given = parser.parse_args()
    path = ROOT / "docs" / "results" / f"synops_{given.task}.json"
    stored = json.loads(path.read_text("utf-8")) if path.is_file() else {"runs": {}}
    runs: Runs = stored["runs"]
    wanted = [
        (method, density, price, seed)
        for seed in given.seeds
        for density, price in [(d, p) for d in DENSITIES for p in PRICES]
        for method in given.methods
    ]
    wanted = [("dense", 1, 0.0, seed) for seed in given.seeds] + wanted
    name = lambda density, price: f"{density:g} {price:g}" if density < 1 else "1"  # noqa: E731
    wanted = [each for each in wanted if str(each[3]) not in runs.get(each[0], {}).get(name(*each[1:3]), {})]
    if not given.print:
        with ProcessPoolExecutor(given.workers, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
            pending = {pool.submit(train, given.task, keys(given.task, *each)): each for each in wanted}
            for count, future in enumerate(as_completed(pending), start=1):
                method, density, price, seed = pending[future]
                done = future.result()
                runs.setdefault(method, {}).setdefault(name(density, price), {})[str(seed)] = done
                print(f"{count}/{len(wanted)} {pending[future]}: {done['test']:.4f}, {done['synops']:,.0f}", flush=True)
                text = json.dumps({"date": date.today().isoformat(), "runs": runs}, indent=1)
                path.with_suffix(".part").write_text(text + "\n", "utf-8")
                path.with_suffix(".part").replace(path)
    seeds = [str(seed) for seed in given.seeds]
    print("\n".join(rows(runs, seeds)))
    draw(runs, seeds, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
