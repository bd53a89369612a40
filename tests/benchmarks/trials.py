"""Trials a second: our hand-over of tickets against bare Optuna, trials of one second, tracking off.

    python tests/benchmarks/trials.py

For 1, 2 and 4 workers on sqlite and PostgreSQL: workers are processes that meet at a barrier, so start-up does not count.
Bare Optuna is `study.optimize` with as many trials for each worker; ours takes tickets until none is left. Both sample the
same space with the same sampler. Prints and stores docs/results/trials.json.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import sys
import tempfile
import time
import warnings
from datetime import date
from pathlib import Path

import optuna
from optuna.trial import TrialState
from sqlalchemy.pool import NullPool

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
EACH, SECONDS, ROUNDS = 10, 1.0, 3


def terms():
    from snnsl_plugin.recipe.tune_types import Float
    from snnsl_plugin.tuning.ledger import Terms

    space = {name: Float(name="float", low=0.0, high=1.0) for name in ("a", "b", "c")}
    return Terms("ours", "0" * 16, ["accuracy", "connections"]), space


def ours(url: str, worker: str, barrier, times) -> None:
    from snnsl_plugin.tuning.database import Database
    from snnsl_plugin.tuning.ledger import Holder, Ledger

    what, space = terms()
    ledger = Ledger(Database(url), what, heartbeat=30, identity="bench")
    barrier.wait()
    while trial := ledger.claim(Holder("bench", worker), space, "tpe", 0):
        with ledger.alive(trial):
            time.sleep(SECONDS)
        ledger.tell(trial, TrialState.COMPLETE, values=[trial.params["a"], trial.params["b"]])
    times.put(time.time())


def bare(url: str, worker: str, barrier, times) -> None:
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(
        study_name="bare", storage=optuna.storages.RDBStorage(url, engine_kwargs={"poolclass": NullPool}),
        sampler=optuna.samplers.TPESampler(seed=int(worker)),
    )  # fmt: skip

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        values = [trial.suggest_float(name, 0.0, 1.0) for name in ("a", "b", "c")]
        time.sleep(SECONDS)
        return values[0], values[1]

    barrier.wait()
    study.optimize(objective, n_trials=EACH)
    times.put(time.time())


def rate(work, url: str, workers: int) -> float:
    context = multiprocessing.get_context("spawn")
    barrier, times = context.Barrier(workers + 1), context.Queue()
    processes = [context.Process(target=work, args=(url, str(number), barrier, times)) for number in range(workers)]
    for process in processes:
        process.start()
    barrier.wait()
    began = time.time()
    ended = max(times.get() for _ in processes)
    for process in processes:
        process.join()
    return workers * EACH / (ended - began)


def measured(fresh, workers: int) -> dict[str, float]:
    from snnsl_plugin.tuning.database import Database
    from snnsl_plugin.tuning.ledger import Ledger

    found: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(ROUNDS):
        url = fresh()
        what, _ = terms()
        Ledger(Database(url), what, heartbeat=30, identity="bench").fill(EACH * workers, {})
        found["ours"].append(rate(ours, url, workers))
        url = fresh().replace("postgresql://", "postgresql+psycopg://")
        optuna.create_study(
            study_name="bare", directions=["maximize", "minimize"],
            storage=optuna.storages.RDBStorage(url, engine_kwargs={"poolclass": NullPool}),
        )  # fmt: skip
        found["bare"].append(rate(bare, url, workers))
    middle = {name: statistics.median(values) for name, values in found.items()}
    return {**middle, "ratio": middle["ours"] / middle["bare"]}


def main() -> None:
    from postgresql_server import server

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    results: dict[str, dict[str, dict[str, float]]] = {"sqlite": {}, "postgresql": {}}
    with tempfile.TemporaryDirectory() as folder, server() as database:
        count = iter(range(10_000))
        makers = {
            "sqlite": lambda: f"sqlite:///{folder}/{next(count)}.db",
            "postgresql": lambda: database(f"bench{next(count)}"),
        }
        for kind, fresh in makers.items():
            for workers in (1, 2, 4):
                results[kind][str(workers)] = row = measured(fresh, workers)
                print(f"{kind:11} {workers} workers: {row['ours']:.3f} trials/s, bare Optuna {row['bare']:.3f}, "
                      f"ratio {row['ratio']:.3f}", flush=True)  # fmt: skip
    stored = {"date": date.today().isoformat(), "trial_seconds": SECONDS, "trials_each": EACH, "rounds": ROUNDS}
    (ROOT / "docs/results/trials.json").write_text(json.dumps(stored | {"results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
