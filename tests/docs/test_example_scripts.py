"""The scripts that the pages show whole run as they stand, in a process of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import snnsl_plugin

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def run(name, folder, *words):
    """What a script prints."""
    paths = [str(Path(snnsl_plugin.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def figures(printed, word):
    """The numbers behind a word, in the order of the lines."""
    return [float(found.replace(",", "")) for found in re.findall(rf"{word} +([\d.,]+)", printed)]


def test_the_line_that_differs_prunes_to_the_same_budget_and_learns_more(tmp_path):
    accuracy = {}
    for pruner in ("dynamic", "agp"):
        printed = run("nni_pruner.py", tmp_path, "--pruner", pruner, "--epochs", "8")
        (density,) = figures(printed, "density")
        (accuracy[pruner],) = figures(printed, "accuracy")
        masks = torch.load(tmp_path / "masks.pt", weights_only=True)
        kept = sum(int(targets["weight"].sum()) for targets in masks.values())
        total = sum(targets["weight"].numel() for targets in masks.values())
        assert round(kept / total, 4) == density == 0.05
    assert accuracy["dynamic"] > accuracy["agp"]


def test_a_sparse_network_teaches_a_denser_one(tmp_path):
    printed = run("nni_reverse_kd.py", tmp_path, "--epochs", "6")
    assert figures(printed, "density") == [0.02, 0.1]
    weak, taught = figures(printed, "accuracy")
    assert taught > weak
    assert figures(printed, "regrown")[0] > 0
