"""A/A: the same pruner under two names with disjoint seeds, many times over; how often is the difference called noise?

    python tests/benchmarks/compare_noise.py [--repetitions 20] [--seeds 3] [--run-dir DIR]

Trains every run by `snnsl compare` on digits and judges each pair as a table of its own. With verdicts at 5 % one in
twenty may be false. Writes docs/results/compare_noise.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from snnsl_plugin.comparison import judgement
from snnsl_plugin.comparison.run import compare
from snnsl_plugin.recipe.load import load

OUT = Path(__file__).parents[2] / "docs" / "results" / "compare_noise.json"


def entrants(repetitions: int, seeds: int) -> list[dict]:
    """Two names a repetition, no seed twice."""
    return [
        {
            "name": f"{side}-{number:02d}",
            "like": "snnsl.gmp",
            "seeds": [2 * seeds * number + seeds * half + each for each in range(seeds)],
        }
        for number in range(repetitions)
        for half, side in enumerate(("one", "two"))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--run-dir", type=Path, default=None)
    given = parser.parse_args()
    block = {
        "pruners": entrants(given.repetitions, given.seeds),
        "densities": [0.1],
        "seeds": [0],
        "every": "10it",
        "until": "80%",
    }
    recipe = load("digits", [f"compare={json.dumps(block)}", "tracking={mlflow: false}"])
    resume = bool(given.run_dir and given.run_dir.exists())
    found = compare(recipe, name="compare_noise", run_dir=given.run_dir, resume=resume)
    verdicts = []
    for number in range(given.repetitions):
        names = [f"{side}-{number:02d}" for side in ("one", "two")]
        rows = [row for row in found["rows"] if row["pruner"] in names]
        resolution = {"digits": 1 / found["tasks"][0]["samples"]["test"]}
        (table,) = judgement.tables(rows, found["pruners"], names[:1], found["terms"], resolution)
        verdicts.append({"repetition": number, **table["differences"][names[1]]})
    noise = sum(each["verdict"] == "inside the noise" for each in verdicts)
    print(f"called noise: {noise} of {given.repetitions}, {given.seeds} seeds a name")
    kept = {key: found[key] for key in ("digest", "commit", "versions", "machine", "terms", "tasks", "wall_s")}
    OUT.write_text(json.dumps({"noise": noise, "verdicts": verdicts, **kept}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
