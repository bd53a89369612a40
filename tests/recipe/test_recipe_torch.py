"""Recipes of type `torch.*` and `user.*`: masks of torch.nn.utils.prune, and pruners that others join."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from pydantic import create_model
from spikingjelly.activation_based.functional import reset_net
from torch.nn import functional as F
from torch.nn.utils import prune

from snnsl_plugin import registry
from snnsl_plugin.cli import main
from snnsl_plugin.core.schedules.cosine import cosine
from snnsl_plugin.errors import BadOption, BadRecipe, NothingMatched
from snnsl_plugin.recipe import assemble, phase, runner, torch_types
from snnsl_plugin.recipe.load import dump, load
from snnsl_plugin.recipe.nni_types import NNI_TYPES
from snnsl_plugin.recipe.schema import Dense, Recipe
from snnsl_plugin.recipe.torch_pruning_types import TORCH_PRUNING_TYPES
from snnsl_plugin.recipe.torch_types import HOSTED_TYPES, HostedPruning
from snnsl_plugin.training import checkpoint
from snnsl_plugin.training.events import Epoch, MaskUpdate
from snnsl_plugin.training.loop import batches
from snnsl_plugin.training.seeds import derived, generator

EPOCHS = 3
TINY = {
    "train.epochs": EPOCHS,
    "train.batch_size": 128,
    "train.optimizer.lr": 0.02,
    "model.channels": "[5, 7]",
    "model.hidden": 13,
    "model.v_threshold": 0.5,
    "data.encoder.T": 2,
    "dense_baseline": "false",
    "threads": 1,
    "tracking.mlflow": "false",
}
SIZES = {"conv1": 45, "conv2": 315, "fc1": 364, "fc2": 130}
CHANNELS = {"conv1": 5, "conv2": 7, "fc1": 13}
NAMES = ["global_l1", "l1", "ln_structured", "random", "random_structured"]
OF_CHANNELS = ("ln_structured", "random_structured")
DENSITY = 0.3
# Weights left at 0.3, by hand: 13.5, 94.5, 109.2 and 39 weights; 1.5, 2.1 and 3.9 channels of 9, 45 and 28 weights.
LEFT = {"conv1": 14, "conv2": 94, "fc1": 109, "fc2": 39}
LEFT_OF_CHANNELS = {"conv1": 2 * 9, "conv2": 2 * 45, "fc1": 4 * 28, "fc2": 130}
VARYING = ("wall_s", "seconds_per_epoch", "peak_memory_mib", "mlflow_run_id", "versions")
SELF = "{name: self, since: %s}"


def tiny(changes: dict[str, object] | None = None) -> Recipe:
    """The shipped digits recipe with a small network; what is given is laid over it."""
    return load("digits", [f"{key}={value}" for key, value in (TINY | (changes or {})).items()])


def of_type(name: str, changes: dict[str, object] | None = None) -> Recipe:
    start = {"pruning.type": f"torch.{name}", "pruning.density": DENSITY, "pruning.start": "14it"}
    return tiny(start | (changes or {}))


@pytest.fixture(scope="module")
def parts() -> assemble.Data:
    return assemble.data(tiny())


@pytest.fixture
def train(parts: assemble.Data, tmp_path: Path) -> Callable[..., dict]:
    """Trains a recipe in a folder below tmp_path, and returns the result without what may differ."""

    def train(recipe: Recipe, folder: str = "run", events: list | None = None) -> dict:
        run_dir = tmp_path / folder
        run_dir.mkdir(exist_ok=True)
        told = events.append if events is not None else lambda event: None
        with runner._settings(recipe):
            result = phase.train(recipe, run_dir, parts, told, name="tiny")
        return {key: value for key, value in result.items() if key not in VARYING}

    return train


def saved(folder: Path) -> dict:
    return checkpoint.load(folder / "checkpoint.safetensors")


# ----------------------------------------------------------------------------------------------------- the words


def test_the_types_are_those_of_the_registry():
    assert [each.model_fields["type"].annotation.__args__[0] for each in HOSTED_TYPES] == [
        *(f"torch.{name}" for name in NAMES),
        *(f"user.{name}" for name in sorted(registry.joined("pruners"))),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_of_a_type_survives_writing(name, tmp_path):
    recipe = of_type(name, {"pruning.layers": '["conv*", "fc1"]', "pruning.exclude": '["conv1"]'})
    (tmp_path / "again.yaml").write_text(dump(recipe))
    assert load(tmp_path / "again.yaml") == recipe
    again = of_type(name, {"pruning.layers": '["*"]', "pruning.start": "50%"})
    (tmp_path / "defaults.yaml").write_text(dump(again))
    assert load(tmp_path / "defaults.yaml") == again == of_type(name, {"pruning.start": "50%"})


BAD = {
    "no density": ({"type": "torch.l1"}, "pruning.density: this key is required and missing"),
    "a density of nothing": (
        {"type": "torch.l1", "density": 0.0},
        "pruning.density=0.0: pruning.density: is 0; it must be in (0, 1]",
    ),
    "torch's word": (
        {"type": "torch.l1", "density": 0.1, "amount": 0.9},
        "pruning.amount: unknown key 'amount' (known here: density, exclude, layers, start, type)",
    ),
    "a misspelt type": (
        {"type": "torch.l2", "density": 0.1},
        "pruning.type: unknown pruning type 'torch.l2'; did you mean 'torch.l1'?",
    ),
    "no duration": ({"type": "torch.l1", "density": 0.1, "start": "10"}, "pruning.start: must be text, not 10"),
    "another duration": ({"type": "torch.l1", "density": 0.1, "start": "10s"}, "'10s' is not a duration"),
    "an order of zero": ({"type": "torch.ln_structured", "density": 0.1, "n": 0}, "pruning.n: is 0; it must be above"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_option_is_one_sentence_with_its_place(case):
    options, said = BAD[case]
    with pytest.raises(BadRecipe) as caught:
        load("digits", [f"pruning.{key}={value}" for key, value in options.items()])
    assert len(caught.value.problems) == 1
    assert said in caught.value.problems[0]


def test_an_average_is_refused():
    with pytest.raises(BadRecipe, match=r"distillation: an average \(ema\) cannot follow"):
        of_type("l1", {"distillation.guide": "{name: self, ema: 0.9}"})


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"pruning.layers": '["con1"]'}, NothingMatched, "did you mean 'conv1'"),
        ({"pruning.start": "100%"}, BadOption, "nothing would be trained with the masks"),
        ({"pruning.density": 0.01}, BadOption, "layer 'conv1' would keep none of 45"),
    ],
)
def test_what_this_network_or_training_cannot_do_is_said_before_it_trains(changes, error, said, parts):
    with pytest.raises(error, match=said):
        assemble.assemble(of_type("l1", changes), parts)


# ------------------------------------------------------------------------------------------------------ the runs


@pytest.mark.parametrize("name", NAMES)
def test_a_run_keeps_exactly_what_was_asked_for_and_says_so(name, parts, train, tmp_path):
    events: list = []
    recipe = of_type(name)
    result = train(recipe, events=events)

    said = result["density"]["layers"]
    kept = {layer: facts["kept"] for layer, facts in said.items()}
    if name == "global_l1":
        assert sum(kept.values()) == 256  # 0.3 of 854 is 256.2
        assert all(facts["requested"] is None for facts in said.values())
    else:
        left = LEFT_OF_CHANNELS if name in OF_CHANNELS else LEFT
        assert kept == left
        assert {layer: facts["requested"] for layer, facts in said.items()} == {
            layer: None if name in OF_CHANNELS and layer == "fc2" else left[layer] / SIZES[layer] for layer in SIZES
        }
    prunable = 724 if name in OF_CHANNELS else 854
    assert result["density"]["weights"]["requested"] == pytest.approx(1 - 0.7 * prunable / 854)

    tree = saved(tmp_path / "run")
    for layer in SIZES:
        weight, mask = tree["model"][f"{layer}.weight"], tree["masks"][f"{layer}.weight"]
        assert torch.equal(weight != 0, mask)
        if name in OF_CHANNELS:
            rows = mask.flatten(1)
            assert (rows.all(1) | ~rows.any(1)).all()
    # What is saved is a plain network of the recipe, and does what was measured.
    plain = assemble.network(recipe, parts.splits)
    plain.load_state_dict(tree["model"])
    with torch.no_grad():
        right = [int((mean_logits(plain, x).argmax(1) == y).sum()) for x, y in batches(parts.test, "cpu")]
    assert sum(right) / len(parts.splits.test) == result["accuracy"]["test"]

    epochs = [event for event in events if isinstance(event, Epoch)]
    (update,) = [event for event in events if isinstance(event, MaskUpdate)]
    assert update.step == 14
    assert sum(update.dropped.values()) == 854 - sum(kept.values())
    assert [each.density for each in epochs] == [1.0, sum(kept.values()) / 854, sum(kept.values()) / 854]
    assert result["regrown"] == 0
    assert result["selected_epoch"] > 1


def mean_logits(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    network.eval()
    reset_net(network)
    return network(x).mean(0)


@pytest.mark.parametrize("name", ["l1", "random_structured"])
def test_masks_and_weights_are_those_of_a_script_that_a_user_of_torch_writes(name, parts, train, tmp_path):
    recipe = of_type(name, {"distillation": "null", "train.epochs": 2, "pruning.start": "16it"})
    result = train(recipe)
    assert result["selected_epoch"] == 2
    with runner._settings(recipe):
        model = by_hand(name, recipe, parts)
    tree = saved(tmp_path / "run")
    for layer in SIZES:
        assert torch.equal(tree["model"][f"{layer}.weight"], model.get_submodule(layer).weight), layer


def by_hand(name: str, recipe: Recipe, parts: assemble.Data) -> torch.nn.Module:
    """Torch's optimizer, loop and pruning functions, and nothing of a pruner of this package."""
    model = assemble.network(recipe, parts.splits)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.train.optimizer.lr)
    falling, done, steps = cosine(first=1.0, last=0.0), 0, 2 * len(parts.train)
    layers = [model.get_submodule(layer) for layer in SIZES]
    for epoch in (1, 2):
        torch.manual_seed(derived(recipe.seed, "epoch", epoch))
        model.train()
        for x, y in parts.train.epoch(generator(recipe.seed, "order", epoch)):
            for group in optimizer.param_groups:
                group["lr"] = recipe.train.optimizer.lr * falling(done / steps)
            reset_net(model)
            optimizer.zero_grad()
            F.cross_entropy(model(x).mean(0), y).backward()
            optimizer.step()
            done += 1
            if done == 16 and name == "l1":
                for layer, left, size in zip(layers, LEFT.values(), SIZES.values(), strict=True):
                    prune.l1_unstructured(layer, "weight", amount=size - left)
            elif done == 16:
                torch.manual_seed(derived(recipe.seed, "torch.nn.utils.prune"))
                for layer, left, channels in zip(layers, (2, 2, 4), CHANNELS.values(), strict=False):
                    prune.random_structured(layer, "weight", amount=channels - left, dim=0)
    for layer in layers:
        if prune.is_pruned(layer):
            prune.remove(layer, "weight")
    return model


