"""The flags `--model` and `--data`: a network and pictures of the user's own, in place of the recipe's."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import snnsl_plugin
from snnsl_plugin.cli import main
from snnsl_plugin.cli.arguments import own
from snnsl_plugin.cli.progress import Progress
from snnsl_plugin.errors import BadOption, UnknownName
from snnsl_plugin.models import _permission
from snnsl_plugin.recipe.load import load

NUMBERS = itertools.count()
BUILD = """\
from torch import nn
from spikingjelly.activation_based import functional, layer, neuron

def build(input_shape, classes):
    inputs = input_shape[0] * input_shape[1] * input_shape[2]
    net = nn.Sequential(
        layer.Flatten(), layer.Linear(inputs, 16), layer.BatchNorm1d(16), neuron.LIFNode(), layer.Linear(16, classes)
    )
    functional.set_step_mode(net, "m")
    return net
"""
SMALL = ["train.epochs=2", "dense_baseline=false", "tracking.mlflow=false", "threads=1"]


@pytest.fixture
def target(tmp_path, monkeypatch):
    """A network in the current folder, under a name that no other test has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_permission, "_permitted", set())
    package = f"my_pkg_{next(NUMBERS)}"
    (tmp_path / package).mkdir()
    (tmp_path / package / "my_module.py").write_text(BUILD)
    return f"{package}.my_module:build"


@pytest.fixture
def pictures(tmp_path):
    """Two classes of eight pictures each to train on, and of two to test on."""
    from PIL import Image

    for part, count in (("train", 8), ("test", 2)):
        for label, colour in (("dark", 10), ("light", 200)):
            (tmp_path / "my pictures: new" / part / label).mkdir(parents=True)
            for number in range(count):
                picture = Image.new("RGB", (12, 12), (colour, colour + number, colour))
                picture.save(tmp_path / "my pictures: new" / part / label / f"{number}.png")
    return "my pictures: new"


def values(overrides):
    return dict(text.split("=", 1) for text in overrides if not text.startswith("~"))


