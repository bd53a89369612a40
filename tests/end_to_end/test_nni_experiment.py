"""Real NNI experiments, each in a network of its own: the example, an interrupt, and an experiment that goes on."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import optuna
import psutil
import pytest

import snnsl_plugin
from snnsl_plugin.cli import main
from snnsl_plugin.recipe.load import load

ROOT = Path(snnsl_plugin.__file__).parents[1]
EXAMPLE = ROOT / "docs" / "examples" / "nni_experiment.py"
MARK = "SNNSL_TEST_MARK"
DEADLINE = 400.0

RESUMED = """
import importlib.util, sys, time
from pathlib import Path

spec = importlib.util.spec_from_file_location("example", sys.argv[1])
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)
folder = Path.cwd()

def told():
    import optuna

    trials = optuna.load_study(study_name="digits", storage=f"sqlite:///{folder}/study.db").trials
    return sum(trial.state == optuna.trial.TrialState.COMPLETE for trial in trials)

example.raise_loopback()
with example.nobody_left_behind():
    from nni.experiment import Experiment
    from snnsl_plugin.for_nni import registration

    registration.register_()
    experiment = Experiment("local", id="again")
    config = experiment.config
    config.experiment_working_directory = config.trial_code_directory = folder
    config.trial_command = f"{sys.executable} trial.py"
    config.search_space = {"x": {"_type": "uniform", "_value": [0, 1]}}
    config.tuner.name = "SnnslOptuna"
    config.tuner.class_args = {
        "sampler": "random", "seed": 1, "storage": f"sqlite:///{folder}/study.db", "study_name": "digits"
    }
    config.max_trial_number, config.trial_concurrency = 8, 2
    if sys.argv[2] == "first":
        experiment.start(8080)
        # A trial has succeeded at NNI before the tuner is told.
        while sum(job.status == "SUCCEEDED" for job in experiment.list_trial_jobs()) < 3 or told() < 3:
            time.sleep(0.3)
    else:
        assert experiment.resume(8080)
    experiment.stop()
"""
TRIAL = """
import time, nni
parameters = nni.get_next_parameter()
time.sleep(1)
nni.report_final_result({"default": parameters["x"]})
"""


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nni_experiment", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def own_network(example: ModuleType) -> list[str]:
    """The words that give a command a network of its own."""
    tried = subprocess.run([*example.ALONE, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.fail(f"NNI's server would be open to the network: `unshare --user --net` is needed: {tried.stderr}")
    return example.ALONE


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home, a list of algorithms and a mark that all processes of one experiment inherit."""
    (tmp_path / "home").mkdir()
    return os.environ | {
        "HOME": str(tmp_path / "home"),
        "NNI_CONFIG_DIR": str(tmp_path / "nni"),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        MARK: uuid.uuid4().hex,
    }


