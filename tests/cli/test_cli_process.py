"""The command as a process of its own: what it imports, and how it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import snnsl_plugin

HEAVY = ("torch", "torchvision", "nni", "mlflow", "optuna", "tonic", "spikingjelly", "numpy", "pydantic")


#: The package is found from any folder, installed or not.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(snnsl_plugin.__file__).parents[1])}


def python(*words, cwd=None):
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=cwd, timeout=120, check=False, env=ENVIRONMENT
    )


@pytest.mark.parametrize("module", ["snnsl_plugin", "snnsl_plugin.cli", "snnsl_plugin.cli.app"])
def test_importing_the_front_door_or_the_command_loads_nothing_heavy(module):
    done = python("-c", f"import json, sys, {module}; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_help_needs_no_torch():
    code = "import sys; from snnsl_plugin.cli import main; main(['run', '--help']); sys.exit('torch' in sys.modules)"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "--dry-run" in done.stdout


def test_a_broken_recipe_in_a_real_process(tmp_path):
    (tmp_path / "broken.yaml").write_text("extends: digits\nsead: 1\n")
    done = python("-m", "snnsl_plugin", "validate", "broken.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "broken.yaml:2:1: sead: unknown key 'sead'; did you mean 'seed'?\n"


def test_a_closed_pipe_is_silent():
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m snnsl_plugin cat digits | true"],
        capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.stderr == ""
