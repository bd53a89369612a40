"""A complete comparison.json of made-up runs, for tests that read, judge or show one."""

import zlib
from typing import Any

import numpy as np

from snnsl_plugin.comparison import judgement

SEEDS = [0, 1, 2]
DENSITIES = [{"kind": "density", "value": 0.1}, {"kind": "density", "value": 0.05}]
SYNOPS = {"kind": "synops", "value": 0.2}
# name, kind, points lost at density 0.1 (twice that at 0.05), training cost
PRUNERS = [
    ("dense", "dense", 0.0, 1.0),
    ("snnsl.default", "unstructured", 0.010, 0.45),
    ("snnsl.gmp", "unstructured", 0.012, 0.45),
    ("snnsl.set", "unstructured", 0.020, 0.11),
    ("snnsl.stds", "unstructured", 0.025, 0.60),
    ("nni.level", "unstructured", 0.030, 1.10),
    ("nni.agp", "unstructured", 0.014, 0.50),
    ("torch.l1", "unstructured", 0.030, 1.10),
    ("torch.random", "unstructured", 0.300, 1.10),
    ("snnsl.structured", "structured", 0.030, 0.40),
    ("torch_pruning.magnitude", "structured", 0.050, 1.05),
    ("torch_pruning.bn_scale", "structured", 0.045, 1.05),
    ("nni.l1_norm", "structured", 0.060, 1.05),
]
FAILED = ("nmnist", "nni.level", 0.05)
MISSED = ("nmnist", "nni.l1_norm", 0.05)
FAILURE = "NothingRemoved: nni.level left every layer as it was: give a density below 1"
TASKS = {"digits": (360, 0.975, 11_568.0, 52_768), "nmnist": (220, 0.945, 48_211.0, 104_312)}


def comparison_json() -> dict[str, Any]:
    """Two tasks, two densities and one SynOps budget, 8 unstructured and 4 structured pruners, dense, 3 seeds; one row
    failed, one missed its budget. The same at every call."""
    pruners = [_pruner(*entry) for entry in PRUNERS]
    terms = {
        "seeds": SEEDS,
        "budgets": [*DENSITIES, SYNOPS],
        "epochs": 12,
        "seconds": None,
        "every": "10it",
        "until": "80%",
        "workers": 2,
        "threads": 1,
        "confidence": 0.95,
        "alpha": 0.05,
        "power": 0.8,
    }
    rows = [
        _row(task, entry, budget)
        for task in TASKS
        for entry in PRUNERS
        for budget in ([None] if entry[1] == "dense" else terms["budgets"])
    ]
    tables = judgement.tables(
        rows,
        pruners,
        ["snnsl.default", "snnsl.structured"],
        terms,
        {task: 1 / samples for task, (samples, *_) in TASKS.items()},
    )
    return {
        "schema": 1,
        "name": "compare_example",
        "status": "finished",
        "digest": "0123456789abcdef",
        "created": "2026-01-02T03:04:05+00:00",
        "wall_s": 812.3,
        "command": "snnsl compare compare_example",
        "commit": {"hash": "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c", "dirty": False},
        "versions": {
            "python": "3.11.7",
            "torch": "2.6.0",
            "spikingjelly": "2.0.0",
            "nni": "3.0",
            "torch_pruning": "1.6.0",
        },
        "machine": {"processor": "x86_64", "cores": 2, "memory_gib": 24.0},
        "judge": "test",
        "terms": terms,
        "tasks": [
            {
                "name": task,
                "data": {"name": task},
                "model": {"name": "spiking_cnn"},
                "train": {"epochs": 12, "batch_size": 64, "optimizer": {"name": "adam", "lr": 0.002}},
                "samples": {"train": 1293, "validation": 144, "test": samples},
                "classes": 10,
                "weights": weights,
            }
            for task, (samples, _, _, weights) in TASKS.items()
        ],
        "pruners": pruners,
        "rows": rows,
        "tables": tables,
        "overall": judgement.overall(tables, rows),
    }


