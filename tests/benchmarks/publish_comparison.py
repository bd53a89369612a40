"""Copies what is worth keeping of a finished comparison to docs/results/<name>/.

    python tests/benchmarks/publish_comparison.py RUN_DIR [NAME]

NAME is the recipe's where omitted.

Recipe, digest, commit, versions, every number of every run (comparison.json, .csv), the tables (.md), the pictures, and
log.csv: every epoch of every run. Run folders stay where they are.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from pathlib import Path

from snnsl_plugin.comparison import pictures
from snnsl_plugin.tracking.journal import read

RESULTS = Path(__file__).parents[2] / "docs" / "results"
COLUMNS = ("loss/train", "loss/validation", "accuracy/train", "accuracy/validation", "density", "lr", "seconds")


def log(run_dir: Path, found: dict) -> str:
    """Every epoch of every run, a line each."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["run", "epoch", "step", *COLUMNS])
    for row in found["rows"]:
        for run in row["runs"]:
            if run["status"] != "finished":
                continue
            for line in read(run_dir / run["folder"] / "metrics.jsonl"):
                if line["event"] == "epoch":
                    values = [f"{line['metrics'][column]:.6g}" for column in COLUMNS]
                    writer.writerow([Path(run["folder"]).name, line["epoch"], line["step"], *values])
    return out.getvalue()


def main() -> None:
    run_dir = Path(sys.argv[1])
    found = json.loads((run_dir / "comparison.json").read_text(encoding="utf-8"))
    if found["status"] != "finished":
        raise SystemExit(f"{run_dir} is {found['status']}: finish it with --resume first")
    target = RESULTS / (sys.argv[2] if len(sys.argv) > 2 else found["name"])
    shutil.rmtree(target, ignore_errors=True)
    (target / "figures").mkdir(parents=True)
    for name in ("comparison.json", "comparison.csv", "comparison.md", "recipe.yaml"):
        shutil.copyfile(run_dir / name, target / name)
    for name, picture in pictures.draw(found):
        if name.endswith(".png"):
            (target / "figures" / name).write_bytes(picture)
    (target / "log.csv").write_text(log(run_dir, found), encoding="utf-8")
    print(target)


if __name__ == "__main__":
    main()
