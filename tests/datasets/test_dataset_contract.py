"""What every data set and encoder owes, found by name, so that a new file is tested by being there."""

import inspect
import subprocess
import sys

import pytest

from snnsl_plugin import registry

HEAVY = ("tonic", "torchvision", "sklearn", "PIL", "spikingjelly")


def test_listing_and_importing_load_no_optional_library():
    code = (
        "import sys; from snnsl_plugin import registry\n"
        "for kind in ('datasets', 'encoders', 'models'):\n"
        "    for name in registry.names(kind): registry.options(kind, name)\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_names_are_those_of_the_issue():
    assert {"digits", "nmnist", "cifar10", "cifar100", "image_folder", "event_folder", "dvs_gesture"} <= set(
        registry.names("datasets")
    )
    assert {"direct", "poisson", "frames"} <= set(registry.names("encoders"))


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k in ("datasets", "encoders") for n in registry.names(k)])
def test_all_options_are_keyword_only_typed_and_described(kind, name):
    function = registry.get(kind, name)
    signature = inspect.signature(function)
    assert all(p.kind is p.KEYWORD_ONLY for p in signature.parameters.values())
    assert all(p.annotation is not p.empty for p in signature.parameters.values())
    for option in signature.parameters:
        assert f"{option}: " in inspect.getdoc(function)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "nmnist", "dvs_gesture", "cifar10_dvs", "shd"])
def test_missing_data_is_an_error_before_any_library_is_needed_to_decode(name, tmp_path, monkeypatch):
    from snnsl_plugin.errors import MissingData

    monkeypatch.setenv("SNNSL_DATA", str(tmp_path))
    with pytest.raises(MissingData, match=name):
        registry.get("datasets", name)()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("library", "name"), [("sklearn.datasets", "digits"), ("torchvision", "cifar10"), ("torchvision", "cifar100")]
)
def test_a_library_that_cannot_be_imported_is_named(library, name, tmp_path, monkeypatch):
    from snnsl_plugin.errors import MissingExtra

    monkeypatch.setenv("SNNSL_DATA", str(tmp_path))
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match="cannot be imported here"):
        registry.get("datasets", name)()


def test_event_files_without_tonic_say_so(tmp_path, monkeypatch):
    from snnsl_plugin.datasets._recordings import read_events
    from snnsl_plugin.errors import MissingExtra

    monkeypatch.setitem(sys.modules, "tonic.io", None)
    with pytest.raises(MissingExtra, match="read by tonic"):
        read_events(tmp_path / "a.bin", camera="ibm", columns="xypt")
