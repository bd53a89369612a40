"""The examples in docstrings run."""

import doctest
import importlib
import pkgutil

import pytest

import snnsl_plugin

MODULES = [
    module.name
    for module in pkgutil.walk_packages(snnsl_plugin.__path__, "snnsl_plugin.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_give_what_they_say(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_the_public_names_have_an_example():
    for name in ("DynamicPruner", "ReverseDistiller", "SpikeRecorder"):
        assert ">>>" in getattr(snnsl_plugin, name).__doc__
