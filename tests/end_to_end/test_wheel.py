"""The wheel alone is enough: it is built, installed elsewhere, and used from outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[2]
RECIPES = sorted(path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "recipes").rglob("*.yaml"))


def python(*words: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, capture_output=True, text=True, timeout=300, check=False,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), cwd=CHECKOUT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with nothing in it but the package; what it needs stays where it is."""
    folder = tmp_path_factory.mktemp("installed")
    python(
        "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index",
        "--target", str(folder), str(wheel), cwd=folder,
    )  # fmt: skip
    return folder


def test_the_wheel_holds_the_package_and_its_recipes_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert len(RECIPES) >= 6
    assert [name for name in RECIPES if f"snnsl_plugin/{name}" not in names] == []
    files = [path for path in (CHECKOUT / "snnsl_plugin").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {path.relative_to(CHECKOUT).as_posix() for path in files} <= set(names)
    assert "snnsl_plugin/py.typed" in names
    assert any(name.endswith("/report.html.jinja") for name in names)
    strangers = [name for name in names if not name.startswith("snnsl_plugin/") and ".dist-info/" not in name]
    assert strangers == []
    assert not [name for name in names if "test_" in name or name.endswith(".pyc") or "conftest" in name]


def test_the_wheel_says_what_it_is(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
        (points,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        assert "snnsl = snnsl_plugin.cli:main" in archive.read(points).decode()
    assert "License-Expression: Apache-2.0" in text
    (nni,) = (line for line in text.splitlines() if line.startswith("Requires-Dist: nni"))
    assert "platform_machine in " in nni, "NNI has wheels for x86_64 only"


def test_the_installed_wheel_is_used_and_not_the_checkout(installed, tmp_path):
    where = "import snnsl_plugin, snnsl_plugin.recipe.catalog as c; print(snnsl_plugin.__file__); print(c.folder())"
    package, recipes = python("-c", where, cwd=tmp_path, PYTHONPATH=str(installed)).splitlines()
    assert Path(package) == installed / "snnsl_plugin" / "__init__.py"
    assert Path(recipes) == installed / "snnsl_plugin" / "recipes"


def test_its_verbs_work_outside_the_checkout(installed, tmp_path):
    def snnsl(*words: str) -> str:
        return python("-m", "snnsl_plugin", *words, cwd=tmp_path, PYTHONPATH=str(installed))

    listed = [line.split()[0] for line in snnsl("ls").splitlines()]
    assert listed == [name.removeprefix("recipes/").removesuffix(".yaml") for name in RECIPES]
    assert snnsl("cat", "digits") == (CHECKOUT / "recipes" / "digits.yaml").read_text()
    assert "valid, digest" in snnsl("validate", "digits")
    assert "valid, digest" in snnsl("validate", "bench/cifar100")
    assert list(tmp_path.iterdir()) == []


def test_a_run_from_the_wheel_leaves_its_report(installed, tiny_words, tmp_path):
    words = ["run", "digits", *tiny_words("train.epochs=1"), "--run-dir", "run"]
    printed = python("-m", "snnsl_plugin", *words, cwd=tmp_path, PYTHONPATH=str(installed))
    assert "accuracy, test" in printed
    assert (tmp_path / "run" / "report.html").is_file()
