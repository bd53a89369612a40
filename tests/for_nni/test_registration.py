"""NNI finds the tuner by its name, and the command that makes it so."""

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from nni.experiment import ExperimentConfig
from nni.tools.package_utils import AlgoMeta, config_manager, get_algo_meta, tuner_factory

import snnsl_plugin
from snnsl_plugin.cli import main
from snnsl_plugin.errors import BadOption, MissingExtra, UsageError
from snnsl_plugin.for_nni import registration
from snnsl_plugin.for_nni.tuner import OptunaTuner, check_options

ROOT = Path(snnsl_plugin.__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
YAML = [block for page in PAGES for block in re.findall(r"^```yaml nni\n(.*?)^```$", page.read_text(), re.S | re.M)]


@pytest.fixture(autouse=True)
def listed(tmp_path, monkeypatch):
    """NNI's list of algorithms, in a folder of the test's own."""
    monkeypatch.setenv("NNI_CONFIG_DIR", str(tmp_path / "nni"))
    return tmp_path / "nni" / "registered_algorithms.yml"


def foreign(name):
    return AlgoMeta(
        name=name, alias=None, class_name="somebody.Tuner", accept_class_args=True, class_args=None,
        validator_class_name=None, algo_type="tuner", is_advisor=False, is_builtin=False, nni_version=None,
    )  # fmt: skip


def test_nni_makes_the_registered_tuner_from_its_name_and_arguments(listed):
    assert registration.register_() == listed
    made = tuner_factory.create_builtin_class_instance("SnnslOptuna", {"optimize_mode": "minimize"}, "tuners")
    assert type(made) is OptunaTuner
    assert made.study.direction.name == "MINIMIZE"
    with pytest.raises(BadOption, match="seed"):
        tuner_factory.create_validator_instance("tuners", "SnnslOptuna").validate_class_args(seed=-1)


def test_registering_twice_changes_nothing_and_removing_twice_neither(listed):
    registration.register_()
    once = listed.read_text()
    registration.register_()
    assert listed.read_text() == once
    assert once.count("SnnslOptuna") == 1
    registration.unregister_()
    assert get_algo_meta("SnnslOptuna") is None
    assert registration.unregister_() == listed


def test_what_others_registered_stays(listed):
    config_manager.register_algo_meta(foreign("Theirs"))
    registration.register_()
    assert get_algo_meta("Theirs").class_name == "somebody.Tuner"
    registration.unregister_()
    assert get_algo_meta("Theirs").class_name == "somebody.Tuner"
    assert get_algo_meta("TPE").is_builtin


@pytest.mark.parametrize("act", [registration.register_, registration.unregister_])
def test_a_foreign_tuner_of_that_name_is_left_alone(act, listed):
    config_manager.register_algo_meta(foreign("SnnslOptuna"))
    with pytest.raises(UsageError, match="belongs to somebody.Tuner; give it up with nnictl algo unregister"):
        act()
    assert get_algo_meta("SnnslOptuna").class_name == "somebody.Tuner"


def test_a_folder_that_cannot_be_made_is_a_sentence_with_the_way_out(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NNI_CONFIG_DIR", str(tmp_path / "file" / "nni"))
    assert main(["register", "nni"]) == 1
    said = capsys.readouterr().err
    assert said.endswith("cannot be written: Not a directory; name another folder in NNI_CONFIG_DIR\n")


@pytest.mark.parametrize("act", [registration.register_, registration.unregister_])
def test_a_list_that_cannot_be_written_is_named_with_the_way_out(act, listed, monkeypatch):
    if act is registration.unregister_:
        registration.register_()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(config_manager, "_save_custom_config", full)
    with pytest.raises(UsageError) as caught:
        act()
    assert (
        str(caught.value)
        == f"{listed}: cannot be written: No space left on device; name another folder in NNI_CONFIG_DIR"
    )


def test_the_command_registers_and_removes_and_says_where(listed, capsys):
    assert main(["register", "nni"]) == 0
    assert capsys.readouterr().out == f"SnnslOptuna is registered in {listed}\n"
    assert get_algo_meta("SnnslOptuna") is not None
    assert main(["register", "nni", "--remove"]) == 0
    assert capsys.readouterr().out == f"SnnslOptuna is no longer registered in {listed}\n"
    assert get_algo_meta("SnnslOptuna") is None


def test_an_unknown_host_is_one_sentence(capsys):
    assert main(["register", "nnni"]) == 1
    assert capsys.readouterr().err == "unknown host 'nnni'; did you mean 'nni'? (known: mlflow, nni)\n"


def test_without_nni_the_way_out_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nni.tools.package_utils", None)
    assert main(["register", "nni"]) == 1
    assert "pip install 'nni>=3,<4'" in capsys.readouterr().err
    with pytest.raises(MissingExtra):
        registration.unregister_()


@pytest.mark.parametrize("words", ["import snnsl_plugin.for_nni.tuner", "from snnsl_plugin.for_nni import OptunaTuner"])
def test_the_tuner_without_nni_names_the_way_out_too(words):
    code = f"import sys; sys.modules['nni'] = None\n{words}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "MissingExtra: NNI's tuners need nni" in done.stderr.splitlines()[-1]
    assert "pip install 'nni>=3,<4'" in done.stderr.splitlines()[-1]


def test_the_help_of_the_command_does_not_import_nni():
    code = "import sys; from snnsl_plugin.cli import main; main(['register', '--help']); sys.exit('nni' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--remove" in done.stdout


def test_the_pages_show_an_experiment_in_yaml():
    assert YAML


@pytest.mark.parametrize("text", YAML)
def test_the_experiments_shown_in_yaml_are_accepted_by_nni_and_by_the_tuner(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = ExperimentConfig(**yaml.safe_load(text))
    config.validate()
    assert config.tuner.name == registration.NAME
    check_options(config.search_space, **config.tuner.class_args)
