"""What the pages show is true: Python runs, recipes validate, commands exist, links lead somewhere.

The info string of a block says what it is: `yaml recipe` is a whole recipe, `yaml pruning` and `yaml distillation` are
blocks of one. A block that begins with `# file: <path>` is a file of an example package, and is written, not run.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

from snnsl_plugin import registry
from snnsl_plugin.cli import main
from snnsl_plugin.cli.app import app
from snnsl_plugin.recipe import load as loading
from snnsl_plugin.recipe.load import load

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in (ROOT / "README.md", *DOCS)}
LINKED = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS, *sorted((ROOT / "docs" / "decisions").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)?([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^ *\$? ?(?:\w+=\S+ )*snnsl (\w.*)$", re.MULTILINE)
# What keeps the example of a training under a few seconds; the page's own number of epochs would take minutes.
SHORT = ["train.epochs=1", "model.channels=[4, 8]", "threads=1", "dense_baseline=false", "tracking.mlflow=false"]


class Fenced(NamedTuple):
    page: str
    language: str
    marks: list[str]
    text: str

    def file(self):
        return match[1] if (match := re.match(r"# file: (\S+)\n", self.text)) else None

    def whole_recipe(self):
        return "recipe" in self.marks or self.text.startswith("extends:")


FENCED = [Fenced(page, m[1] or "", m[2].split(), m[3]) for page, text in PAGES.items() for m in FENCE.finditer(text)]
EXTRAS = [block for block in FENCED if block.file()]


def blocks(language, *marks):
    return [block for block in FENCED if block.language == language and set(marks) <= set(block.marks)]


def commands():
    """The command lines of all pages, without prompt, comment and redirection."""
    for page, text in PAGES.items():
        for line in COMMAND.findall(text):
            yield page, re.split(r"\s+[#>]\s", line)[0].strip()


def write_example_recipe(folder):
    (folder / "my.yaml").write_text(next(block.text for block in blocks("yaml") if block.whole_recipe()))


@pytest.fixture
def extras(tmp_path, monkeypatch):
    """The folder of the example package, installed as far as Python can tell: files, metadata and entry points."""
    for block in EXTRAS:
        path = tmp_path / block.file()
        path.parent.mkdir(exist_ok=True)
        path.write_text(block.text)
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    metadata = tmp_path / "sparse_extras-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0.1.0\n")
    groups = project["entry-points"].items()
    lines = [line for group, points in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in points.items()))]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    registry._installed.cache_clear()
    yield tmp_path
    registry._installed.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "sparse_extras"]:
        del sys.modules[name]


@pytest.mark.parametrize("page", sorted({block.page for block in blocks("python")}))
def test_the_python_of_a_page_runs_from_top_to_bottom(page, extras, monkeypatch):
    monkeypatch.chdir(extras)
    write_example_recipe(extras)
    monkeypatch.setattr(loading, "load", lambda recipe, overrides=(): load(recipe, SHORT))
    namespace = {"__name__": "page"}
    for block in blocks("python"):
        if block.page == page and not block.file():
            exec(compile(block.text, f"{page}: {block.text.splitlines()[0]}", "exec"), namespace)


@pytest.mark.parametrize("block", [b for b in blocks("yaml") if b.whole_recipe()], ids=lambda b: b.page)
def test_whole_recipes_are_valid(block, tmp_path):
    path = tmp_path / "shown.yaml"
    path.write_text(block.text)
    assert load(path) != load("digits")


@pytest.mark.parametrize("block", [*blocks("yaml", "pruning"), *blocks("yaml", "distillation")], ids=lambda b: b.text)
def test_blocks_of_recipes_are_valid(block, tmp_path):
    path = tmp_path / "shown.yaml"
    path.write_text("extends: digits\n" + block.text)
    load(path)


def test_the_known_methods_differ_as_their_papers_do(tmp_path):
    shown = {}
    for block in blocks("yaml", "pruning"):
        path = tmp_path / f"{block.marks[1]}.yaml"
        path.write_text("extends: digits\n" + block.text)
        shown[block.marks[1]] = load(path).pruning
    assert list(shown) == [
        "gmp",
        "set",
        "rigl",
        "granet",
        "ndsnn",
        "stds",
        "dpf",
        "grad_r",
        "dpap",
        "sca",
        "bpsr",
        "sd_snn",
        "upr",
        "lth",
    ]
    assert shown["gmp"].swap is None
    assert shown["set"].growth.name == "random"
    assert shown["rigl"].growth.name == "gradient"
    assert shown["set"].density.name == shown["rigl"].density.name == "constant"
    assert shown["granet"].density.first == 1.0 > shown["ndsnn"].density.first > shown["ndsnn"].density.last
    swapping = [name for name, each in shown.items() if getattr(each, "swap", None)]
    assert swapping == ["set", "rigl", "granet", "ndsnn", "sca"]


@pytest.mark.parametrize("kind", ["criteria", "growth", "distributions", "schedules", "rules", "guides", "divergences"])
def test_the_method_page_names_every_algorithm(kind):
    for name in registry.names(kind):
        assert f"`{name}`" in PAGES["docs/method.md"] or f"{name}:" in PAGES["docs/method.md"], name


@pytest.mark.parametrize(
    "block", blocks("yaml", "extras"), ids=lambda block: re.search(r"type: ([\w.]+)", block.text)[1]
)
def test_the_example_package_joins_through_entry_points_and_trains(block, extras):
    recipe = extras / "extras.yaml"
    recipe.write_text(block.text)
    paths = [str(extras), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "snnsl_plugin", "run", str(recipe), "--quiet", "--json", "--run-dir", "extras-001"],
        cwd=extras,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["density"]["weights"]["achieved"] == 0.25
    assert result["regrown"] == 0


def test_the_example_package_has_one_of_each_kind():
    points = tomllib.loads(EXTRAS[0].text)["project"]["entry-points"]
    assert {group.removeprefix("snnsl_plugin.") for group in points} == set(registry.KINDS)


@pytest.mark.parametrize(("page", "command"), list(commands()))
def test_commands_are_real(page, command, tmp_path, monkeypatch, capsys):
    words = shlex.split(command)
    known = typer.main.get_command(app).commands
    assert words[0] in known
    monkeypatch.chdir(tmp_path)
    write_example_recipe(tmp_path)
    if words[0] in ("ls", "cat", "schema", "validate") or "--dry-run" in words:
        assert main(words) == 0
        assert capsys.readouterr().out
    elif words[0] == "run" and words[1] != "RECIPE":
        with known["run"].make_context("run", words[1:], resilient_parsing=True) as context:
            load(context.params["recipe"], context.params["overrides"] or [])


@pytest.mark.parametrize("path", LINKED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_to_a_file_and_a_heading(path):
    text = FENCE.sub("", path.read_text("utf-8"))
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        there = path.parent / name if name else path
        assert there.exists(), target
        if anchor:
            assert anchor in headings(there), target


def headings(path):
    """The anchors that forges and MyST give to headings."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_decisions_are_numbered_without_a_gap():
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs" / "decisions").glob("0*.md"))]
    assert numbers[0] == 1
    assert all(after == before + 1 for before, after in pairwise(numbers))
