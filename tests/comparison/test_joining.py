"""An installed package brings a rule, pruners and a data set, and the comparison knows them by their names alone."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from snnsl_plugin import comparison, registry
from snnsl_plugin.comparison.entrants import pruning_types

POINTS = {
    "rules": {"smallest_first": "joining_extras.rules:smallest_first"},
    "pruners": {
        "steady": "joining_extras.pruners:steady",
        "dice": "joining_extras.pruners:dice",
        "fragile": "joining_extras.pruners:fragile",
        "idle": "joining_extras.pruners:idle",
    },
    "datasets": {"bars": "joining_extras.bars:bars"},
}
JOINED = ["snnsl.smallest_first", "user.dice", "user.fragile", "user.idle", "user.steady"]
FILES = {
    "__init__.py": "",
    "rules.py": '''
from snnsl_plugin.core.layer import Schedule
from snnsl_plugin.core.masks import keep_top
from snnsl_plugin.core.rules.drop_grow import after_step_

__all__ = ["after_step_", "smallest_first"]


def smallest_first(layers, progress, *, density: Schedule):
    """Drops the smallest of the living in each layer.

    Args:
        layers: all layers.
        progress: in [0, 1].
        density: the share of each layer kept, falling.
    """

    def mask(layer):
        n_keep = round(density(progress) * layer.weight.numel())
        return keep_top(layer.weight.abs(), min(n_keep, int(layer.mask.sum())), among=layer.mask)

    return {layer.name: {"mask": mask(layer)} if layer.prunable else layer.state for layer in layers}
''',
    "pruners.py": '''
import torch

from snnsl_plugin.anatomy import weight_layers
from snnsl_plugin.core.masks import keep_top
from snnsl_plugin.training.duration import steps


class Masking:
    """Masks by scores at a step, and zeroes with these masks from there on; or makes new ones at every step."""

    def __init__(self, model, density, at, scores, anew=False):
        self.layers, self.density, self.until, self.done = weight_layers(model), density, at, 0
        self.scores, self.anew, self.masks = scores, anew, {}

    @torch.no_grad()
    def step(self):
        self.done += 1
        if self.done == self.until or (self.anew and self.done > self.until):
            for name, layer in self.layers.items():
                n_keep = round(self.density * layer.weight.numel())
                self.masks[name] = keep_top(self.scores(layer.weight), n_keep)
        for name, mask in self.masks.items():
            self.layers[name].weight.mul_(mask)


def steady(model, total_steps, *, density: float):
    """The smallest weights of each layer go at half time.

    Args:
        model: masked in place.
        total_steps: of the training.
        density: share of each layer that is kept.
    """
    print("steady is made")
    return Masking(model, density, total_steps // 2, torch.abs)


def idle(model, total_steps, *, density: float):
    """Says that it prunes and does not.

    Args:
        model: left alone.
        total_steps: of the training.
        density: of no effect.
    """
    return Masking(model, density, total_steps + 1, torch.abs)


def dice(model, total_steps, *, density: float):
    """Bad on purpose: every step keeps other weights, drawn by lot.

    Args:
        model: masked in place.
        total_steps: of the training.
        density: share of each layer that is kept.
    """
    return Masking(model, density, total_steps // 2, torch.rand_like, anew=True)


def fragile(model, total_steps, *, density: float, every: str = "2it", until: str = "90%"):
    """Breaks in the middle of the training, at the step that the comparison sets.

    Args:
        model: left alone.
        total_steps: of the training.
        density: of no effect.
        every: of no effect.
        until: when it breaks.
    """
    made = Masking(model, density, steps(until, total_steps=total_steps), torch.abs)

    def broken(weight):
        raise RuntimeError(f"no scores\\n  at step {made.done}")

    made.scores = broken
    return made
''',
    "bars.py": '''
import torch

from snnsl_plugin.datasets._splits import Splits


def bars(*, samples: int = 96, split_seed: int = 0) -> Splits:
    """Pictures with a bright bar in one of four places, 1x8x8, made on the spot.

    Args:
        samples: in each of the three parts.
        split_seed: of the pictures.
    """
    generator = torch.Generator().manual_seed(split_seed)

    def part():
        made = []
        for number in range(samples):
            x = 0.6 * torch.rand(1, 8, 8, generator=generator)
            x[:, 2 * (number % 4) : 2 * (number % 4) + 2] += 0.4
            made.append((x, number % 4))
        return made

    places = ["top", "upper", "lower", "bottom"]
    return Splits(part(), part(), part(), places, (1, 8, 8), events=False, source="made by bars")
''',
}
RECIPE = """
schema: 1
data: {name: bars, encoder: {name: direct, T: 2}}
model: {name: spiking_cnn, channels: [4], hidden: 16, v_threshold: 0.5}
train: {epochs: 4, batch_size: 12, optimizer: {name: adam, lr: 2.0e-2}}
pruning: {type: dense}
tracking: {mlflow: false}
compare:
  pruners: [snnsl.smallest_first, user.*, snnsl.gmp]
  densities: [0.2]
  seeds: [0, 1]
  every: 4it
  until: 50%
  references: [snnsl.gmp]
  workers: 2
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder of the package, installed as far as Python can tell: files, metadata and entry points."""
    root = tmp_path_factory.mktemp("installed")
    (root / "joining_extras").mkdir()
    for name, text in FILES.items():
        (root / "joining_extras" / name).write_text(text)
    info = root / "joining_extras-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: joining-extras\nVersion: 1.0\n")
    lines = []
    for kind, points in POINTS.items():
        lines += [f"[snnsl_plugin.{kind}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return root


def python(installed: Path, *words: str, cwd: Path | None = None) -> str:
    """What a fresh Python with the package on its path prints."""
    paths = [str(installed), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", sorted(Path(comparison.__path__[0]).glob("*.py")), ids=lambda path: path.stem)
def test_the_comparison_names_no_rule_no_pruner_and_no_data_set(path):
    words = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    known = {name for kind in ("rules", "pruners", "datasets", "models") for name in registry.names(kind)}
    known |= set(pruning_types()) - {"dense"}
    assert not words & known


def test_what_is_joined_takes_part_by_itself(installed):
    listed = (
        "import json; from snnsl_plugin.comparison import entrants, terms; "
        "facts = lambda each: [each.host, each.summary, each.distillation, terms.strength_key(each)]; "
        "print(json.dumps({name: facts(each) for name, each in entrants.available().items()}))"
    )
    found = json.loads(python(installed, "-c", listed))
    assert [name for name in JOINED if name in found] == JOINED
    summary = "Bad on purpose: every step keeps other weights, drawn by lot."
    assert found["user.dice"] == ["user", summary, None, "density"]
    assert found["snnsl.smallest_first"][::3] == ["snnsl", "density"]
    assert [name for name in found if name.startswith("user.")] == JOINED[1:]


@pytest.fixture(scope="module")
def compared(installed, tmp_path_factory):
    """The folder of a comparison on the joined data, and its `comparison.json`."""
    root = tmp_path_factory.mktemp("compared")
    (root / "bars.yaml").write_text(RECIPE)
    words = ("-m", "snnsl_plugin", "compare", "bars.yaml", "--quiet", "--json", "--run-dir", "compared")
    found = json.loads(python(installed, *words, cwd=root))
    assert found == json.loads((root / "compared" / "comparison.json").read_text())
    return root / "compared", found


def rows_of(found: dict) -> dict[str, dict]:
    return {row["pruner"]: row for row in found["rows"]}


@pytest.mark.slow
def test_a_joined_rule_pruner_and_data_set_are_compared_like_all_others(compared):
    folder, found = compared
    assert found["status"] == "finished"
    assert [task["name"] for task in found["tasks"]] == ["bars"]
    assert found["tasks"][0]["samples"] == {"train": 96, "validation": 96, "test": 96}
    rows = rows_of(found)
    assert list(rows) == ["dense", "snnsl.smallest_first", *sorted(JOINED[1:]), "snnsl.gmp"]
    assert {row["kind"] for name, row in rows.items() if name != "dense"} == {"unstructured"}
    for name in ("dense", "snnsl.smallest_first", "user.steady", "user.dice", "snnsl.gmp"):
        assert (rows[name]["status"], rows[name]["error"]) == ("finished", None)
        assert [run["status"] for run in rows[name]["runs"]] == ["finished"] * 2
        assert all((folder / run["folder"] / "result.json").is_file() for run in rows[name]["runs"])
        # 0.2 of 36, 1024 and 64 weights, rounded layer by layer: 225 of 1124.
        density = 1.0 if name == "dense" else 225 / 1124
        assert rows[name]["measures"]["density"]["mean"] == pytest.approx(density, abs=1e-9), name
    assert found["tables"][0]["reference"] == "snnsl.gmp"


@pytest.mark.slow
def test_a_pruner_that_breaks_takes_its_row_with_its_sentence_and_stops_no_other(compared):
    folder, found = compared
    row = rows_of(found)["user.fragile"]
    # Half of 4 epochs of 8 batches, as `until` of the comparison says. What the others did stands in the test above.
    assert row["status"] == "failed"
    assert row["error"] == "RuntimeError: no scores at step 16"
    assert [(run["status"], run["error"], run["numbers"]) for run in row["runs"]] == [
        ("failed", row["error"], None)
    ] * 2
    log = (folder / "logs" / f"{Path(row['runs'][0]['folder']).name}.log").read_text()
    assert "Traceback" in log
    assert 'joining_extras/pruners.py"' in log
    (table,) = found["tables"]
    assert table["order"][-1] == "user.fragile"
    assert table["differences"]["user.fragile"]["verdict"] == "not tested"


@pytest.mark.slow
def test_a_pruner_that_is_planted_as_bad_ranks_last_of_those_that_finished(compared):
    _, found = compared
    rows, (table,) = rows_of(found), found["tables"]
    accuracy = {name: row["measures"]["accuracy"]["mean"] for name, row in rows.items() if row["measures"]}
    assert table["order"][-3] == "user.dice"
    assert accuracy["user.dice"] < 0.5 < 0.8 < min(accuracy[name] for name in table["order"][:-3])
    assert accuracy["dense"] > 0.8


@pytest.mark.slow
def test_a_pruner_that_leaves_more_than_it_was_asked_for_is_not_judged(compared):
    _, found = compared
    row, (table,) = rows_of(found)["user.idle"], found["tables"]
    assert (row["measures"]["density"]["mean"], row["strength"]["missed"]) == (1.0, True)
    assert table["order"][-2] == "user.idle", "behind all that keep to the budget, however good it is"
    assert table["differences"]["user.idle"]["verdict"] == "not tested"
    assert not any(rows_of(found)[name]["strength"]["missed"] for name in JOINED if name != "user.idle")


def test_other_code_under_the_same_name_is_another_run(installed):
    asked = (
        "from snnsl_plugin.recipe.digest import digest; from snnsl_plugin.recipe.load import load; "
        "print(*(digest(load('digits', ['distillation=null', 'pruning=' + each])) for each in "
        "('{type: user.steady, density: 0.5}', '{type: snnsl.smallest_first, density: {name: constant, value: 0.5}}', "
        "'{type: torch.l1, density: 0.5}')))"
    )
    code = installed / "joining_extras" / "pruners.py"
    before, text = python(installed, "-c", asked).split(), code.read_text()
    code.write_text(text + "# other code\n")
    after = python(installed, "-c", asked).split()
    code.write_text(text)
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, True]