def run(seed: int, numbers: dict[str, float] | None, **more: Any) -> dict[str, Any]:
    """One run of a row: finished where it has numbers, else failed."""
    status = "finished" if numbers else "failed"
    error = None if numbers else FAILURE
    return {
        "seed": seed,
        "status": status,
        "error": error,
        "folder": f"runs/s{seed}",
        "digest": f"{seed:016x}",
        "reused": False,
        "numbers": numbers,
        **more,
    }


def row(pruner: str, accuracies: dict[int, float | None], **more: Any) -> dict[str, Any]:
    """A row of accuracies only, by default unstructured at density 0.1 on digits; None is a failed run."""
    runs = [run(seed, None if accuracy is None else {"accuracy": accuracy}) for seed, accuracy in accuracies.items()]
    whole = {
        "task": "digits",
        "pruner": pruner,
        "host": pruner.split(".")[0],
        "kind": "unstructured",
        "budget": DENSITIES[0],
        "status": "finished",
        "error": None,
        "strength": None,
        "runs": runs,
    } | more
    return {**whole, "measures": judgement.measures(runs)}


def _pruner(name: str, kind: str, _loss: float, _cost: float) -> dict[str, Any]:
    return {
        "name": name,
        "host": "snnsl" if kind == "dense" else name.split(".")[0],
        "kind": kind,
        "summary": "Trains every weight." if kind == "dense" else f"What {name} would remove, in one sentence.",
        "pruning": {"type": name},
        "distillation": None,
        "seeds": None,
    }


def _row(task: str, entry: tuple[str, str, float, float], budget: dict[str, Any] | None) -> dict[str, Any]:
    name, kind, loss, cost = entry
    samples, dense, dense_synops, _ = TASKS[task]
    value = budget["value"] if budget else 1.0
    on_synops = budget is not None and budget["kind"] == "synops"
    density = 0.15 if on_synops else value
    failed = (task, name, value) == FAILED
    runs = []
    for seed in SEEDS:
        random = np.random.default_rng(zlib.crc32(f"{task}/{name}/{value}/{seed}".encode()))
        of_seed = np.random.default_rng(seed).normal(0, 0.006)
        wanted = dense + of_seed - loss * 0.1 / density * (density < 1) + random.normal(0, 0.004)
        accuracy = round(min(max(wanted, 0.1), 1.0) * samples) / samples
        numbers = {
            "accuracy": accuracy,
            "accuracy_test": accuracy,
            "accuracy_test_last": round((accuracy - 0.004) * samples) / samples,
            "accuracy_validation": round(accuracy * 144) / 144,
            "density": density,
            "connections": density * 0.98 if density < 1 else 1.0,
            "synops": dense_synops * (value if on_synops else density**0.8) * float(random.uniform(0.97, 1.03)),
            "macs": 73_728.0,
            "energy_nj": 339.0 + 0.9e-3 * dense_synops * density,
            "epochs": 12,
            "training_cost": cost,
            "wall_s": float(random.uniform(11, 15)),
            "seconds_per_epoch": float(random.uniform(0.9, 1.2)),
            "peak_memory_mib": float(random.uniform(500, 540)),
        }
        slug = f"{budget['kind']}-{value:g}-" if budget else ""
        runs.append(run(seed, None if failed else numbers, folder=f"runs/{task}-{name}-{slug}s{seed}"))
    strength = {"key": "density", "value": density, "found_by": "plan", "missed": False, "runs": 0} if budget else None
    if strength and on_synops:
        strength |= {"found_by": "search", "runs": 4}
    if strength and (task, name, value) == MISSED:
        strength["missed"] = True
    status = {"status": "failed", "error": FAILURE} if failed else {}
    host = "snnsl" if kind == "dense" else name.split(".")[0]
    whole = {"task": task, "host": host, "kind": kind, "budget": budget, "strength": strength, **status}
    return row(name, dict.fromkeys(SEEDS), **whole) | {"runs": runs, "measures": judgement.measures(runs)}