# --------------------------------------------------------------------------------------------- stopped and going on

# 11 steps an epoch: masks after the first or the second checkpoint, or before training.
GOING_ON = {
    "before the masks": ("l1", {"pruning.start": "20it"}, "virtual", 1),
    "after the masks": ("random", {"pruning.start": "14it"}, "virtual", 2),
    "masks from the start": ("ln_structured", {"pruning.start": "0it"}, SELF % "0it", 1),
    "a guide from before the masks": ("l1", {"pruning.start": "14it"}, SELF % "5it", 2),
    "a guide that is masked": ("random_structured", {"pruning.start": "4it"}, SELF % "10it", 1),
}


@pytest.mark.parametrize("case", GOING_ON)
def test_an_interrupted_run_goes_on_bit_for_bit(case, parts, train, tmp_path, caplog):
    name, changes, guide, after = GOING_ON[case]
    recipe = of_type(name, changes | {"distillation.guide": guide})
    whole = train(recipe, "whole")
    with caplog.at_level(logging.WARNING, "snnsl_plugin"):
        resumed = interrupted(recipe, parts, train, tmp_path, after)
    assert caplog.text == ""
    assert resumed == whole
    for part in ("model", "masks"):
        one, two = saved(tmp_path / "cut")[part], saved(tmp_path / "whole")[part]
        assert one.keys() == two.keys()
        assert all(torch.equal(value, two[key]) for key, value in one.items())


