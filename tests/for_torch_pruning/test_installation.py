"""install() and uninstall()."""

import subprocess
import sys

import pytest
import torch_pruning as tp

from snnsl_plugin import for_torch_pruning
from snnsl_plugin.errors import BadOption
from snnsl_plugin.for_torch_pruning import install, uninstall

PRUNERS = [name for name in for_torch_pruning.__all__ if name.endswith("Pruner")]


@pytest.fixture(autouse=True)
def _taken_out_again():
    yield
    uninstall()


def contents():
    return dict(vars(tp.pruner)), dict(vars(tp.importance)), dict(vars(tp))


def test_our_classes_are_found_under_the_names_of_the_host():
    told = install()
    assert {name: getattr(tp.pruner, name) for name in PRUNERS} == {
        name: getattr(for_torch_pruning, name) for name in PRUNERS
    }
    assert tp.importance.SpikingImportance is for_torch_pruning.SpikingImportance
    assert sorted(told) == sorted([*(f"tp.pruner.{name}" for name in PRUNERS), "tp.importance.SpikingImportance"])


def test_a_second_call_changes_nothing_and_uninstalling_leaves_the_host_exactly_as_it_was():
    before = contents()
    once = install()
    after_once = contents()
    assert install() == once
    assert contents() == after_once
    assert uninstall() == once
    assert contents() == before
    assert uninstall() == []
    assert contents() == before


@pytest.mark.parametrize(("module", "name"), [(tp.pruner, "SpikingPruner"), (tp.importance, "SpikingImportance")])
def test_what_is_not_ours_is_neither_overwritten_nor_taken_away(module, name, monkeypatch):
    theirs = type(name, (), {})
    monkeypatch.setattr(module, name, theirs, raising=False)
    before = contents()
    with pytest.raises(BadOption, match=f"{name} is .* already and stays"):
        install()
    assert contents() == before
    assert uninstall() == []
    assert getattr(module, name) is theirs


def test_importing_the_package_installs_nothing():
    code = (
        "import torch_pruning as tp, snnsl_plugin.for_torch_pruning as ours\n"
        "[getattr(ours, name) for name in ours.__all__]\n"
        "assert not hasattr(tp.pruner, 'SpikingPruner') and not hasattr(tp.importance, 'SpikingImportance')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
