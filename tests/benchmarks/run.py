"""Prints and stores the figures of docs/benchmarks.md. Ratios are measured interleaved in one run; never a test.

make bench, or python tests/benchmarks/run.py nni_overhead cold_start for some of them: the others' figures stay.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from loaders import loaders
from structured import cut_sew_resnet18, cut_vgg9

ROOT = Path(__file__).parents[2]
THREADS = 2


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def interleaved(a: Callable[[], object], b: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds of two pieces of work, taken in turns so that both meet the same noise."""
    times = [(seconds(a), seconds(b)) for _ in range(rounds)]
    return statistics.median(t for t, _ in times), statistics.median(t for _, t in times)


def extra_peak_bytes(work: Callable[[], object]) -> float:
    """Peak resident memory during some work, above what was resident before it (Linux only)."""

    def kibibytes(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field))

    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = kibibytes("VmRSS")
    work()
    return (kibibytes("VmHWM") - before) * 1024


def mask_update() -> dict[str, float]:
    """A full update of 25 million weights (drop and grow) against one torch.topk over the same scores."""
    from snnsl_plugin.core import criteria, distributions, growth, rules, schedules
    from snnsl_plugin.core.layer import Layer
    from snnsl_plugin.core.update import update

    generator = torch.Generator().manual_seed(0)
    layers = []
    for number in range(10):
        weight = torch.randn(1000, 2500, generator=generator)
        mask = torch.rand(1000, 2500, generator=generator) < 0.2
        layers.append(
            Layer(str(number), weight * mask, {"mask": mask}, grad=torch.randn(1000, 2500, generator=generator))
        )
    scores = torch.cat([layer.weight.abs().flatten() for layer in layers])

    def ours(distribution: object) -> Callable[[], object]:
        return lambda: update(
            lambda all_layers, progress: rules.drop_grow(
                all_layers,
                progress,
                density=schedules.constant(value=0.1),
                swap=schedules.constant(value=0.3),
                criterion=criteria.magnitude,
                growth=growth.gradient,
                distribution=distribution,
            ),
            layers,
            0.5,
        )

    figures = {}
    figures["peak_during_update_bytes_per_weight"] = extra_peak_bytes(ours(distributions.erk)) / 25e6
    for name in ("erk", "global_"):
        topk, own = interleaved(lambda: scores.topk(2_500_000), ours(getattr(distributions, name)), 5)
        figures[f"topk_s_beside_{name.strip('_')}"] = topk
        figures[f"update_{name.strip('_')}_s"] = own
        figures[f"update_{name.strip('_')}_over_topk"] = own / topk
    return figures


def pruner_overhead(steps: int = 100) -> dict[str, float]:
    """Training vgg9 with DynamicPruner and spike_saliency, one update every 100 steps, against plain training."""
    from snnsl_plugin.anatomy import reset_
    from snnsl_plugin.core import schedules
    from snnsl_plugin.models.vgg9 import vgg9
    from snnsl_plugin.training.losses import cross_entropy
    from snnsl_plugin.training.pruner import DynamicPruner

    def trainer(pruned: bool) -> tuple[Callable[[], None], DynamicPruner | None]:
        torch.manual_seed(0)
        model = vgg9((3, 32, 32), 10)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        pruner = None
        if pruned:
            pruner = DynamicPruner(
                model, optimizer, criterion="spike_saliency", density=schedules.cubic(first=1.0, last=0.1),
                swap=schedules.cosine(first=0.3, last=0.0), every="100it", until=f"{10 * steps}it",
            )  # fmt: skip
        x, y = torch.rand(4, 16, 3, 32, 32), torch.randint(0, 10, (16,))

        def step() -> None:
            reset_(model)
            cross_entropy(model(x), y).backward()
            optimizer.step()
            if pruner:
                pruner.step()
            optimizer.zero_grad()

        return step, pruner

    plain, _ = trainer(False)
    ours, pruner = trainer(True)
    for _ in range(2):
        plain()
    total = {"plain": 0.0, "ours": 0.0}
    ratios = []
    for number in range(steps):
        # Who goes first alternates, so that neither always finds the other's data in the cache.
        order = (("plain", plain), ("ours", ours)) if number % 2 else (("ours", ours), ("plain", plain))
        spent = {name: seconds(step) for name, step in order}
        ratios.append(spent["ours"] / spent["plain"])
        for name in total:
            total[name] += spent[name]
    assert pruner is not None
    weights = sum(mask.numel() for mask in pruner.masks.values())
    held = [tensor for state in pruner._states.values() for tensor in state.values()]
    return {
        "plain_s_per_step": total["plain"] / steps,
        "pruned_s_per_step": total["ours"] / steps,
        "pruned_over_plain": total["ours"] / total["plain"],
        "pruned_over_plain_median_step": statistics.median(ratios),
        "resident_bytes_per_prunable_weight": sum(t.numel() * t.element_size() for t in held) / weights,
    }