def test_a_network_and_pictures_of_ones_own_are_planned_in_place_of_the_recipes(target, pictures, capsys):
    words = ["run", "digits", "--model", target, "--data", f"image_folder:{pictures}", "data.size=8", "--dry-run"]
    assert main([*words, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert {layer["name"]: layer["shape"] for layer in plan["layers"]} == {"1": [16, 3 * 8 * 8], "4": [2, 16]}
    assert plan["recipe"]["model"]["target"] == target
    assert {key: plan["recipe"]["data"][key] for key in ("name", "root", "size")} == {
        "name": "image_folder",
        "root": pictures,
        "size": 8,
    }


def test_a_run_folder_goes_on_only_with_the_flag_and_only_with_the_same_code(target, tmp_path, monkeypatch, capsys):
    def interrupt(self, phase, event):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "show", interrupt)
        assert main(["run", "digits", *SMALL, "--model", target, "--run-dir", "a", "-q"]) == 130
    again = capsys.readouterr().err.strip().removeprefix("interrupted; to go on: snnsl ").split()
    assert again[-5:] == ["--model", target, "--run-dir", "a", "--resume"]
    held = ["run", "a/recipe.yaml", "--run-dir", "a", "--resume", "-q"]
    monkeypatch.setattr(_permission, "_permitted", set())  # as in another process
    assert main(held) == 1
    assert f"give the flag --model {target}" in capsys.readouterr().err
    file = tmp_path / f"{target.partition('.')[0]}/my_module.py"
    file.write_text(BUILD + "# changed\n")
    assert main([*held, "--model", target]) == 1
    assert "my_module.py, which makes the network" in (said := capsys.readouterr().err)
    assert "has changed since this recipe was written" in said
    file.write_text(BUILD)
    assert main([*held, "--model", target]) == 0
    assert json.loads(Path("a/result.json").read_text())["status"] == "finished"
    assert main([*again, "-q"]) == 0


def test_the_same_code_has_the_same_digest_and_other_code_another(target, tmp_path):
    from snnsl_plugin.recipe.digest import digest

    first = digest(load("digits", own(target, None)))
    assert digest(load("digits", own(target, None))) == first
    (tmp_path / f"{target.partition('.')[0]}/my_module.py").write_text(BUILD + "# changed\n")
    assert digest(load("digits", own(target, None))) != first


def test_a_recipe_that_names_the_network_without_its_source_gets_it(target, tmp_path):
    (tmp_path / "own.yaml").write_text(f"extends: digits\nmodel: {{name: imported, target: '{target}'}}\n")
    (source,) = [text for text in own(target, None, recipe="own.yaml") if text.startswith("model.source=")]
    (tmp_path / "held.yaml").write_text(f"extends: own.yaml\nmodel: {{source: {source.partition('=')[2]}}}\n")
    assert own(target, None, recipe="held.yaml") == []
    assert source in own(target, None, recipe="held.yaml", overrides=["~model.source"])


def test_a_source_of_digits_alone_stays_a_text(target, monkeypatch):
    monkeypatch.setattr("snnsl_plugin.models._target.source_of", lambda target: "12345678901234e5")
    assert load("digits", own(target, None)).model.source == "12345678901234e5"


def test_without_flags_nothing_changes():
    assert own(None, None, recipe="digits") == []


@pytest.mark.parametrize(
    ("data", "overrides", "expected"),
    [
        ("digits", [], {"data.name": '"digits"'}),
        ("cifar100:/a/b", [], {"data.name": '"cifar100"', "data.root": '"/a/b"'}),
        ("cifar100", [], {"data.name": '"cifar100"'}),
        ("image_folder:C:/x", [], {"data.name": '"image_folder"', "data.root": '"C:/x"', "data.size": "32"}),
        ("image_folder:ä", ["data.size=8"], {"data.name": '"image_folder"', "data.root": '"ä"'}),
        ("event_folder:x", ["data.sensor_size=[3,4]"], {"data.name": '"event_folder"', "data.root": '"x"'}),
    ],
)
def test_a_data_set_is_written_by_its_name_and_folder(data, overrides, expected):
    found = own(None, data, overrides=overrides)
    assert found[0] == "~data"
    assert values(found) == expected


def test_nothing_of_the_recipes_data_set_is_left(tmp_path):
    text = (
        "extends: digits\ndata: {name: image_folder, root: a, size: 64, grayscale: true, encoder: {name: rate, T: 9}}\n"
    )
    (tmp_path / "a.yaml").write_text(text)
    found = load(tmp_path / "a.yaml", own(None, "image_folder:b")).data
    assert (found.root, found.size, found.grayscale, found.encoder) == ("b", 32, False, None)


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        ("image_folders:x", UnknownName, "unknown data set 'image_folders'; did you mean 'image_folder'"),
        ("image_folder", BadOption, "image_folder needs a folder: write --data image_folder:PATH"),
        ("image_folder:", BadOption, "the folder is missing: write --data image_folder:PATH"),
        ("digits:x", BadOption, "digits is not read from a folder of yours: write --data digits"),
        ("event_folder:x", BadOption, r"event_folder needs sensor_size as well: add data\.sensor_size=VALUE"),
    ],
)
def test_a_data_set_that_cannot_be_read_says_what_to_write(data, error, says):
    with pytest.raises(error, match=says):
        own(None, data)


def test_a_command_that_does_not_see_the_current_folder_finds_a_network_there(target, tmp_path):
    words = ["run", "digits", "--model", target, "--dry-run", "--json"]
    # -P leaves the current folder off sys.path, as an installed console script does.
    done = subprocess.run(
        [sys.executable, "-P", "-m", "snnsl_plugin", *words],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(Path(snnsl_plugin.__file__).parents[1])},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recipe"]["model"]["target"] == target


def test_the_network_learns(target):
    words = ["train.epochs=5", *SMALL[1:], "pruning={type: dense}", "distillation=null"]
    assert main(["run", "digits", *words, "--model", target, "--run-dir", "b", "-q"]) == 0
    assert json.loads(Path("b/result.json").read_text())["accuracy"]["test"] > 0.3  # chance is 0.1
