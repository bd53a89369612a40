"""Recipes of type `nni.*`: NNI's own pruners, and ours through its door, in the runs that all other types have."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nni
import pytest
import torch
from nni.compression import TorchEvaluator
from nni.compression.pruning import AGPPruner, LevelPruner, TaylorPruner
from spikingjelly.activation_based.functional import reset_net
from torch.nn import functional as F

from snnsl_plugin.cli import main
from snnsl_plugin.core.schedules.cosine import cosine
from snnsl_plugin.errors import BadOption, BadRecipe, MissingExtra, NothingMatched
from snnsl_plugin.for_nni.builtin import BUILTIN
from snnsl_plugin.recipe import assemble, phase, runner
from snnsl_plugin.recipe.load import dump, load
from snnsl_plugin.recipe.nni_types import NNI_TYPES
from snnsl_plugin.recipe.schema import Recipe
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
SHAPES = {"conv1": (5, 1, 3, 3), "conv2": (7, 5, 3, 3), "fc1": (13, 28), "fc2": (10, 13)}
DENSITY = 0.3
# 1 - 0.3 as the number a reader means; 0.7 of 45 weights is not 31.4999...
RATIO = 0.7
RAMP = {"pruning.start": "2it", "pruning.every": "3it", "pruning.until": "20it"}
TYPES: dict[str, dict[str, object]] = {
    "level": {"pruning.start": "12it"},
    "l1_norm": {"pruning.start": "12it"},
    "l2_norm": {"pruning.start": "0it"},
    "fpgm": {"pruning.start": "12it"},
    "slim": {"pruning.start": "10it", "pruning.until": "16it"},
    "taylor": {"pruning.start": "10it", "pruning.until": "16it"},
    "linear_l1_norm": RAMP,
    "agp_level": RAMP,
    "agp_taylor": RAMP,
    "movement": {"pruning.start": "3it", "pruning.until": "20it"},
    "spiking_dynamic": RAMP,
}
#: options of rules, by rule
OF_RULES: dict[str, dict[str, object]] = {
    "stds": {"threshold": "{name: sine, first: 0.0, last: 0.05}"},
    "grad_r": {"penalty": 0.01, "sparsity": 0.9},
    "upr": {"price": 3.0e-6, "score_lr": 0.05},
    "bpsr": {
        "threshold": "{name: constant, value: 0.02}",
        "penalty": 0.05,
        "regrow": "{name: constant, value: 0.2}",
        "every": "3it",
    },
    "dpap": {"pressure": 20.0, "every": "3it"},
    "sd_snn": {"patience": 2, "pressure": 3.0, "every": "3it"},
}
CHANNELS = {"l1_norm", "l2_norm", "fpgm", "slim", "taylor", "linear_l1_norm", "agp_taylor", "movement"}
VARYING = ("wall_s", "seconds_per_epoch", "peak_memory_mib", "mlflow_run_id", "versions")


def tiny(changes: dict[str, object] | None = None) -> Recipe:
    """The shipped digits recipe with a small network; what is given is laid over it."""
    return load("digits", [f"{key}={value}" for key, value in (TINY | (changes or {})).items()])


def of_type(name: str, changes: dict[str, object] | None = None) -> Recipe:
    return tiny({"pruning.type": f"nni.{name}", "pruning.density": DENSITY} | TYPES[name] | (changes or {}))


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


def test_the_types_are_those_that_the_driver_knows():
    assert {each.model_fields["type"].annotation.__args__[0] for each in NNI_TYPES} == {
        f"nni.{name}" for name in (*BUILTIN, "spiking_dynamic")
    }


@pytest.mark.parametrize("name", TYPES)
def test_a_recipe_of_a_type_survives_writing(name, tmp_path):
    recipe = of_type(name)
    (tmp_path / "again.yaml").write_text(dump(recipe))
    assert load(tmp_path / "again.yaml") == recipe
    assert recipe.pruning.name == name


@pytest.mark.parametrize("rule", OF_RULES)
def test_a_recipe_of_a_rule_survives_writing(rule, tmp_path):
    recipe = tiny(of_rule(rule) | {"pruning.type": "nni.spiking_dynamic", "pruning.rule": rule})
    (tmp_path / "again.yaml").write_text(dump(recipe))
    assert load(tmp_path / "again.yaml") == recipe


def test_validating_a_recipe_imports_no_nni():
    code = (
        "import sys\n"
        "from snnsl_plugin.cli import main\n"
        "status = main(['validate', 'digits', 'pruning.type=nni.agp_level', 'pruning.density=0.1'])\n"
        "sys.exit(status or ('nni' in sys.modules) * 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "valid, digest" in done.stdout


BAD = {
    "no density": (
        {"type": "nni.agp_level"},
        "pruning.type=nni.agp_level: pruning.density: this key is required and missing",
    ),
    "a density of nothing": (
        {"type": "nni.level", "density": 0},
        "pruning.density=0: pruning.density: must be greater than 0, not 0",
    ),
    "a density above one": ({"type": "nni.level", "density": 1.5}, "pruning.density: must be at most 1, not 1.5"),
    "a schedule for a density": (
        {"type": "nni.level", "density": "{name: cubic, first: 1.0, last: 0.1}"},
        "pruning.density: must be a number",
    ),
    "NNI's word": (
        {"type": "nni.level", "density": 0.1, "sparse_ratio": 0.9},
        "pruning.sparse_ratio: unknown key 'sparse_ratio' (known here: density, exclude, layers, start, type)",
    ),
    "a misspelt type": (
        {"type": "nni.agp_levl", "density": 0.1},
        "pruning.type: unknown pruning type 'nni.agp_levl'; did you mean 'nni.agp_level'?",
    ),
    "an end for a single moment": (
        {"type": "nni.level", "density": 0.1, "until": "80%"},
        "pruning.until: unknown key 'until'",
    ),
    "an end before the start": (
        {"type": "nni.taylor", "density": 0.1, "start": "60%"},
        "pruning.until: is '50%', which is not after start ('60%')",
    ),
    "no step between": (
        {"type": "nni.agp_taylor", "density": 0.1, "every": "0it"},
        "pruning.every: is '0it': masks need at least one step",
    ),
    "a duration without unit": (
        {"type": "nni.movement", "density": 0.1, "until": "10"},
        "pruning.until: must be text, not 10",
    ),
    "another granularity": (
        {"type": "nni.movement", "density": 0.1, "granularity": "filter"},
        "pruning.granularity: must be 'out_channel' or 'weight', not \"filter\"",
    ),
    "an unknown criterion": (
        {"type": "nni.spiking_dynamic", "density": 0.1, "criterion": "magnitud"},
        "pruning.criterion.name: unknown criterion 'magnitud'; did you mean 'magnitude'?",
    ),
    "an unknown shape": (
        {"type": "nni.spiking_dynamic", "density": 0.1, "schedule": "qubic"},
        "pruning.schedule: must be 'constant', 'cosine', 'cubic'",
    ),
    "no density for a rule that needs one": (
        {"type": "nni.spiking_dynamic"},
        "pruning.density: is missing, and the rule 'drop_grow' needs it",
    ),
    "a density for a rule that has none": (
        {"type": "nni.spiking_dynamic", "rule": "stds", "density": 0.1},
        "pruning.density: is nothing that the rule 'stds' knows: leave it out",
    ),
    "an option of another rule": (
        {"type": "nni.spiking_dynamic", "density": 0.1, "sparsity": 0.9},
        "pruning.sparsity: is nothing that the rule 'drop_grow' knows: leave it out",
    ),
    "an option of the wrong type": (
        {"type": "nni.spiking_dynamic", "rule": "grad_r", "sparsity": "high"},
        'pruning.sparsity: must be a number, not "high"',
    ),
    "no threshold": (
        {"type": "nni.spiking_dynamic", "rule": "stds"},
        "pruning.threshold: is missing, and the rule 'stds' needs it",
    ),
    "too large a swap": (
        {"type": "nni.spiking_dynamic", "density": 0.1, "swap": "{name: constant, value: 2}"},
        "pruning.swap.value: is 2; it must be in [0, 1]",
    ),
}


def test_an_average_that_slim_would_break_is_refused():
    words = {"pruning.type": "nni.slim", "pruning.density": 0.5, "distillation.guide": "{name: self, ema: 0.9}"}
    with pytest.raises(BadRecipe, match=r"distillation: an average \(ema\) cannot follow"):
        tiny(words)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_option_is_one_sentence_with_its_place(case, capsys):
    options, said = BAD[case]
    words = [f"pruning.{key}={value}" for key, value in options.items()]
    with pytest.raises(BadRecipe) as caught:
        load("digits", words)
    assert len(caught.value.problems) == 1
    assert said in caught.value.problems[0]
    assert caught.value.problems[0].startswith("command line: pruning.")
    assert main(["validate", "digits", *words]) == 1
    assert capsys.readouterr().err == caught.value.problems[0] + "\n"


REFUSED = {
    "a pattern without a layer": (("agp_level", {"pruning.layers": '["con1"]'}), NothingMatched,
                                  "did you mean 'conv1'"),
    "a layer without a norm": (("slim", {"pruning.layers": '["fc1", "fc2"]', "pruning.exclude": "[]"}), NothingMatched,
                               "layer 'fc2' has no batch norm behind it"),
    "no room for an update": (("agp_level", {"pruning.every": "100it"}), BadOption,
                              "every is 100 steps, but from start to until there are only 18"),
    "masks for nobody": (("level", {"pruning.start": "100%"}), BadOption,
                         "nothing would be trained with the masks"),
    "an end after the end": (("taylor", {"pruning.until": "9999it"}), BadOption,
                             "after the end of the training"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_this_network_or_training_cannot_do_is_said_before_it_trains(case, parts):
    (name, changes), error, said = REFUSED[case]
    with pytest.raises(error, match=said.replace("(", r"\(")):
        assemble.assemble(of_type(name, changes), parts)


def test_without_nni_the_way_out_is_said(parts, monkeypatch):
    for module in [each for each in sys.modules if each.startswith("snnsl_plugin.for_nni.dri")]:
        monkeypatch.delitem(sys.modules, module)
    for module in [each for each in sys.modules if each.partition(".")[0] == "nni"]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"pruning.type 'nni.level' needs nni, .* 'nni>=3,<4' on x86_64, or choose"):
        assemble.assemble(of_type("level"), parts)


# ------------------------------------------------------------------------------------------------------ the runs


@pytest.mark.parametrize("name", TYPES)
def test_a_run_reaches_what_nni_counts_and_says_so(name, parts, train, tmp_path):
    recipe, events = of_type(name, {"pruning.distribution": "null"} if name == "spiking_dynamic" else None), []
    result = train(recipe, events=events)

    pruned = set(SHAPES) - ({"fc2"} if name in CHANNELS else set())
    kept = {layer: left(SHAPES[layer], name in CHANNELS) for layer in pruned}
    sizes = {layer: torch.Size(shape).numel() for layer, shape in SHAPES.items()}
    said = result["density"]["layers"]
    assert {layer: said[layer]["kept"] for layer in SHAPES} == sizes | kept
    assert {layer: said[layer]["requested"] for layer in SHAPES} == {
        layer: kept[layer] / sizes[layer] if layer in pruned else (1.0 if name == "spiking_dynamic" else None)
        for layer in SHAPES
    }
    total = sum(sizes.values())
    prunable = sum(sizes[layer] for layer in pruned)
    assert result["density"]["weights"]["achieved"] == sum((sizes | kept).values()) / total
    assert result["density"]["weights"]["requested"] == pytest.approx(1 - RATIO * prunable / total)

    tree = saved(tmp_path / "run")
    for layer in SHAPES:
        weight, mask = tree["model"][f"{layer}.weight"], tree["masks"][f"{layer}.weight"]
        assert not weight[~mask].any(), f"{layer}: a pruned weight is not zero"
        if name in CHANNELS and layer in pruned:
            rows = mask.flatten(1)
            assert (rows.all(1) | ~rows.any(1)).all(), f"{layer}: a channel is pruned in part"
    # What is saved is a plain network of the recipe, and does what was measured.
    plain = assemble.network(recipe, parts.splits)
    plain.load_state_dict(tree["model"])
    with torch.no_grad():
        right = [int((mean_logits(plain, x).argmax(1) == y).sum()) for x, y in batches(parts.test, "cpu")]
    assert sum(right) / len(parts.splits.test) == result["accuracy"]["test"]

    epochs = [event for event in events if isinstance(event, Epoch)]
    updates = [event for event in events if isinstance(event, MaskUpdate)]
    assert len(epochs) == EPOCHS
    planned = assemble.assemble(recipe, parts).pruner.planned_density
    rounding = len(SHAPES) / total if name == "spiking_dynamic" else 1e-12  # its plan is a density, NNI's are counts
    assert [each.density for each in epochs] == pytest.approx([planned(each.step) for each in epochs], abs=rounding)
    assert updates
    assert result["density"]["weights"]["achieved"] == epochs[-1].density
    assert updates[-1].connections <= sum((sizes | kept).values())
    assert result["regrown"] == sum(sum(event.born.values()) for event in updates)
    journal = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["event"] for line in journal].count("mask_update") == len(updates)


def left(shape: tuple[int, ...], by_channel: bool) -> int:
    """What NNI leaves: n - int(n x ratio), of channels or of weights."""
    numel = torch.Size(shape).numel()
    return (shape[0] - int(shape[0] * RATIO)) * numel // shape[0] if by_channel else numel - int(numel * RATIO)


def mean_logits(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    network.eval()
    reset_net(network)
    return network(x).mean(0)


@pytest.mark.slow
@pytest.mark.parametrize("name", TYPES)
def test_a_run_repeats_bit_for_bit(name, train, tmp_path):
    assert train(of_type(name), "one") == train(of_type(name), "two")
    one, two = saved(tmp_path / "one"), saved(tmp_path / "two")
    for part in ("model", "masks"):
        assert all(torch.equal(value, two[part][key]) for key, value in one[part].items())


def test_movement_prunes_single_weights_where_asked(train):
    result = train(of_type("movement", {"pruning.granularity": "weight"}))
    assert {layer: facts["kept"] for layer, facts in result["density"]["layers"].items()} == {
        layer: left(shape, False) for layer, shape in SHAPES.items()
    }


def test_excluding_nothing_prunes_the_last_layer_too(train):
    result = train(of_type("l1_norm", {"pruning.exclude": "[]"}))
    assert result["density"]["layers"]["fc2"]["kept"] == left(SHAPES["fc2"], True) == 39


def test_an_excluded_layer_stays_dense_and_counts(train):
    result = train(of_type("agp_level", {"pruning.exclude": '["conv*"]'}))
    layers = result["density"]["layers"]
    assert (layers["conv1"]["kept"], layers["conv1"]["requested"]) == (45, None)
    assert layers["fc1"]["kept"] == left(SHAPES["fc1"], False)


SELF = "{name: self, since: 20%, ema: 0.9}"


@pytest.mark.parametrize(
    ("name", "guide"),
    [
        ("agp_level", "virtual"),
        ("movement", SELF),
        pytest.param("slim", "{name: self, since: 20%}", marks=pytest.mark.slow),
        pytest.param("spiking_dynamic", SELF, marks=pytest.mark.slow),
    ],
)
def test_a_guide_teaches_here_too(name, guide, train):
    since = {"pruning.start": "1it"} if name == "slim" else {}
    plain = train(of_type(name, {"distillation": "null"} | since), "plain")
    taught = train(of_type(name, {"distillation.guide": guide} | since), "taught")
    assert taught["accuracy"] != plain["accuracy"] or taught["firing_rate"] != plain["firing_rate"]
    assert taught["density"]["weights"] == plain["density"]["weights"]


# ------------------------------------------------------------------------------------- the same, written by hand


def by_hand(name: str, recipe: Recipe, parts: assemble.Data) -> dict[str, torch.Tensor]:
    """What a user of NNI writes: NNI's classes and a loop; the masks of NNI's format at its end."""
    model = assemble.network(recipe, parts.splits)
    optimizer = nni.trace(torch.optim.Adam)(model.parameters(), lr=recipe.train.optimizer.lr)
    steps, per_epoch = EPOCHS * len(parts.train), len(parts.train)
    falling = cosine(first=1.0, last=0.0)
    config = [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": RATIO}]

    def training_step(batch, model):
        reset_net(model)
        return F.cross_entropy(model(batch[0]).mean(0), batch[1])

    done = 0

    def training(model, optimizer, training_step, schedulers, max_steps, max_epochs):
        nonlocal done
        for epoch in range(1, EPOCHS + 1):
            torch.manual_seed(derived(recipe.seed, "epoch", epoch))
            model.train()
            for number, batch in enumerate(parts.train.epoch(generator(recipe.seed, "order", epoch))):
                if (epoch - 1) * per_epoch + number < done:
                    continue
                if done == max_steps:
                    return
                for group in optimizer.param_groups:
                    group["lr"] = recipe.train.optimizer.lr * falling(done / steps)
                optimizer.zero_grad()
                training_step(batch, model).backward()
                optimizer.step()
                done += 1

    host = TorchEvaluator(training, optimizer, training_step)
    if name == "agp_level":
        pruner = AGPPruner(LevelPruner(model, config, host), interval_steps=3, total_times=6)
        pruner.compress(steps, None)
        return {f"{layer}.weight": targets["weight"] for layer, targets in pruner.get_masks().items()}
    if name == "level":
        pruner = LevelPruner(model, config, host)
        host.bind_model(model, pruner._get_param_names_map())
        host.train(max_steps=12)
        pruner.compress()
    else:
        config[0]["exclude_op_names"] = ["fc2"]
        pruner = TaylorPruner(model, config, host, training_steps=6)
        pruner.compress()
    return {f"{layer}.weight": targets["weight"] for layer, targets in pruner.get_masks().items()}


@pytest.mark.parametrize(
    ("name", "when"),
    [
        ("level", {"pruning.start": "12it"}),
        ("agp_level", {"pruning.start": "0it", "pruning.every": "3it", "pruning.until": "20it"}),
        ("taylor", {"pruning.start": "0it", "pruning.until": "6it"}),
    ],
)
def test_the_masks_are_those_of_a_pipeline_that_a_user_of_nni_writes(name, when, parts, train, tmp_path):
    recipe = of_type(name, {"distillation": "null"} | when)
    train(recipe)
    masks = saved(tmp_path / "run")["masks"]
    with runner._settings(recipe):
        expected = by_hand(name, recipe, parts)
    assert set(expected) <= set(masks)
    for key, mask in expected.items():
        assert torch.equal(masks[key], mask.bool()), key


# ---------------------------------------------------------------------------------------------- ours by its door

SAME = {
    "pruning.criterion": "spike_saliency",
    "pruning.growth": "random",
    "pruning.distribution": "erk",
    "pruning.swap": "{name: cosine, first: 0.3, last: 0.0}",
    **RAMP,
}


def test_our_pruner_gives_the_same_by_nnis_door(train, tmp_path):
    falling = "{name: cubic, first: 1.0, last: 0.3}"
    ours = tiny(SAME | {"pruning.type": "snnsl.drop_grow", "pruning.density": falling})
    theirs = tiny(SAME | {"pruning.type": "nni.spiking_dynamic", "pruning.density": DENSITY})
    check_equal(train(ours, "ours"), train(theirs, "theirs"), tmp_path)


@pytest.mark.parametrize("rule", OF_RULES)
def test_a_rule_and_its_options_give_the_same_by_nnis_door(rule, train, tmp_path):
    words = of_rule(rule)
    ours = train(tiny(words | {"pruning.type": f"snnsl.{rule}"}), "ours")
    theirs = train(tiny(words | {"pruning.type": "nni.spiking_dynamic", "pruning.rule": rule}), "theirs")
    check_equal(ours, theirs, tmp_path)
    assert ours["density"]["weights"]["achieved"] < 1.0


def of_rule(rule: str) -> dict[str, object]:
    own = {f"pruning.{key}": value for key, value in OF_RULES[rule].items()}
    return own | {"pruning.start": "2it", "pruning.until": "20it"}


def check_equal(ours: dict, theirs: dict, tmp_path: Path) -> None:
    assert {key for key in ours if ours[key] != theirs[key]} == {"digest"}
    one, two = saved(tmp_path / "ours"), saved(tmp_path / "theirs")
    for part in ("model", "masks"):
        assert one[part].keys() == two[part].keys()
        assert all(torch.equal(value, two[part][key]) for key, value in one[part].items())


# ------------------------------------------------------------------------------------ interrupted, and looked at


@pytest.mark.parametrize("name", ["agp_level", pytest.param("spiking_dynamic", marks=pytest.mark.slow)])
def test_an_interrupted_run_starts_again_says_so_and_ends_alike(name, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("snnsl_plugin.recipe.report.write", lambda run_dir: None)
    recipe = of_type(name)

    def interrupt(phase, event):
        if isinstance(event, Epoch) and event.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run(recipe, run_dir=tmp_path / "cut", on_event=interrupt, name="tiny")
    assert saved(tmp_path / "cut")["progress"]["epoch"] == 2
    with caplog.at_level(logging.WARNING, "snnsl_plugin"):
        resumed = runner.run(recipe, run_dir=tmp_path / "cut", resume=True, name="tiny")
    assert [record.getMessage() for record in caplog.records if "cannot go on" in record.getMessage()] == [
        f"{tmp_path / 'cut'}: a pruner of NNI cannot go on from the middle, so the training of the sparse network "
        "starts again, from the same seed"
    ]
    whole = runner.run(recipe, run_dir=tmp_path / "whole", name="tiny")
    assert {key for key in whole if whole[key] != resumed[key]} <= set(VARYING)
    for part in ("model", "masks"):
        one, two = saved(tmp_path / "cut")[part], saved(tmp_path / "whole")[part]
        assert all(torch.equal(value, two[key]) for key, value in one.items())
    assert events_of(tmp_path / "cut") == events_of(tmp_path / "whole")


def events_of(run_dir: Path) -> list[tuple[str, int]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [(line["event"], line["step"]) for line in lines]


def test_a_dry_run_shows_what_nni_would_prune(capsys):
    words = [f"{key}={value}" for key, value in TINY.items()]
    words += ["pruning.type=nni.agp_taylor", "pruning.density=0.3", "pruning.every=5it", "pruning.until=100%"]
    assert main(["run", "digits", *words, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert {each["name"]: each["prunable"] for each in plan["layers"]} == {
        "conv1": True, "conv2": True, "fc1": True, "fc2": False,
    }  # fmt: skip
    assert plan["counts"] == {layer: left(SHAPES[layer], True) for layer in ("conv1", "conv2", "fc1")}
    first, *_, last = plan["density_per_epoch"]
    assert first > last == (sum(plan["counts"].values()) + 130) / 854


def test_the_schema_for_editors_names_every_type(capsys):
    assert main(["schema"]) == 0
    text = capsys.readouterr().out
    json.loads(text)
    assert all(f'"nni.{name}"' in text for name in TYPES)


@pytest.mark.slow
def test_the_command_runs_a_type_and_prints_its_table(tmp_path):
    words = [f"{key}={value}" for key, value in TINY.items()]
    words += ["pruning.type=nni.agp_level", "pruning.density=0.3", "pruning.every=3it"]
    done = subprocess.run(
        [sys.executable, "-m", "snnsl_plugin", "run", "digits", *words, "--run-dir", str(tmp_path / "run"), "--json"],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "finished"
    assert (tmp_path / "run" / "report.html").is_file()