def nni_overhead(interval: int = 10, updates: int = 8, rounds: int = 5) -> dict[str, float]:
    """A training step of an NNI pipeline with SpikingDynamicPruner against one with AGPPruner(LevelPruner).

    The network and batch of recipes/bench/cifar100.yaml, in both step modes. Masks are updated often, so that there are
    updates enough for a median, and the figure spreads one over 100 steps, the default. A second AGPPruner in the same
    turns shows how far two equal things lie apart; each round makes all three anew, and the median round counts.
    """
    import nni
    from nni.compression import TorchEvaluator
    from nni.compression.pruning import AGPPruner, LevelPruner

    from snnsl_plugin.anatomy import reset_
    from snnsl_plugin.for_nni import SpikingDynamicPruner
    from snnsl_plugin.models.spiking_cnn import spiking_cnn

    def agp(model, config, evaluator):  # type: ignore[no-untyped-def]
        return AGPPruner(LevelPruner(model, config, evaluator), interval_steps=interval, total_times=updates)

    def ours(model, config, evaluator):  # type: ignore[no-untyped-def]
        # The same density in each layer as there, so that both compute with equally many weights.
        return SpikingDynamicPruner(
            model, config, evaluator, interval_steps=interval, total_times=updates, distribution=None
        )

    x, y = torch.rand(1, 64, 3, 16, 16).repeat(4, 1, 1, 1, 1), torch.randint(0, 20, (64,))

    def stepper(pruner, mode: str) -> Callable[[], None]:  # type: ignore[no-untyped-def]
        torch.manual_seed(0)
        model = spiking_cnn((3, 16, 16), 20, channels=(32, 64), hidden=128)
        for module in model.modules():
            if hasattr(module, "step_mode"):
                module.step_mode = mode

        def training_step(batch, model):  # type: ignore[no-untyped-def]
            reset_(model)
            logits = model(x) if mode == "m" else torch.stack([model(each) for each in x])
            return torch.nn.functional.cross_entropy(logits.mean(0), y)

        optimizer = nni.trace(torch.optim.AdamW)(model.parameters(), lr=2e-3)
        evaluator = TorchEvaluator(lambda *_: None, optimizer, training_step)
        head = pruner(model, [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.95}], evaluator)
        # What compress() does before it hands over to the training function, so that both can be trained in turns.
        evaluator.bind_model(model, head._get_param_names_map())
        for compressor in head.fused_compressors:
            compressor._fuse_preprocess(evaluator)
        made = evaluator._optimizers[0]

        def step() -> None:
            made.zero_grad()
            evaluator._training_step((x, y), model).backward()
            made.step()

        return step

    def of_pruner(spent: list[float]) -> float:
        ordinary = [s for number, s in enumerate(spent, start=1) if number % interval]
        return (99 * statistics.median(ordinary) + statistics.median(spent[interval - 1 :: interval])) / 100

    def one_round(mode: str) -> dict[str, float]:
        steppers = {"agp": stepper(agp, mode), "agp_again": stepper(agp, mode), "ours": stepper(ours, mode)}
        spent: dict[str, list[float]] = {name: [] for name in steppers}
        for turn in range(interval * updates):
            names = list(steppers)
            for name in names[turn % 3 :] + names[: turn % 3]:
                spent[name].append(seconds(steppers[name]))
        each = {name: of_pruner(those) for name, those in spent.items()}
        return {
            f"nni_agp_s_per_step_{mode}": each["agp"],
            f"nni_ours_s_per_step_{mode}": each["ours"],
            f"nni_ours_over_agp_{mode}": each["ours"] / ((each["agp"] + each["agp_again"]) / 2),
            f"nni_agp_over_agp_{mode}": each["agp"] / each["agp_again"],
        }

    figures = {}
    for mode in ("m", "s"):
        measured = [one_round(mode) for _ in range(rounds)]
        figures |= {key: statistics.median(each[key] for each in measured) for key in measured[0]}
        ratios = [each[f"nni_ours_over_agp_{mode}"] for each in measured]
        figures |= {f"nni_ours_over_agp_{mode}_least": min(ratios), f"nni_ours_over_agp_{mode}_most": max(ratios)}
    return figures