def marked(environment: dict[str, str]) -> list[psutil.Process]:
    """Every process on this machine that descends from the experiment, whoever its parent is by now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == environment[MARK] and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@contextlib.contextmanager
def running(words: list[str], folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    """A command whose processes are ended if it does not end them itself."""
    log = folder / "output.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            words,
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A shell that starts tests in the background makes all below it deaf to interrupts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    try:
        yield process
    except subprocess.TimeoutExpired:
        pytest.fail(f"not over after {DEADLINE:.0f} s; it said:\n{log.read_text()}")
    finally:
        for left in marked(environment):
            with contextlib.suppress(psutil.Error):
                left.kill()
        process.wait(30)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    begun = time.monotonic()
    while not condition():
        if process.poll() is not None or time.monotonic() - begun > DEADLINE:
            raise subprocess.TimeoutExpired(process.args, DEADLINE)
        time.sleep(0.2)


def study(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="digits", storage=f"sqlite:///{folder}/study.db").get_trials()


def command_lines(environment: dict[str, str]) -> dict[int, str]:
    found = {}
    for process in marked(environment):
        with contextlib.suppress(psutil.Error):
            found[process.pid] = " ".join(process.cmdline())
    return found


def network(pid: int | str) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


@pytest.mark.slow
def test_three_trials_of_a_recipe_with_the_registered_tuner(own_network, environment, example, tmp_path):
    folder = tmp_path / "out"
    words = [sys.executable, str(EXAMPLE), "--trials", "3", "--concurrency", "2", "--folder", str(folder)]
    with running(words, tmp_path, environment) as process:
        wait_for(lambda: any("nni_node" in line for line in command_lines(environment).values()), process)
        node = next(pid for pid, line in command_lines(environment).items() if "nni_node" in line)
        assert network(node) == network(process.pid) != network("self")
        assert process.wait(DEADLINE) == 0, (tmp_path / "output.log").read_text()
        assert command_lines(environment) == {}

    assert "SnnslOptuna" in (tmp_path / "nni" / "registered_algorithms.yml").read_text()
    reported = {each["trial"]: each for each in json.loads((folder / "trials.json").read_text())}
    assert [each["status"] for each in reported.values()] == ["SUCCEEDED"] * 3
    for trial, each in reported.items():
        (path,) = folder.glob(f"[!_]*/environments/*/trials/{trial}/run/recipe.yaml")
        trained = load(path).model_dump(mode="json", by_alias=True)
        assert each["parameters"].keys() == example.SEARCH_SPACE.keys()
        for key, value in each["parameters"].items():
            low, high = example.SEARCH_SPACE[key]["_value"][:2]
            assert low <= value <= high
            assert value == example.value_at(trained, key)
        result = json.loads(path.with_name("result.json").read_text())
        assert each["result"] == result["accuracy"]["validation"]
    # What the tuner asked and was told, against what each trial says of itself.
    told = [trial for trial in study(folder) if trial.state == optuna.trial.TrialState.COMPLETE]
    assert {trial.user_attrs["nni_trial"]: (trial.user_attrs["parameters"], trial.value) for trial in told} == {
        name: (each["parameters"], each["result"]) for name, each in reported.items()
    }


@pytest.mark.slow
def test_an_interrupt_ends_the_server_the_tuner_and_the_trials(own_network, environment, tmp_path):
    words = [sys.executable, str(EXAMPLE), "--trials", "50", "--folder", str(tmp_path / "out")]
    with running(words, tmp_path, environment) as process:
        wait_for(lambda: any("--trial" in line.split() for line in command_lines(environment).values()), process)
        lines = " ".join(command_lines(environment).values())
        assert "nni_node" in lines
        assert "-m nni" in lines
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 130, (tmp_path / "output.log").read_text()
        assert command_lines(environment) == {}
    assert {trial.state for trial in study(tmp_path / "out")} <= {
        optuna.trial.TrialState.COMPLETE,
        optuna.trial.TrialState.FAIL,
    }


@pytest.mark.slow
def test_a_killed_server_leaves_no_process_behind(own_network, environment, tmp_path):
    words = [sys.executable, str(EXAMPLE), "--trials", "50", "--folder", str(tmp_path / "out")]
    with running(words, tmp_path, environment) as process:
        wait_for(lambda: any("--trial" in line.split() for line in command_lines(environment).values()), process)
        node = next(pid for pid, line in command_lines(environment).items() if "nni_node" in line)
        psutil.Process(node).kill()
        assert process.wait(DEADLINE) not in (0, 130)
        assert command_lines(environment) == {}


@pytest.mark.slow
def test_a_resumed_experiment_goes_on_with_its_study(own_network, environment, tmp_path):
    (tmp_path / "experiment.py").write_text(RESUMED)
    (tmp_path / "trial.py").write_text(TRIAL)
    found = []
    for part in ("first", "second"):
        words = [*own_network, sys.executable, "experiment.py", str(EXAMPLE), part]
        with running(words, tmp_path, environment) as process:
            assert process.wait(DEADLINE) == 0, (tmp_path / "output.log").read_text()
            assert command_lines(environment) == {}
        trials = study(tmp_path)
        found.append({trial.number: trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE})
        assert all(trial.state.is_finished() for trial in trials)
    first, second = found
    assert 3 <= len(first) < 8 <= len(second)
    assert first.items() <= second.items()
    # NNI sends a trial that was cut short and ran again without its name.
    names = [trial.user_attrs["nni_trial"] for trial in second.values() if "nni_trial" in trial.user_attrs]
    assert 3 <= len(names) == len(set(names))
    # A trial reports its parameter as its result, so a pair that NNI mixed up would show.
    for trial in second.values():
        assert trial.params["x"] == trial.user_attrs["parameters"]["x"] == trial.value


def call(example: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["nni_experiment.py", *words])
    monkeypatch.setattr(example, "reachable", lambda: True)
    return example.main()


@pytest.mark.parametrize("unshare", ["absent", "forbidden"])
def test_without_a_network_of_its_own_the_example_refuses(unshare, example, monkeypatch, tmp_path, capsys):
    if unshare == "forbidden":
        (tmp_path / "unshare").write_text("#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2\nexit 1\n")
        (tmp_path / "unshare").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
    assert call(example, monkeypatch, "--folder", str(tmp_path / "out")) == 1
    said = capsys.readouterr().err
    assert said.startswith("NNI would listen on all network interfaces without a password")
    assert ("not permitted" if unshare == "forbidden" else "No such file") in said
    assert "--listen-on-all-interfaces" in said
    assert not (tmp_path / "out").exists()


def test_the_recipe_of_the_trials_knows_the_keys_of_the_search_space(example, capsys):
    assert main(["validate", str(example.RECIPE)]) == 0
    recipe = load(example.RECIPE, [f"{key}={spec['_value'][0]}" for key, spec in example.SEARCH_SPACE.items()])
    data = recipe.model_dump(mode="json", by_alias=True)
    for key, spec in example.SEARCH_SPACE.items():
        assert example.value_at(data, key) == spec["_value"][0]
