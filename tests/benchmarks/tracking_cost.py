"""What MLflow costs a training run: seconds per epoch of a digits run with tracking against without.

    python tests/benchmarks/tracking_cost.py [--rounds 5] [--epochs 30] [--out FILE]

Each round trains the same run four times, each in a process of its own: without tracking, without tracking again (how far
two equal things lie apart), into a local sqlite database, and into a real `mlflow server` on this machine, which stays
up throughout. Who goes first changes with the round, and nobody starts before the last sender has ended. The first 10
epochs are kept apart: the sender starts in them, and importing mlflow takes it seconds. An epoch lasts from one line of
the journal to the next, so it has its validation, checkpoint and journal in it. Writes docs/results/tracking_cost.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from importlib import metadata
from pathlib import Path

import torch

from snnsl_plugin.tracking import progress
from snnsl_plugin.tracking.journal import read

ROOT = Path(__file__).parents[2]
OUT = ROOT / "docs" / "results" / "tracking_cost.json"
ARMS = ("off", "off_again", "sqlite", "server")
STARTING = 10
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The address of an `mlflow server`, which is gone in the end with all its workers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/files"]
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, start_new_session=True, env=ENVIRONMENT | settings, **quiet)
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        else:
            raise SystemExit("the server did not start in two minutes")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def trained(run_dir: Path, uri: str | None, epochs: int) -> dict[str, object]:
    """One run in a process of its own, and what its journal says of the time."""
    words = [f"train.epochs={epochs}", "dense_baseline=false", f"tracking.mlflow={'true' if uri else 'false'}"]
    words += [f"tracking.uri={uri}"] if uri else []
    command = [sys.executable, "-m", "snnsl_plugin", "run", "digits", "-q", "--run-dir", str(run_dir), *words]
    began = time.time()
    subprocess.run(command, check=True, cwd=run_dir.parent, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    ended = time.time()
    events = list(read(run_dir / "metrics.jsonl"))
    times = [event["time"] for event in events if event["event"] in ("started", "epoch")]
    if uri:
        deadline = ended + 120
        while not ((sent := progress.load(run_dir)) and sent.complete):
            if time.time() > deadline:
                raise SystemExit(f"MLflow has not got all of {run_dir}: {sent and sent.missing}")
            time.sleep(0.2)
    arrived = time.time()
    time.sleep(3)  # the sender's process ends
    seconds = [after - before for before, after in itertools.pairwise(times)]
    return {
        "until_training_s": times[0] - began,
        "starting_epochs_s": sum(seconds[:STARTING]),
        "epochs_s": seconds[STARTING:],
        "process_s": ended - began,
        "sent_after_s": arrived - ended if uri else None,
    }


def measured(rounds: int, epochs: int, folder: Path) -> dict[str, list[dict[str, object]]]:
    runs: dict[str, list[dict[str, object]]] = {arm: [] for arm in ARMS}
    with server(folder) as address:
        addresses = {"sqlite": f"sqlite:///{folder}/mlflow.db", "server": address}
        # Databases are made, and files compiled, before anybody is timed.
        for arm in ("sqlite", "server"):
            trained(folder / f"warm-{arm}", addresses[arm], 1)
        for number in range(rounds):
            start = number % len(ARMS)
            for arm in ARMS[start:] + ARMS[:start]:
                runs[arm].append(trained(folder / f"{arm}-{number}", addresses.get(arm), epochs))
    return runs


def figures(runs: dict[str, list[dict[str, object]]]) -> dict[str, float]:
    def median(arm: str) -> float:
        return statistics.median(second for run in runs[arm] for second in run["epochs_s"])

    found: dict[str, float] = {f"{arm}_s_per_epoch": median(arm) for arm in ARMS}
    for arm in ARMS[1:]:
        rounds = [
            statistics.median(one["epochs_s"]) / statistics.median(off["epochs_s"])
            for one, off in zip(runs[arm], runs["off"], strict=True)
        ]
        found[f"{arm}_over_off"] = median(arm) / median("off")
        found |= {f"{arm}_over_off_least": min(rounds), f"{arm}_over_off_most": max(rounds)}
    for what in ("until_training_s", "starting_epochs_s", "process_s"):
        found |= {f"{arm}_{what}": statistics.median(run[what] for run in runs[arm]) for arm in ARMS}
    for arm in ("sqlite", "server"):
        found[f"{arm}_sent_after_s"] = statistics.median(run["sent_after_s"] for run in runs[arm])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30, help=f"of each run; the first {STARTING} are kept apart")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    if given.epochs <= STARTING:
        parser.error(f"--epochs must be above {STARTING}")
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        runs = measured(given.rounds, given.epochs, Path(folder))
    about = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores ({platform.machine()})",
        "load_before": busy,
        "rounds": given.rounds,
        "epochs": given.epochs,
        "starting_epochs": STARTING,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mlflow": metadata.version("mlflow"),
    }
    found = about | figures(runs)
    print(json.dumps(found, indent=1))
    given.out.write_text(json.dumps(found | {"runs": runs}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