def fit_overhead(rounds: int = 5, steps: int = 40) -> dict[str, float]:
    """A step of `fit` against one of a plain SpikingJelly loop: the network and batch of bench/cifar100, multi-step.

    Both have the same batches in memory. Once `fit` alone, once with a `DynamicPruner` that updates every 20 steps, as in
    that recipe. Steps are taken in turns; each round makes all of it anew, and the median round counts.
    """
    from spikingjelly.activation_based import functional

    from snnsl_plugin.core import schedules
    from snnsl_plugin.models.spiking_cnn import spiking_cnn
    from snnsl_plugin.training.events import Step
    from snnsl_plugin.training.loop import Training, fit
    from snnsl_plugin.training.pruner import DynamicPruner

    held = [(torch.rand(1, 64, 3, 16, 16).repeat(4, 1, 1, 1, 1), torch.randint(0, 20, (64,))) for _ in range(steps)]

    class Held:
        def __len__(self) -> int:
            return len(held)

        def epoch(self, generator: torch.Generator):  # type: ignore[no-untyped-def]
            return iter(held)

    def made():  # type: ignore[no-untyped-def]
        torch.manual_seed(0)
        model = spiking_cnn((3, 16, 16), 20, channels=[32, 64], hidden=128)
        return model, torch.optim.AdamW(model.parameters(), lr=2e-3)

    def plain() -> Callable[[], object]:
        model, optimizer = made()
        batches = iter(held)

        def step() -> None:
            x, y = next(batches)
            functional.reset_net(model)
            torch.nn.functional.cross_entropy(model(x).mean(0), y).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    def ours(pruned: bool) -> Callable[[], object]:
        model, optimizer = made()
        pruner = None
        if pruned:
            pruner = DynamicPruner(
                model, optimizer, density=schedules.cubic(first=1.0, last=0.05), every="20it", until=f"{steps}it"
            )
        training = fit(model, Held(), Held(), optimizer, Training(epochs=1, lr_schedule="constant"), pruner=pruner)
        events = (event for event in training if isinstance(event, Step))
        return lambda: next(events)

    def one_round() -> dict[str, float]:
        steppers = {"plain": plain(), "fit": ours(False), "fit_pruned": ours(True)}
        spent = dict.fromkeys(steppers, 0.0)
        for turn in range(steps):
            names = list(steppers)
            for name in names[turn % 3 :] + names[: turn % 3]:
                spent[name] += seconds(steppers[name])
        return {
            "fit_plain_s_per_step": spent["plain"] / steps,
            "fit_over_plain": spent["fit"] / spent["plain"],
            "fit_pruned_over_plain": spent["fit_pruned"] / spent["plain"],
        }

    measured = [one_round() for _ in range(rounds)]
    figures = {key: statistics.median(each[key] for each in measured) for key in measured[0]}
    ratios = [each["fit_over_plain"] for each in measured]
    return figures | {"fit_over_plain_least": min(ratios), "fit_over_plain_most": max(ratios)}


def cold_start() -> dict[str, float]:
    """Seconds of a fresh process, less those of an empty one."""

    def fresh(*words: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True, cwd=ROOT)

    fresh("-m", "snnsl_plugin", "--help")()  # compile what is to be compiled
    empty, import_ = interleaved(fresh("-c", ""), fresh("-c", "import snnsl_plugin"), 7)
    _, help_ = interleaved(fresh("-c", ""), fresh("-m", "snnsl_plugin", "--help"), 7)
    return {"import_s": import_ - empty, "help_s": help_}


def tracking() -> dict[str, float]:
    """What MLflow costs a digits run; the whole of it lies in docs/results/tracking_cost.json."""
    found = by_itself("tracking_cost.py")
    return {f"tracking_{name}": value for name, value in found.items() if isinstance(value, (int, float))}


