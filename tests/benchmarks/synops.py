"""How many synaptic operations does a method need for the same accuracy?

    SNNSL_DATA=... python tests/benchmarks/synops.py nmnist --seeds 0 1 2 --workers 2

Every method is trained at five densities with five prices on operations (`synops_loss`), on a bench task; on nmnist the
seed is also the fold. Operating points are chosen by validation: a point stays if none that has as good an accuracy
there has fewer operations. Along those points ln(SynOps) is interpolated at the dense network's test accuracy less 0.5,
1, 2, 5 and 10 points. Intervals are of a bootstrap over seeds and, within each, over test images. Adds to
docs/results/synops_<task>.json, prints the tables and draws the curves; finished runs are not repeated.
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
DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.4)
PRICES = (0.0, 0.02, 0.05, 0.1, 0.2)
LOSSES = (0.5, 1.0, 2.0, 5.0, 10.0)
REFERENCE = "gmp"
METHODS: dict[str, list[str]] = {
    REFERENCE: [],
    "default": ["pruning.distribution=lamp"],
    "priced": ["pruning.distribution=lamp", "pruning.penalty=0.2"],
    "synop_value": ["pruning.criterion=synop_value", "pruning.distribution=synops"],
    "gmp, T = 2": ["{T}=2"],
}


def keys(task: str, method: str, density: float, price: float, seed: int) -> list[str]:
    """What a run changes of the bench recipe."""
    fold = [f"data.fold={seed}"] if task == "nmnist" else []
    if method == "dense":
        return ["pruning={type: dense}", *fold, f"seed={seed}"]
    priced = [f"health=[{{name: synops_loss, weight: {price}}}]"] if price else []
    steps = "data.encoder.T" if task == "cifar100" else "data.T"
    own = [key.replace("{T}", steps) for key in METHODS[method]]
    return [*own, f"pruning.density.last={density}", *priced, *fold, f"seed={seed}"]


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
    return {
        "digest": result["digest"],
        "validation": result["accuracy"]["validation"],
        "validation_synops": result["validation"]["synops_per_sample"],
        "test": result["accuracy"]["test"],
        "synops": result["synops_per_sample"],
        "connections": result["density"]["connections"]["live"],
        "spikes": spikes_read(network, parts.test),
        "right": "".join(map(str, right)),
        "seconds": result["wall_s"],
    }


def spikes_read(network: Any, part: Any) -> float:
    """Spikes that layers read, a sample: those of a neuron layer once for each layer behind it."""
    from snnsl_plugin.anatomy import weight_layers
    from snnsl_plugin.core.spikes import is_binary
    from snnsl_plugin.metrics.measure import measure
    from snnsl_plugin.training.loop import batches

    read = [0]

    def count(_: Any, arguments: tuple[Any, ...]) -> None:
        if is_binary(arguments[0]):
            read[0] += int(arguments[0].sum())

    handles = [layer.register_forward_pre_hook(count) for layer in weight_layers(network).values()]
    samples = measure(network, batches(part, "cpu"), synops=False).samples
    for handle in handles:
        handle.remove()
    return read[0] / samples


Runs = dict[str, dict[str, dict[str, Any]]]  #: method -> "density price" -> seed -> run


def front(points: dict[str, dict[str, Any]], seeds: list[str]) -> list[str]:
    """The points that no other beats on validation, means over seeds: from few operations to many."""
    mean = {
        point: tuple(np.mean([runs[seed][word] for seed in seeds]) for word in ("validation", "validation_synops"))
        for point, runs in points.items()
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


def log_at(accuracy: float, curve: list[tuple[float, float]]) -> float:
    """Where a curve of (test accuracy, ln of a measure), from few SynOps to many, first reaches an accuracy.

    Between two points it is a straight line. Infinite where no point reaches it, minus infinite where the first one
    already does: then more, or fewer, operations are needed than were measured.
    """
    best, at = -math.inf, -math.inf
    for reached, spent in curve:
        if reached >= accuracy:
            return at + (spent - at) * (accuracy - best) / (reached - best) if best > -math.inf else -math.inf
        if reached > best:
            best, at = reached, spent
    return math.inf


def curve(
    runs: dict[str, dict[str, Any]], chosen: list[str], drawn: list[tuple[str, np.ndarray]], word: str = "synops"
) -> list[tuple[float, float]]:
    """Accuracy on drawn images and the ln of a measure, means over drawn seeds, of the chosen points."""
    return [
        (
            float(np.mean([hits(runs[point][seed])[images].mean() for seed, images in drawn])),
            float(np.log(np.mean([runs[point][seed][word] for seed, _ in drawn]))),
        )
        for point in chosen
    ]


def hits(run: dict[str, Any]) -> np.ndarray:
    """1 for each test image that a run got right."""
    return np.frombuffer(run["right"].encode(), dtype=np.uint8) - ord("0")


def ratios(
    task: str, runs: Runs, method: str, seeds: list[str], repetitions: int = 2000
) -> Iterator[tuple[float, ...]]:
    """Per loss of accuracy: ln of the SynOps of a method over the reference's, its 95 % interval, the share left open.

    A repetition is open where one of both curves does not span the accuracy; then the ratio is infinite, or unknown where
    neither does. Infinite ones count in the interval, unknown ones leave it open.
    """
    random = np.random.default_rng(0)
    chosen = {name: front(runs[name], seeds) for name in (method, REFERENCE)}
    dense = runs["dense"]["1"]
    whole = [(seed, np.arange(len(dense[seed]["right"]))) for seed in seeds]

    def at(drawn: list[tuple[str, np.ndarray]]) -> list[float]:
        reached = float(np.mean([hits(dense[seed])[images].mean() for seed, images in drawn]))
        curves = {name: curve(runs[name], points, drawn) for name, points in chosen.items()}
        both = [[log_at(reached - loss / 100, each) for each in curves.values()] for loss in LOSSES]
        return [math.nan if math.isinf(one) and math.isinf(other) else one - other for one, other in both]

    def images_of(number: int, shared: np.ndarray | None) -> np.ndarray:
        return random.choice(whole[number][1], len(whole[number][1])) if shared is None else shared

    repeated = []
    for _ in range(repetitions):
        # On nmnist each seed has a test fold of its own; on cifar100 all have the same images, drawn once for all.
        shared = None if task == "nmnist" else random.choice(whole[0][1], len(whole[0][1]))
        picked = random.choice(len(seeds), len(seeds))
        repeated.append(at([(seeds[i], images_of(i, shared)) for i in picked]))
    for loss, middle, many in zip(LOSSES, at(whole), np.transpose(repeated), strict=True):
        known = many[~np.isnan(many)]
        unknown = 1 - len(known) / len(many)
        low, high = (
            np.quantile(known, [0.025, 0.975], method="inverted_cdf") if unknown <= 0.025 else (-math.inf, math.inf)
        )
        yield loss, middle, float(low), float(high), float(np.mean(~np.isfinite(many)))


def split(runs: Runs, method: str, seeds: list[str], loss: float) -> list[float]:
    """The ln of the ratio at an accuracy, in three: of live connections, of spikes read, and of where they meet.

    SynOps = connections x spikes x the rest, and the rest says whether connections wait where spikes are many.
    """
    dense = runs["dense"]["1"]
    whole = [(seed, np.arange(len(dense[seed]["right"]))) for seed in seeds]
    reached = float(np.mean([dense[seed]["test"] for seed in seeds])) - loss / 100

    def at(word: str) -> float:
        one, other = (
            log_at(reached, curve(runs[name], front(runs[name], seeds), whole, word)) for name in (method, REFERENCE)
        )
        return math.nan if math.isinf(one) or math.isinf(other) else one - other

    connections, spikes = at("connections"), at("spikes")
    return [connections, spikes, at("synops") - connections - spikes]


def rows(task: str, runs: Runs, seeds: list[str]) -> Iterator[str]:
    """The ratios as Markdown."""

    def times(log: float) -> str:
        return (
            "unknown"
            if math.isnan(log)
            else "more"
            if log == math.inf
            else "less"
            if log == -math.inf
            else f"{math.exp(log):.2f}"
        )

    yield f"| method | dense less | SynOps / SynOps of {REFERENCE} | 95 % | repetitions left open |"
    yield "|---|---:|---:|---:|---:|"
    for method in METHODS:
        if method != REFERENCE and method in runs:
            for loss, ratio, low, high, left in ratios(task, runs, method, seeds):
                yield f"| {method} | {loss} | {times(ratio)} | {times(low)} to {times(high)} | {left:.0%} |"
    yield ""
    yield f"| method | dense less | connections | spikes read | allocation, all over {REFERENCE}'s |"
    yield "|---|---:|---:|---:|---:|"
    for method in METHODS:
        if method != REFERENCE and method in runs:
            for loss in LOSSES:
                shown = " | ".join(times(each) for each in split(runs, method, seeds, loss))
                yield f"| {method} | {loss} | {shown} |"


def draw(runs: Runs, seeds: list[str], path: Path) -> None:
    """All points, and the chosen ones joined."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    whole = [(seed, np.arange(len(runs["dense"]["1"][seed]["right"]))) for seed in seeds]
    for colour, method in zip(("#1b6ca8", "#c8553d", "#b58900", "#3a7d44", "#6b4c9a"), METHODS, strict=True):
        if method not in runs:
            continue
        points = list(runs[method])
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
    from snnsl_plugin.recipe.digest import digest
    from snnsl_plugin.recipe.load import load

    path = ROOT / "docs" / "results" / f"synops_{given.task}.json"
    stored = json.loads(path.read_text("utf-8")) if path.is_file() else {"runs": {}}
    runs: Runs = stored["runs"]
    grid = [("1", "dense", 1.0, 0.0)] + [
        (f"{density:g} {price:g}", method, density, price)
        for density in DENSITIES
        for price in PRICES
        for method in dict.fromkeys([REFERENCE, *given.methods])
    ]
    wanted = [(*each, seed) for seed in given.seeds for each in grid]
    wanted = [
        (point, method, density, price, seed)
        for point, method, density, price, seed in wanted
        if runs.get(method, {}).get(point, {}).get(str(seed), {}).get("digest")
        != digest(load(f"bench/{given.task}", keys(given.task, method, density, price, seed)))
    ]
    if not given.print:
        with ProcessPoolExecutor(given.workers, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
            pending = {pool.submit(train, given.task, keys(given.task, *each[1:])): each for each in wanted}
            for count, future in enumerate(as_completed(pending), start=1):
                point, method, _, _, seed = pending[future]
                done = future.result()
                runs.setdefault(method, {}).setdefault(point, {})[str(seed)] = done
                print(
                    f"{count}/{len(wanted)} {method} {point}, {seed}: {done['test']:.4f}, {done['synops']:,.0f}",
                    flush=True,
                )
                text = json.dumps({"date": date.today().isoformat(), "runs": runs}, indent=1)
                path.with_suffix(".part").write_text(text + "\n", "utf-8")
                path.with_suffix(".part").replace(path)
    seeds = [str(seed) for seed in given.seeds]
    if given.print and wanted:
        raise SystemExit(f"{len(wanted)} runs are missing: train them first")
    print("\n".join(rows(given.task, runs, seeds)))
    draw(runs, seeds, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
