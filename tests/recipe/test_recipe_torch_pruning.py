"""Recipes of type `torch_pruning.*`: channels that go in the middle of a run, and the smaller network it leaves."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch_pruning as tp
from safetensors.torch import load_file
from spikingjelly.activation_based.functional import reset_net, set_step_mode
from torch.nn import functional as F

from snnsl_plugin.cli import main
from snnsl_plugin.compaction.checkpoint import load_compact
from snnsl_plugin.core.schedules.cosine import cosine
from snnsl_plugin.errors import BadOption, BadRecipe, CannotCut, NothingMatched
from snnsl_plugin.for_torch_pruning.builtin import BUILTIN
from snnsl_plugin.for_torch_pruning.driven_cuts import PRUNERS
from snnsl_plugin.metrics.measure import measure
from snnsl_plugin.recipe import assemble, phase, runner
from snnsl_plugin.recipe.load import dump, load
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.recipe.torch_pruning_types import _IMPORTANCES, TORCH_PRUNING_TYPES
from snnsl_plugin.training import checkpoint
from snnsl_plugin.training.events import Epoch, MaskUpdate
from snnsl_plugin.training.loop import batches
from snnsl_plugin.training.seeds import derived, generator

EPOCHS, PER_EPOCH = 3, 11
TINY = {
    "train.epochs": EPOCHS,
    "train.batch_size": 128,
    "train.optimizer.lr": 0.02,
    "model.channels": "[6, 8]",
    "model.hidden": 12,
    "model.v_threshold": 0.5,
    "data.encoder.T": 2,
    "dense_baseline": "false",
    "threads": 1,
    "tracking.mlflow": "false",
}
SHAPES = {"conv1": (6, 1, 3, 3), "conv2": (8, 6, 3, 3), "fc1": (12, 32), "fc2": (10, 12)}
SIZES = {layer: torch.Size(shape).numel() for layer, shape in SHAPES.items()}
#: half of 6, 8 and 12 channels: 3x9, 4x3x9, 6x(4x4 sites), 10x6
HALF = {"conv1": 27, "conv2": 108, "fc1": 96, "fc2": 60}
#: after the first of two cuts: int(6 x 3/4) = 4, 6 and 9
FIRST = {"conv1": 36, "conv2": 216, "fc1": 216, "fc2": 90}
CUTS = {"pruning.until": "20it", "pruning.iterative_steps": 2, "pruning.batches": 2}
TYPES: dict[str, dict[str, object]] = {
    "base": CUTS,
    "spiking": CUTS,
    "group_norm": CUTS,
    "bn_scale": CUTS | {"pruning.group_lasso": "true"},
    "growing_reg": CUTS | {"pruning.every": "3it"},
    "spiking_dynamic": {"pruning.until": "20it", "pruning.every": "4it", "pruning.batches": 2},
}
VARYING = ("wall_s", "seconds_per_epoch", "peak_memory_mib", "mlflow_run_id", "versions")


def tiny(changes: dict[str, object] | None = None) -> Recipe:
    """The shipped digits recipe with a small network; what is given is laid over it."""
    return load("digits", [f"{key}={value}" for key, value in (TINY | (changes or {})).items()])


def of_type(name: str, changes: dict[str, object] | None = None) -> Recipe:
    return tiny({"pruning.type": f"torch_pruning.{name}", "pruning.channels": 0.5} | TYPES[name] | (changes or {}))


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


def fresh(recipe: Recipe, parts: assemble.Data) -> torch.nn.Module:
    return assemble.network(recipe, parts.splits)


# ----------------------------------------------------------------------------------------------------- the words


def test_the_types_and_importances_are_those_that_the_driver_knows():
    assert {each.model_fields["type"].annotation.__args__[0] for each in TORCH_PRUNING_TYPES} == {
        f"torch_pruning.{name}" for name in (*PRUNERS, "spiking_dynamic")
    }
    named = {each.model_fields["name"].annotation.__args__[0] for each in _IMPORTANCES}
    assert named == {*BUILTIN, "spiking"}


@pytest.mark.parametrize("name", TYPES)
def test_a_recipe_of_a_type_survives_writing(name, tmp_path):
    recipe = of_type(name, {"pruning.per_layer": "{conv1: 0.75}"})
    (tmp_path / "again.yaml").write_text(dump(recipe))
    assert load(tmp_path / "again.yaml") == recipe
    assert recipe.pruning.name == name


def test_validating_needs_no_torch_pruning_and_running_says_so_where_it_is_missing():
    code = (
        "import sys\n"
        "from snnsl_plugin.cli import main\n"
        "status = main(['validate', 'digits_structured', 'pruning.importance=taylor'])\n"
        "assert status == 0 and 'torch_pruning' not in sys.modules\n"
        "sys.modules['torch_pruning'] = None\n"
        "sys.exit(main(['run', 'digits_structured', '--dry-run']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "valid, digest" in done.stdout
    assert done.returncode == 1, done.stderr
    assert "pruning.type 'torch_pruning.spiking' needs torch_pruning, which cannot be imported here" in done.stderr
    assert "pip install 'torch-pruning>=1.6,<2'" in done.stderr


BAD = {
    "no share": ({"type": "torch_pruning.base"}, "pruning.channels: this key is required and missing"),
    "a share of nothing": ({"type": "torch_pruning.base", "channels": 0}, "channels: must be greater than 0, not 0"),
    "a share of all": ({"type": "torch_pruning.base", "channels": 1.0}, "channels: must be less than 1, not 1.0"),
    "the host's word": (
        {"type": "torch_pruning.base", "channels": 0.5, "pruning_ratio": 0.5},
        "pruning.pruning_ratio: unknown key 'pruning_ratio'",
    ),
    "a misspelt type": (
        {"type": "torch_pruning.bas", "channels": 0.5},
        "unknown pruning type 'torch_pruning.bas'; did you mean 'torch_pruning.base'?",
    ),
    "a misspelt importance": (
        {"type": "torch_pruning.base", "channels": 0.5, "importance": "magnitud"},
        "unknown importance 'magnitud'; did you mean 'magnitude'?",
    ),
    "an importance that is broken in the host": (
        {"type": "torch_pruning.base", "channels": 0.5, "importance": "obdc"},
        "unknown importance 'obdc' (known: bn_scale, fpgm, hessian, lamp, magnitude, random, spiking, taylor)",
    ),
    "an option of another importance": (
        {"type": "torch_pruning.base", "channels": 0.5, "importance": "{name: lamp, normalizer: mean}"},
        "pruning.importance.normalizer: unknown key 'normalizer'",
    ),
    "structures ranked each by itself": (
        {"type": "torch_pruning.base", "channels": 0.5, "isomorphic": "true"},
        "pruning.isomorphic: ranks groups of one structure together, so it needs global_pruning: true",
    ),
    "scores that are not there at every step": (
        {"type": "torch_pruning.group_norm", "channels": 0.5, "importance": "taylor"},
        "pruning.importance: 'taylor' is measured on data at a cut, and torch_pruning.group_norm asks for scores",
    ),
    "scores without a root": (
        {"type": "torch_pruning.growing_reg", "channels": 0.5, "importance": "{name: magnitude, normalizer: gaussian}"},
        "pruning.importance: makes scores negative",
    ),
    "a pass a sample at each update": (
        {"type": "torch_pruning.spiking_dynamic", "channels": 0.5, "importance": "hessian"},
        "pruning.importance: takes one pass a sample",
    ),
    "more exchanged than there is": (
        {"type": "torch_pruning.spiking_dynamic", "channels": 0.5, "swap": "{name: constant, value: 2}"},
        "pruning.swap.value: is 2; it must be in [0, 1]",
    ),
    "an end before the start": (
        {"type": "torch_pruning.base", "channels": 0.5, "start": "60%"},
        "pruning.until: is '50%', which is not after start ('60%')",
    ),
    "no cut": (
        {"type": "torch_pruning.base", "channels": 0.5, "iterative_steps": 0},
        "pruning.iterative_steps: must be at least 1, not 0",
    ),
    "a share of a layer out of range": (
        {"type": "torch_pruning.base", "channels": 0.5, "per_layer": "{conv1: 1.5}"},
        "pruning.per_layer.conv1: must be less than 1, not 1.5",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_a_recipe_cannot_mean_is_said_with_its_place(case):
    words, said = BAD[case]
    with pytest.raises(BadRecipe) as told:
        tiny({f"pruning.{key}": value for key, value in words.items()})
    assert said in str(told.value)


def test_an_average_cannot_follow_a_network_that_gets_smaller():
    with pytest.raises(BadRecipe, match=r"distillation: an average \(ema\) cannot follow"):
        of_type("base", {"distillation.guide": "{name: self, ema: 0.9}"})


REFUSED = {
    "a pattern for nobody": (("base", {"pruning.layers": '["convolution*"]'}), NothingMatched, "matches no layer"),
    "a share for nobody": (("base", {"pruning.per_layer": "{fc2: 0.75}"}), NothingMatched, "no layer is left"),
    "nothing that may go": (("base", {"pruning.exclude": '["*"]'}), NothingMatched, "no layer is left to prune"),
    "a layer without channels": (
        ("base", {"pruning.channels": 0.1}), BadOption, "would leave no channel to 'conv1', which has 6"
    ),
    "a layer of less than a multiple": (
        ("base", {"pruning.round_to": 4}), BadOption, "would leave no channel to 'conv1', which has 6: keep more of it"
    ),
    "a layer without channels, masked": (
        ("spiking_dynamic", {"pruning.channels": 0.1}), BadOption, "'conv1' would keep 0 of its 6 units",
    ),
    "classes that would go": (("base", {"pruning.exclude": "[]"}), CannotCut, r"'fc2' cannot be cut.*pruning.exclude"),
    "classes that would go, masked": (
        ("spiking_dynamic", {"pruning.exclude": "[]"}), CannotCut, r"'fc2' cannot be cut.*pruning.exclude",
    ),
    "classes that would go, ranked together": (
        ("base", {"pruning.exclude": "[]", "pruning.global_pruning": "true"}), CannotCut, r"'fc2' cannot be cut",
    ),
    "nothing trained after it": (("base", {"pruning.until": "100%"}), BadOption, "nothing would be trained after"),
    "nothing trained after a search": (
        ("spiking_dynamic", {"pruning.until": "100%", "pruning.every": "11it"}), BadOption,
        "nothing would be trained after",
    ),
    "more cuts than steps": (("base", {"pruning.until": "3it", "pruning.iterative_steps": 4}), BadOption,
                             "there are only 3 steps"),
    "no update": (("spiking_dynamic", {"pruning.every": "30it"}), BadOption, "update more often"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_this_network_or_training_cannot_do_is_said_before_it_trains(case, parts):
    (name, changes), error, said = REFUSED[case]
    with pytest.raises(error, match=said.replace("(", r"\(")):
        assemble.assemble(of_type(name, changes), parts)


# ------------------------------------------------------------------------------------------------------ the runs


@pytest.mark.parametrize("name", TYPES)
def test_a_run_keeps_the_share_and_leaves_a_network_that_is_smaller(name, parts, train, tmp_path):
    recipe, events = of_type(name), []
    result = train(recipe, events=events)

    said = result["density"]
    assert {layer: said["layers"][layer]["kept"] for layer in SHAPES} == HALF
    assert {layer: said["layers"][layer]["total"] for layer in SHAPES} == SIZES
    assert {layer: said["layers"][layer]["requested"] for layer in SHAPES} == {
        layer: kept / SIZES[layer] for layer, kept in HALF.items()
    }
    total = sum(SIZES.values())
    assert said["weights"] == {
        "requested": sum(HALF.values()) / total,
        "achieved": sum(HALF.values()) / total,
        "kept": sum(HALF.values()),
        "total": total,
    }
    # A norm has scale and shift, the last layer a bias.
    assert result["parameters"] == {
        "dense": total + 2 * (6 + 8 + 12) + 10,
        "kept": sum(HALF.values()) + 2 * (3 + 4 + 6) + 10,
    }
    assert said["connections"]["live"] <= sum(HALF.values())

    epochs = [event for event in events if isinstance(event, Epoch)]
    updates = [event for event in events if isinstance(event, MaskUpdate)]
    planned = assemble.assemble(recipe, parts).pruner.planned_density
    assert [each.density for each in epochs] == [planned(each.step) for each in epochs]
    assert [each.step for each in updates] == ([4, 8, 12, 16, 20] if name == "spiking_dynamic" else [10, 20])
    if name != "spiking_dynamic":
        assert [each.density for each in updates] == [sum(FIRST.values()) / total, sum(HALF.values()) / total]
        assert updates[0].dropped == {layer: SIZES[layer] - kept for layer, kept in FIRST.items()}
    born = sum(sum(event.born.values()) for event in updates)
    assert result["regrown"] == born
    assert (born > 0) == (name == "spiking_dynamic")
    gone = sum(sum(event.dropped.values()) for event in updates)
    assert gone - born == total - sum(HALF.values())

    # What was measured is what is in the folder: the compact network, made of a fresh dense one.
    left = load_compact(tmp_path / "run" / "compact.safetensors", fresh(recipe, parts))
    assert {layer: left.get_submodule(layer).weight.numel() for layer in SHAPES} == HALF
    assert measure(left, batches(parts.test, "cpu"), synops=False).accuracy == result["accuracy"]["test"]
    stored = checkpoint.load(tmp_path / "run" / "checkpoint.safetensors")["model"]
    held = load_file(tmp_path / "run" / "compact.safetensors")
    assert all(torch.equal(held[key], value) for key, value in stored.items())


@pytest.mark.parametrize(
    "importance",
    [
        "{name: taylor, multivariable: true}",
        "hessian",
        "{name: spiking, criterion: taylor, p: 1}",
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in (
                "random",
                "{name: magnitude, p: 1, normalizer: null, group_reduction: max, bias: true}",
                "lamp",
                "fpgm",
                "bn_scale",
                "{name: spiking, statistic: input, weight_power: 0}",
            )
        ),
    ],
)
def test_any_importance_chooses_as_many_channels(importance, train):
    result = train(of_type("base", {"pruning.importance": importance, "train.epochs": 2, "pruning.iterative_steps": 1}))
    assert {layer: facts["kept"] for layer, facts in result["density"]["layers"].items()} == HALF


@pytest.mark.slow
@pytest.mark.parametrize("importance", ["random", "taylor", "magnitude"])
def test_channels_return_for_any_importance(importance, train):
    result = train(of_type("spiking_dynamic", {"pruning.importance": importance}))
    assert {layer: facts["kept"] for layer, facts in result["density"]["layers"].items()} == HALF
    assert result["regrown"] > 0


@pytest.mark.parametrize("name", ["base", pytest.param("spiking_dynamic", marks=pytest.mark.slow)])
def test_shares_by_layer_and_layers_that_stay_are_heard(name, train):
    one = train(of_type(name, {"pruning.per_layer": "{conv1: 0.67, fc1: 0.75}"}), "one")
    # int(6 x 0.67) = 4, 4 of 8, 9 of 12
    counts = {layer: facts["kept"] for layer, facts in one["density"]["layers"].items()}
    assert counts == {"conv1": 36, "conv2": 144, "fc1": 144, "fc2": 90}
    two = train(of_type(name, {"pruning.exclude": '["conv2", "fc2"]'}), "two")
    counts = {layer: facts["kept"] for layer, facts in two["density"]["layers"].items()}
    assert counts == {"conv1": 27, "conv2": 216, "fc1": 192, "fc2": 60}
    three = train(of_type(name, {"pruning.round_to": 4, "pruning.channels": 0.7}), "three")
    # int(6 x 0.7) = 4, int(8 x 0.7) = 5 and int(12 x 0.7) = 8 become 4, 4 and 8
    counts = {layer: facts["kept"] for layer, facts in three["density"]["layers"].items()}
    assert counts == {"conv1": 36, "conv2": 144, "fc1": 128, "fc2": 80}


@pytest.mark.parametrize("name", ["base", "spiking_dynamic"])
def test_groups_ranked_together_share_the_channels_as_their_scores_say(name, train):
    result = train(of_type(name, {"pruning.global_pruning": "true", "pruning.importance": "magnitude"}))
    channels = [result["density"]["layers"][layer]["kept"] for layer in ("conv1", "conv2", "fc1", "fc2")]
    outs = channels[0] // 9, channels[1] // channels[0], channels[3] // 10
    assert sum(outs) == 13
    assert result["density"]["weights"]["requested"] is None
    assert all(facts["requested"] is None for facts in result["density"]["layers"].values())


@pytest.mark.parametrize("guide", ["virtual", pytest.param("{name: self, since: 20%}", marks=pytest.mark.slow)])
def test_a_guide_teaches_here_too(guide, train):
    plain = train(of_type("base", {"distillation": "null"}), "plain")
    taught = train(of_type("base", {"distillation.guide": guide}), "taught")
    assert taught["accuracy"] != plain["accuracy"] or taught["firing_rate"] != plain["firing_rate"]
    assert taught["density"] == plain["density"]


def test_a_penalty_is_felt_in_the_training(train, tmp_path):
    for reg in (1e-9, 0.5):
        train(of_type("bn_scale", {"pruning.reg": reg, "pruning.iterative_steps": 1}), str(reg))
    weak, strong = (load_file(tmp_path / folder / "compact.safetensors") for folder in ("1e-09", "0.5"))
    assert strong["norm1.weight"].abs().mean() < weak["norm1.weight"].abs().mean()


def test_gradients_are_clipped_after_a_cut_as_before(train, parts, tmp_path):
    sgd = {"train.optimizer.name": "sgd", "train.optimizer.momentum": 0.0}
    recipe = of_type("base", sgd | {"train.clip": 1e-6, "pruning.until": "5it"})
    train(recipe)
    kept = json.loads((tmp_path / "run" / "compact.json").read_text())["kept"]["conv1.weight"][0]
    left = load_file(tmp_path / "run" / "compact.safetensors")["conv1.weight"]
    # 33 steps of at most 0.02 x 1e-6
    assert (left - fresh(recipe, parts).conv1.weight[kept]).abs().max() < 1e-5


@pytest.mark.slow
def test_a_compact_network_can_be_the_guide_of_another_run(train, parts, tmp_path):
    train(of_type("base"), "guide")
    (tmp_path / "guide" / "result.json").write_text(json.dumps({"status": "finished"}))
    network = assemble.load_network(tmp_path / "guide", parts)
    assert network.conv1.out_channels == 3
    taught = train(of_type("base", {"distillation.guide": f"{{name: sparse, run: {tmp_path / 'guide'}}}"}), "taught")
    assert taught["density"]["weights"]["kept"] == sum(HALF.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", TYPES)
def test_a_run_repeats_bit_for_bit(name, train, tmp_path):
    assert train(of_type(name), "one") == train(of_type(name), "two")
    one, two = (load_file(tmp_path / folder / "compact.safetensors") for folder in ("one", "two"))
    assert all(torch.equal(value, two[key]) for key, value in one.items())


# ------------------------------------------------------------------------------------- the same, written by hand


def test_the_channels_are_those_of_a_script_that_a_user_of_torch_pruning_writes(parts, train, tmp_path):
    recipe = of_type("base", {"distillation": "null", "pruning.until": "15it", "pruning.iterative_steps": 1})
    train(recipe)
    with runner._settings(recipe):
        model = fresh(recipe, parts)
        optimizer = torch.optim.Adam(model.parameters(), lr=recipe.train.optimizer.lr)
        falling, done = cosine(first=1.0, last=0.0), 0
        for epoch in (1, 2):
            torch.manual_seed(derived(recipe.seed, "epoch", epoch))
            model.train()
            for x, target in parts.train.epoch(generator(recipe.seed, "order", epoch)):
                if done == 15:
                    break
                for group in optimizer.param_groups:
                    group["lr"] = recipe.train.optimizer.lr * falling(done / (EPOCHS * PER_EPOCH))
                reset_net(model)
                F.cross_entropy(model(x).mean(0), target).backward()
                optimizer.step()
                optimizer.zero_grad()
                done += 1
    # Torch-Pruning itself can follow a network in single steps, at rest.
    reset_net(model)
    set_step_mode(model, "s")
    x = next(batches(parts.test, "cpu"))[0][0]
    pruner = tp.pruner.BasePruner(
        model, x, tp.importance.MagnitudeImportance(p=2), pruning_ratio=0.5, ignored_layers=[model.fc2]
    )
    gone = {}
    for group in pruner.step(interactive=True):
        gone |= {pruner.DG._module2name[group[0].dep.target.module]: set(group[0].idxs)}
        group.prune()
    kept = json.loads((tmp_path / "run" / "compact.json").read_text())["kept"]
    assert gone.keys() == {"conv1", "conv2", "fc1"}
    for layer, channels in gone.items():
        assert kept[f"{layer}.weight"][0] == [index for index in range(SHAPES[layer][0]) if index not in channels]


# ------------------------------------------------------------------------------------ interrupted, and looked at

RESUMED = {
    "between two cuts": ("base", {}),
    "between two cuts, regularized": ("growing_reg", {"pruning.reg": 0.01, "pruning.delta_reg": 0.01}),
    "its earlier self between two cuts": ("base", {"distillation.guide": "{name: self, since: 45%}",
                                                   "pruning.iterative_steps": 5}),
    "masked": ("spiking_dynamic", {"pruning.every": "3it", "pruning.until": "27it"}),
    "after the cut": ("spiking_dynamic", {"pruning.until": "10it"}),
}  # fmt: skip
FAST = ("between two cuts, regularized", "masked")


@pytest.mark.parametrize(
    "case", [each if each in FAST else pytest.param(each, marks=pytest.mark.slow) for each in RESUMED]
)
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(case, tmp_path, monkeypatch):
    monkeypatch.setattr("snnsl_plugin.recipe.report.write", lambda run_dir: None)
    name, changes = RESUMED[case]
    recipe = of_type(name, {"pruning.until": "26it"} | changes)

    def interrupt(phase, event):
        if isinstance(event, Epoch) and event.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run(recipe, run_dir=tmp_path / "cut", on_event=interrupt, name="tiny")
    tree = checkpoint.load(tmp_path / "cut" / "checkpoint.safetensors")
    assert tree["progress"]["epoch"] == 2
    smaller = tree["model"]["conv2.weight"].numel() < SIZES["conv2"]
    assert smaller == (case != "masked")
    resumed = runner.run(recipe, run_dir=tmp_path / "cut", resume=True, name="tiny")
    whole = runner.run(recipe, run_dir=tmp_path / "whole", name="tiny")
    assert {key for key in whole if whole[key] != resumed[key]} <= set(VARYING)
    one, two = (load_file(tmp_path / folder / "compact.safetensors") for folder in ("cut", "whole"))
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    kept = [json.loads((tmp_path / folder / "compact.json").read_text()) for folder in ("cut", "whole")]
    assert kept[0] == kept[1]


def test_a_dry_run_shows_what_is_left(capsys):
    words = [f"{key}={value}" for key, value in TINY.items()]
    words += ["pruning.type=torch_pruning.base", "pruning.channels=0.5", "pruning.until=20it"]
    assert main(["run", "digits", *words, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["counts"] == HALF
    assert plan["density_per_epoch"] == [1.0, sum(HALF.values()) / sum(SIZES.values())] + [
        sum(HALF.values()) / sum(SIZES.values())
    ] * (EPOCHS - 2)


def test_a_dry_run_of_an_outcome_shows_a_dash(capsys):
    words = [f"{key}={value}" for key, value in TINY.items()]
    words += ["pruning.type=torch_pruning.base", "pruning.channels=0.5", "pruning.global_pruning=true"]
    assert main(["run", "digits", *words, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "│ 1     │ 1.0000             │" in printed
    assert "│ 3     │ -                  │" in printed


def test_the_schema_for_editors_names_every_type(capsys):
    assert main(["schema"]) == 0
    text = capsys.readouterr().out
    json.loads(text)
    assert all(f'"torch_pruning.{name}"' in text for name in TYPES)


@pytest.mark.slow
def test_the_command_runs_a_type_and_prints_its_table(tmp_path):
    words = [f"{key}={value}" for key, value in TINY.items()]
    words += ["pruning.type=torch_pruning.spiking", "pruning.channels=0.5"]
    done = subprocess.run(
        [sys.executable, "-m", "snnsl_plugin", "run", "digits", *words, "--run-dir", str(tmp_path / "run"), "--json"],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["density"]["weights"]["kept"] == sum(HALF.values())
    assert (tmp_path / "run" / "report.html").is_file()