def trials() -> dict[str, float]:
    """Trials a second against bare Optuna; the whole of it lies in docs/results/trials.json."""
    found = by_itself("trials.py")["results"]
    return {
        f"trials_{kind}_{workers}_{name}": value
        for kind, rows in found.items()
        for workers, row in rows.items()
        for name, value in row.items()
    }


def by_itself(script: str) -> dict:
    """What a benchmark that needs processes of its own has stored."""
    subprocess.run([sys.executable, str(Path(__file__).with_name(script))], check=True, cwd=ROOT)
    return json.loads((ROOT / "docs" / "results" / script.replace(".py", ".json")).read_text("utf-8"))


TEXT = """# Benchmarks

Written by `make bench` on {date}: {machine}, {threads} threads, Python {python}, torch {torch}. Timings on a shared
machine are noisy; each ratio compares two things measured in turns in one run. They are figures, not tests. Rows that were not
measured that day keep the figures of an earlier one.

| what | figure | promised |
|---|---|---|
| full mask update of 25 million weights (magnitude, gradient, swap 0.3, `erk`) / one `torch.topk` over the same scores | {update_erk_over_topk:.2f}x ({update_erk_s:.2f} s / {topk_s_beside_erk:.2f} s) | at most 2x |
| the same with `global` | {update_global_over_topk:.2f}x ({update_global_s:.2f} s / {topk_s_beside_global:.2f} s) | |
| peak memory during that update, above weights, masks and gradients | {peak_during_update_bytes_per_weight:.1f} bytes a weight | |
| training `vgg9` (T=4, batch 16, 32x32) with `DynamicPruner`, `spike_saliency`, updates every 100 steps / plain training, mean over 100 steps, the update included | {pruned_over_plain:.3f}x ({pruned_s_per_step:.3f} s / {plain_s_per_step:.3f} s a step) | at most 1.05x |
| the same, median of the 100 ratios of single steps | {pruned_over_plain_median_step:.3f}x | |
| a step of `fit` / of a plain SpikingJelly loop: the net of `bench/cifar100`, multi-step, the same batches | {fit_over_plain:.3f}x (median of 5 rounds from {fit_over_plain_least:.3f}x to {fit_over_plain_most:.3f}x; {fit_plain_s_per_step:.3f} s a plain step) | at most 1.15x |
| the same with `DynamicPruner`, an update every 20 steps | {fit_pruned_over_plain:.3f}x | |
| resident memory of the pruner | {resident_bytes_per_prunable_weight:.2f} bytes a prunable weight | 1 |
| a training step of an NNI pipeline with `SpikingDynamicPruner` / with `AGPPruner(LevelPruner)`: the net of `bench/cifar100`, multi-step, the same density in each layer, an update every 100 steps included | {nni_ours_over_agp_m:.3f}x (median of 5 rounds from {nni_ours_over_agp_m_least:.3f}x to {nni_ours_over_agp_m_most:.3f}x; two AGPPruners in the same turns: {nni_agp_over_agp_m:.3f}x) | at most 1x |
| the same in single-step mode, T=4 | {nni_ours_over_agp_s:.3f}x (from {nni_ours_over_agp_s_least:.3f}x to {nni_ours_over_agp_s_most:.3f}x; {nni_agp_over_agp_s:.3f}x) | at most 1x |
| inference of `vgg9` with all channels / with half of them (T=4, 32x32, median of 5 rounds in turns), batch 1 and 16 | {vgg9_batch1_speedup:.2f}x ({vgg9_batch1_dense_ms:.1f} ms / {vgg9_batch1_cut_ms:.1f} ms), {vgg9_batch16_speedup:.2f}x ({vgg9_batch16_dense_ms:.0f} ms / {vgg9_batch16_cut_ms:.0f} ms); multiply-accumulates {vgg9_macs_cut_over_dense:.3f}x | 1.7x, 2.4x |
| the same, cut and through `torch.compile` | {vgg9_batch1_compiled_speedup:.2f}x, {vgg9_batch16_compiled_speedup:.2f}x | 4x |
| `sew_resnet18` likewise, batch 1 and 16 | {sew_resnet18_batch1_speedup:.2f}x ({sew_resnet18_batch1_dense_ms:.1f} ms / {sew_resnet18_batch1_cut_ms:.1f} ms), {sew_resnet18_batch16_speedup:.2f}x ({sew_resnet18_batch16_dense_ms:.0f} ms / {sew_resnet18_batch16_cut_ms:.0f} ms) | 1.5x, 1.8x |
| an epoch of `digits` with tracking into sqlite / without, median of {tracking_rounds:.0f} rounds of {tracking_epochs:.0f} epochs, the first {tracking_starting_epochs:.0f} apart | {tracking_sqlite_over_off:.3f}x (from {tracking_sqlite_over_off_least:.3f}x to {tracking_sqlite_over_off_most:.3f}x; without / without: {tracking_off_again_over_off:.3f}x, from {tracking_off_again_over_off_least:.3f}x to {tracking_off_again_over_off_most:.3f}x) | at most 1.02x |
| the same into an MLflow server on this machine | {tracking_server_over_off:.3f}x (from {tracking_server_over_off_least:.3f}x to {tracking_server_over_off_most:.3f}x) | at most 1.02x |
| start-up beside it: until training begins, and the first {tracking_starting_epochs:.0f} epochs, without / sqlite / server | {tracking_off_until_training_s:.1f} / {tracking_sqlite_until_training_s:.1f} / {tracking_server_until_training_s:.1f} s; {tracking_off_starting_epochs_s:.1f} / {tracking_sqlite_starting_epochs_s:.1f} / {tracking_server_starting_epochs_s:.1f} s | |
| trials a second of `snnsl tune`'s workers / of bare Optuna, trials of 1 s, sqlite, 1, 2 and 4 workers | {trials_sqlite_1_ratio:.3f}x, {trials_sqlite_2_ratio:.3f}x, {trials_sqlite_4_ratio:.3f}x ({trials_sqlite_4_ours:.2f} / {trials_sqlite_4_bare:.2f} with 4) | at least 0.9x |
| the same with PostgreSQL | {trials_postgresql_1_ratio:.3f}x, {trials_postgresql_2_ratio:.3f}x, {trials_postgresql_4_ratio:.3f}x ({trials_postgresql_4_ours:.2f} / {trials_postgresql_4_bare:.2f} with 4) | at least 0.9x |
| samples a second of the loader alone / of training with it, by the processor's time on one thread: `digits` | {loader_over_training_digits:.0f}x ({loader_digits_samples_per_s:.0f} / {training_digits_samples_per_s:.0f}) | |
| the same, `bench/cifar100` | {loader_over_training_cifar100:.0f}x ({loader_cifar100_samples_per_s:.0f} / {training_cifar100_samples_per_s:.0f}) | |
| the same, `bench/nmnist` | {loader_over_training_nmnist:.0f}x ({loader_nmnist_samples_per_s:.0f} / {training_nmnist_samples_per_s:.0f}) | |
| the same, `dvs_gesture_quick` | {loader_over_training_dvs_gesture:.0f}x ({loader_dvs_gesture_samples_per_s:.0f} / {training_dvs_gesture_samples_per_s:.0f}) | |
| the loader alone with whole recordings of DVS128 Gesture (16 frames of 128x128, roll, drop, cutout), likewise | {loader_whole_recordings_samples_per_s:.0f} samples a second | |
| `import snnsl_plugin`, above an empty interpreter | {import_s:.3f} s | under 0.3 s |
| `snnsl --help`, whole process | {help_s:.2f} s | under 1 s |
"""


ALL = (
    mask_update,
    pruner_overhead,
    fit_overhead,
    nni_overhead,
    cut_vgg9,
    cut_sew_resnet18,
    tracking,
    trials,
    loaders,
    cold_start,
)


def main(chosen: list[str]) -> None:
    torch.set_num_threads(THREADS)
    results = ROOT / "docs" / "results"
    stored = results / "benchmarks.json"
    figures: dict[str, float] = (
        json.loads(stored.read_text("utf-8")) if stored.is_file() else {}
    )  # what is not measured now keeps its figure
    for benchmark in ALL:
        if not chosen or benchmark.__name__ in chosen:
            figures |= benchmark()
    about = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores ({platform.machine()})",
        "threads": THREADS,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    print(json.dumps(figures | about, indent=1))
    results.mkdir(parents=True, exist_ok=True)
    stored.write_text(json.dumps(figures | about, indent=1) + "\n", encoding="utf-8")
    (ROOT / "docs" / "benchmarks.md").write_text(TEXT.format(**(figures | about)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
