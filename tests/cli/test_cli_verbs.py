"""What each verb prints, and the exit statuses."""

import json
import sys
import types

import pytest

import snnsl_plugin
from snnsl_plugin.cli import env, main, run, validate
from snnsl_plugin.errors import BadRecipe, Diverged, RunFolderInUse
from snnsl_plugin.recipe import catalog


def said(capsys, *words):
    """Exit status, stdout, stderr of one command."""
    status = main(words)
    out, err = capsys.readouterr()
    return status, out, err


def test_ls_names_every_shipped_recipe_with_a_sentence(capsys):
    status, out, _ = said(capsys, "ls")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == catalog.names()
    listed = json.loads(said(capsys, "ls", "--json")[1])
    assert [each["name"] for each in listed] == catalog.names()
    assert all(each["summary"] for each in listed)


def test_cat_prints_the_file_as_it_is(capsys):
    assert said(capsys, "cat", "bench/nmnist") == (0, catalog.read("bench/nmnist"), "")


def test_cp_copies_once_and_overwrites_nothing(capsys, tmp_path):
    assert said(capsys, "cp", "digits", str(tmp_path))[0] == 0
    copied = tmp_path / "digits.yaml"
    assert copied.read_text() == catalog.read("digits")
    copied.write_text("mine")
    status, _, err = said(capsys, "cp", "digits", str(copied))
    assert (status, copied.read_text()) == (1, "mine")
    assert err == f"{copied}: there is such a file already; give another name\n"


def test_cp_to_nowhere_is_one_sentence(capsys, tmp_path):
    status, _, err = said(capsys, "cp", "digits", str(tmp_path / "no" / "such.yaml"))
    assert status == 1
    assert err.endswith("such.yaml: cannot be written: No such file or directory\n")


def test_an_unknown_shipped_recipe_has_a_near_one(capsys):
    status, _, err = said(capsys, "cat", "digts")
    assert status == 1
    assert err.startswith("unknown recipe 'digts'; did you mean 'digits'? (known: ")


def test_validate_as_json_gives_the_recipe_or_the_problems(capsys):
    status, out, err = said(capsys, "validate", "digits", "seed=7", "--json")
    found = json.loads(out)
    assert (status, err, found["valid"], found["recipe"]["seed"]) == (0, "", True, 7)
    assert len(found["digest"]) == 16
    status, out, err = said(capsys, "validate", "digits", "seed=x", "--json")
    assert (status, err) == (1, "")
    assert json.loads(out) == {
        "valid": False,
        "problems": ['command line: seed=x: seed: must be a whole number, not "x"'],
    }


def test_schema_is_json_that_knows_every_block(capsys):
    status, out, _ = said(capsys, "schema")
    found = json.loads(out)
    assert status == 0
    assert {"schema", "extends", "data", "model", "train", "pruning", "distillation"} <= set(found["properties"])
    assert "criterion_spike_saliency" in found["$defs"]


def test_version(capsys):
    assert said(capsys, "--version") == (0, snnsl_plugin.__version__ + "\n", "")


@pytest.mark.parametrize(
    ("words", "said_of_it"),
    [
        (["rnu"], "No such command 'rnu'. Did you mean 'run'? (see: snnsl --help)"),
        (["run"], "recipe (see: snnsl run --help)"),
        (["run", "digits", "--dryrun"], "No such option: --dryrun"),
        (["cp", "digits"], "destination (see: snnsl cp --help)"),
        (["run", "digits", "--dry-run", "--resume"], "exclude each other"),
        (["report", "nowhere"], "nowhere: there is no such run folder"),
    ],
)
def test_a_wrong_call_exits_with_1_and_says_where_help_is(words, said_of_it, capsys):
    status, out, err = said(capsys, *words)
    assert (status, out) == (1, "")
    assert said_of_it in err
    assert "Traceback" not in err
    assert err.count("\n") == 1


def test_no_words_print_the_help(capsys):
    status, out, _ = said(capsys)
    assert status == 1
    assert "snnsl run digits" in out


@pytest.mark.parametrize(
    ("error", "expected"), [(Diverged("the loss is NaN"), 2), (RunFolderInUse("a is in use"), 1), (BadRecipe(["x"]), 1)]
)
def test_an_error_of_ours_is_its_sentence_and_its_status(error, expected, capsys, monkeypatch):
    monkeypatch.setattr("snnsl_plugin.recipe.catalog.names", lambda: (_ for _ in ()).throw(error))
    assert said(capsys, "ls") == (expected, "", f"{error}\n")


def test_an_unexpected_error_is_one_sentence_and_a_traceback_only_on_request(capsys, monkeypatch):
    monkeypatch.setattr("snnsl_plugin.recipe.catalog.names", lambda: 1 / 0)
    status, _, err = said(capsys, "ls")
    assert (status, err) == (2, "unexpected ZeroDivisionError: division by zero (snnsl -v ... shows where)\n")
    status, _, err = said(capsys, "-v", "ls")
    assert status == 2
    assert err.startswith("Traceback")


def test_an_interrupt_is_130(capsys, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("snnsl_plugin.recipe.catalog.names", interrupt)
    assert said(capsys, "ls")[0] == 130


def test_report_prints_where_it_wrote(capsys, monkeypatch, tmp_path):
    fake = types.ModuleType("snnsl_plugin.recipe.report")
    fake.write = lambda run_dir: run_dir / "report.html"
    monkeypatch.setitem(sys.modules, "snnsl_plugin.recipe.report", fake)
    assert said(capsys, "report", str(tmp_path)) == (0, f"{tmp_path / 'report.html'}\n", "")


def test_env_reports_versions_device_and_data(capsys, monkeypatch, tmp_path):
    (tmp_path / "nmnist").mkdir()
    monkeypatch.setenv("SNNSL_DATA", str(tmp_path))
    monkeypatch.setattr(env, "_probe", lambda: {"threads": 2, "cuda": False, "gpu": None})
    status, out, _ = said(capsys, "env", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["data"] == {"variable": "SNNSL_DATA", "folder": str(tmp_path), "found": ["nmnist"]}
    assert found["versions"]["snnsl-plugin"] == snnsl_plugin.__version__
    assert "device cuda: torch sees no GPU here" in found["will_not_work"]
    out = said(capsys, "env")[1]
    assert "nmnist" in out
    assert "will not work: device cuda" in out


def test_env_says_why_something_will_not_work(monkeypatch):
    absent = dict.fromkeys(("spikingjelly", "tonic", "torch-pruning", "optuna", "mlflow", "nni"))
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    found = env._missing(absent, {"torchvision": "RuntimeError: operator torchvision::nms does not exist"})
    assert found[0].startswith("picture data sets and the model zoo: torchvision cannot be imported (RuntimeError")
    assert "snnsl_plugin.for_nni: NNI has wheels for x86_64 only, and this is aarch64" in found
    assert "event data sets: tonic is not installed (pip install tonic)" in found
    new = env._missing(absent | {"nni": "3.0", "setuptools": "82.0.1"}, {"torch": "ImportError: no"})
    assert new[0] == "everything: torch cannot be imported (ImportError: no)"
    assert new[1].startswith("nnictl: it imports pkg_resources")


def test_verbs_are_functions_that_explain_themselves():
    assert all(verb.__doc__ for verb in (run.run, validate.validate, env.env))