def interrupted(recipe: Recipe, parts: assemble.Data, train: Callable[..., dict], tmp_path: Path, after: int) -> dict:
    def interrupt(event: object) -> None:
        if isinstance(event, Epoch) and event.epoch == after:
            raise KeyboardInterrupt

    (tmp_path / "cut").mkdir()
    with runner._settings(recipe), pytest.raises(KeyboardInterrupt):
        phase.train(recipe, tmp_path / "cut", parts, interrupt, name="tiny")
    assert saved(tmp_path / "cut")["progress"]["epoch"] == after
    epochs: list = []
    result = train(recipe, "cut", epochs)
    first = next(event.epoch for event in epochs if isinstance(event, Epoch))
    assert first == (1 if getattr(recipe.pruning, "forgetful", False) else after + 1)
    return result


def test_a_guide_that_is_the_network_itself_teaches(train):
    alone = train(of_type("l1", {"distillation": "null"}), "alone")
    taught = train(of_type("l1", {"distillation.guide": SELF % "10it"}), "taught")
    assert taught["firing_rate"] != alone["firing_rate"]
    assert taught["density"]["weights"] == alone["density"]["weights"]


# ---------------------------------------------------------------------------------------------------- looked at


def test_a_dry_run_shows_what_torch_would_prune(capsys):
    words = [f"{key}={value}" for key, value in TINY.items()]
    words += ["pruning.type=torch.ln_structured", "pruning.density=0.3", "pruning.start=2ep"]
    assert main(["run", "digits", *words, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert {each["name"]: each["prunable"] for each in plan["layers"]} == {
        "conv1": True, "conv2": True, "fc1": True, "fc2": False,
    }  # fmt: skip
    assert plan["counts"] == {layer: LEFT_OF_CHANNELS[layer] for layer in CHANNELS}
    assert plan["density_per_epoch"] == [1.0, 350 / 854, 350 / 854]


def test_the_schema_for_editors_names_every_type(capsys):
    assert main(["schema"]) == 0
    text = capsys.readouterr().out
    assert all(f'"torch.{name}"' in text for name in NAMES)


WORDS = {"density": "0.1", "channels": "0.5", "threshold": "{name: sine, first: 0.0, last: 0.05}"}
FACTS = {
    "snnsl.drop_grow": (False, "density", True),
    "nni.level": (False, "density", False),
    "nni.l1_norm": (True, "density", False),
    "nni.l2_norm": (True, "density", False),
    "nni.fpgm": (True, "density", False),
    "nni.slim": (True, "density", False),
    "nni.taylor": (True, "density", False),
    "nni.linear_l1_norm": (True, "density", True),
    "nni.agp_level": (False, "density", True),
    "nni.agp_taylor": (True, "density", True),
    "nni.movement": (True, "density", False),
    "nni.spiking_dynamic": (False, "density", True),
    "torch_pruning.base": (True, "channels", False),
    "torch_pruning.group_norm": (True, "channels", False),
    "torch_pruning.bn_scale": (True, "channels", False),
    "torch_pruning.growing_reg": (True, "channels", False),
    "torch_pruning.spiking": (True, "channels", False),
    "torch_pruning.spiking_dynamic": (True, "channels", True),
    "torch.global_l1": (False, "density", False),
    "torch.l1": (False, "density", False),
    "torch.ln_structured": (True, "density", False),
    "torch.random": (False, "density", False),
    "torch.random_structured": (True, "density", False),
}


@pytest.mark.parametrize("name", FACTS)
def test_every_type_says_what_it_removes_how_much_and_how_often(name):
    structured, strength, gradual = FACTS[name]
    value = "{name: cubic, first: 1.0, last: 0.1}" if name == "snnsl.drop_grow" else WORDS[strength]
    block = tiny({"pruning": f"{{type: {name}, {strength}: {value}}}"}).pruning
    assert (block.structured, type(block).strength, type(block).gradual) == (structured, strength, gradual)


def test_no_type_of_the_hosts_is_without_these_facts():
    types = [*NNI_TYPES, *TORCH_PRUNING_TYPES, *HOSTED_TYPES]
    words = {each.model_fields["type"].annotation.__args__[0] for each in types}
    assert {word for word in words if not word.startswith("user.")} == set(FACTS) - {"snnsl.drop_grow"}
    assert not any({"structured", "strength", "gradual"} & set(each.model_fields) for each in types)
    assert (Dense(type="dense").structured, Dense.strength, Dense.gradual) == (False, None, False)
    stds = tiny({"pruning": f"{{type: snnsl.stds, threshold: {WORDS['threshold']}}}"}).pruning
    assert (stds.structured, stds.strength, stds.gradual) == (False, None, True)
    weights = tiny({"pruning": "{type: nni.movement, density: 0.1, granularity: weight}"}).pruning
    assert not weights.structured


# ------------------------------------------------------------------------------------------------- pruners of users


def halved(model, total_steps, *, density: float = 0.5, every: str = "5it", until: str = "50%"):
    """Sets the last weights of the first linear layer to zero, half way.

    Args:
        model: masked.
        total_steps: of the training.
        density: share kept.
        every: not used.
        until: not used.
    """
    return Halved(model, total_steps, density)


class Halved:
    prunable = ("fc1",)

    def __init__(self, model, total_steps, density):
        self.weight, self.until, self.density, self.done = model.fc1.weight, total_steps // 2, density, 0

    def step(self):
        self.done += 1
        if self.done >= self.until:
            with torch.no_grad():
                self.weight.view(-1)[round(self.density * self.weight.numel()) :] = 0.0


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> type[HostedPruning]:
    """The block of a pruner that an entry point brings."""
    point = EntryPoint("halved", f"{__name__}:halved", "snnsl_plugin.pruners")
    monkeypatch.setattr(registry, "_joined", lambda group: [point] if group == "snnsl_plugin.pruners" else [])
    monkeypatch.setattr(EntryPoint, "load", lambda self: halved)
    assert registry.joined("pruners") == {"halved"}
    return torch_types._type("halved", "user", {"density": torch_types._share})


def with_joined(joined: type[HostedPruning], **options: object) -> Recipe:
    """What a recipe is in a process that starts with the pruner installed: the types are those of its beginning."""
    kind = create_model("Recipe", __base__=Recipe, pruning=(joined, ...))
    words = tiny().model_dump(mode="json", by_alias=True) | {"pruning": {"type": "user.halved"} | options}
    return kind.model_validate(words)


def test_a_joined_pruner_has_its_options_and_its_facts(joined):
    block = joined.model_validate({"type": "user.halved", "density": 0.25})
    assert (block.structured, block.strength, block.gradual) == (False, "density", True)
    assert set(joined.model_fields) == {"type", "density", "every", "until"}
    with pytest.raises(ValueError, match=r"is 2; it must be in \(0, 1\]"):
        joined.model_validate({"type": "user.halved", "density": 2.0})


def test_a_joined_pruner_is_counted_like_every_other(joined, train, tmp_path):
    recipe = with_joined(joined, density=0.25)
    events: list = []
    result = train(recipe, events=events)
    assert {layer: facts["kept"] for layer, facts in result["density"]["layers"].items()} == SIZES | {"fc1": 91}
    assert result["density"]["weights"]["requested"] == pytest.approx((854 - 273) / 854)
    (update,) = [event for event in events if isinstance(event, MaskUpdate)]
    assert update.step == EPOCHS * 11 // 2
    weight = saved(tmp_path / "run")["model"]["fc1.weight"].flatten()
    assert not weight[91:].any()
    assert weight[:91].all()


def test_a_joined_pruner_without_a_memory_starts_again_and_says_so(joined, parts, train, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(joined, "forgetful", True, raising=False)
    recipe = with_joined(joined)
    whole = train(recipe, "whole")
    with caplog.at_level(logging.WARNING, "snnsl_plugin"):
        assert interrupted(recipe, parts, train, tmp_path, 2) == whole
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'cut'}: the pruner user.halved (it has no load_state_dict) cannot go on from the middle, so the "
        "training of the sparse network starts again, from the same seed"
    ]


@pytest.mark.slow
def test_a_pruner_of_an_installed_package_runs_by_its_name(tmp_path):
    (tmp_path / "my_pruners.py").write_text(
        "import torch\n"
        "STRUCTURED = True\n"
        "class Rows:\n"
        "    def __init__(self, model, rows):\n"
        "        self.weight, self.rows = model.fc1.weight, rows\n"
        "    def step(self):\n"
        "        self.weight.data[: self.rows] = 0.0\n"
        "def first_rows(model, *, rows: int = 4):\n"
        '    """The first rows of fc1 go.\n\n    Args:\n        model: masked.\n        rows: how many.\n    """\n'
        "    return Rows(model, rows)\n"
    )
    info = tmp_path / "my_pruners-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-pruners\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[snnsl_plugin.pruners]\nfirst_rows = my_pruners:first_rows\n")
    words = [f"{key}={value}" for key, value in (TINY | {"train.epochs": 1}).items()]
    words += ["pruning={type: user.first_rows, rows: 5}", "--run-dir", str(tmp_path / "run"), "--json", "--quiet"]
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "snnsl_plugin", "run", "digits", *words],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["density"]["layers"]["fc1"]["kept"] == 364 - 5 * 28
    assert result["density"]["weights"]["requested"] is None
