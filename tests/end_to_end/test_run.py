"""One recipe from its words to a finished run folder, in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from snnsl_plugin.cli import main
from snnsl_plugin.errors import Stopped
from snnsl_plugin.metrics.measure import measure
from snnsl_plugin.recipe import assemble, runner
from snnsl_plugin.recipe.digest import digest
from snnsl_plugin.recipe.load import load
from snnsl_plugin.training import checkpoint
from snnsl_plugin.training.events import Epoch
from snnsl_plugin.training.loop import batches

FIELDS = {
    "schema", "recipe", "digest", "seed", "status", "accuracy", "density", "regrown", "synops_per_sample",
    "macs_per_sample", "energy_pj_per_sample", "firing_rate", "silent", "parameters", "epochs", "selected_epoch",
    "wall_s", "seconds_per_epoch", "peak_memory_mib", "skipped_samples", "mlflow_run_id", "versions", "dense",
    "validation",
}  # fmt: skip
LAYERS = {"conv1": 36, "conv2": 288, "fc1": 512, "fc2": 160}
TOTAL = sum(LAYERS.values())


def masks_of(run_dir: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(run_dir / "checkpoint.safetensors").get("masks", {})


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory) -> Path:
    """The folder of a run of the tiny recipe with its dense baseline."""
    run_dir = tmp_path_factory.mktemp("runs") / "first"
    runner.run(tiny("dense_baseline=true", "train.epochs=3"), run_dir=run_dir, name="tiny")
    return run_dir


@pytest.fixture(scope="module")
def result(finished) -> dict[str, Any]:
    return json.loads((finished / "result.json").read_text())


def test_the_folder_holds_what_a_run_leaves(finished):
    names = {path.name for path in finished.iterdir()} - {".lock"}
    left = {"recipe.yaml", "result.json", "metrics.jsonl", "checkpoint.safetensors", "state.json", "report.html"}
    assert names == left | {"run.json", "figures", "dense"}
    assert list((finished / "figures").iterdir())
    held = {path.name for path in (finished / "dense").iterdir()}
    assert held == left - {"report.html"} | {"run.json"}
    assert not list(finished.rglob("*.partial"))


def test_the_result_has_exactly_these_fields(result):
    assert set(result) == FIELDS
    assert set(result["dense"]) == FIELDS - {"dense"}
    assert (result["schema"], result["recipe"], result["status"], result["seed"]) == (1, "tiny", "finished", 0)
    assert set(result["accuracy"]) == {"test", "test_last", "validation", "dense_test"}
    assert set(result["density"]) == {"weights", "connections", "layers"}
    assert set(result["density"]["weights"]) == {"requested", "achieved", "kept", "total"}
    assert set(result["density"]["connections"]) == {"live", "forward", "density"}
    assert set(result["parameters"]) == {"dense", "kept"}
    assert set(result["firing_rate"]) == set(result["silent"]) == {"spike1", "spike2", "spike3"}
    assert result["accuracy"]["dense_test"] == result["dense"]["accuracy"]["test"]
    assert result["epochs"] == 3
    assert result["mlflow_run_id"] is None


def test_operations_on_the_validation_part_stand_beside_those_on_the_test_set(finished, tiny, result):
    parts = assemble.data(tiny())
    model = assemble.load_network(finished, parts)
    again = measure(model, batches(parts.validation, "cpu"), masks=masks_of(finished))
    assert result["validation"] == {
        "synops_per_sample": again.synops_per_sample, "energy_pj_per_sample": again.energy_pj_per_sample,
    }  # fmt: skip
    assert result["validation"]["synops_per_sample"] != result["synops_per_sample"]


def test_a_run_judged_on_validation_data_never_reads_the_test_set(finished, tiny, tmp_path, monkeypatch):
    whole = assemble.data

    def without_test(recipe):
        return replace(whole(recipe), test=None)  # whoever reads it fails

    monkeypatch.setattr(assemble, "data", without_test)
    found = runner.run(tiny("train.epochs=3"), run_dir=tmp_path / "run", name="tiny", judge="validation")
    told = json.loads((finished / "result.json").read_text())
    assert found["accuracy"]["test"] is found["accuracy"]["test_last"] is None
    assert found["accuracy"]["validation"] == told["accuracy"]["validation"]
    assert found["validation"] == told["validation"]
    assert found["synops_per_sample"] == told["validation"]["synops_per_sample"]
    assert found["density"] == told["density"]
    journal = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert journal[-1]["event"] == "finished"
    assert journal[-1]["metrics"] == {}
    assert (tmp_path / "run" / "report.html").is_file()


def test_each_epoch_says_how_busy_the_machine_was(finished):
    journal = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    epochs = [line["metrics"] for line in journal if line["event"] == "epoch"]
    assert len(epochs) == 3
    for metrics in epochs:
        assert metrics["system/process_memory_megabytes"] > 50
        assert 0 <= metrics["system/cpu_utilization_percentage"] <= 100


def test_epochs_that_are_counted_tell_connections_and_operations(tiny, tmp_path):
    seen: list[Epoch] = []

    def listen(phase, event):
        if isinstance(event, Epoch):
            seen.append(event)

    result = runner.run(tiny("train.epochs=3"), run_dir=tmp_path / "run", name="tiny", on_event=listen, counted=[1, 3])
    assert [each.synops_per_sample is None for each in seen] == [False, True, False]
    assert [each.connections is None for each in seen] == [False, True, False]
    assert [each.energy_pj_per_sample is None for each in seen] == [False, True, False]
    assert result["selected_epoch"] == 3  # whose numbers are those of the result
    assert seen[-1].connections == result["density"]["connections"]["live"]
    assert seen[-1].synops_per_sample == result["validation"]["synops_per_sample"]
    assert seen[-1].energy_pj_per_sample == result["validation"]["energy_pj_per_sample"]["total"]
    assert seen[0].connections > seen[-1].connections


def test_a_listener_can_stop_a_run_and_its_folder_says_so(tiny, tmp_path):
    def listen(phase, event):
        if isinstance(event, Epoch):
            raise Stopped("dominated at epoch 1")

    with pytest.raises(Stopped, match="dominated"):
        runner.run(tiny("train.epochs=3"), run_dir=tmp_path / "run", name="tiny", on_event=listen)
    told = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (told["status"], told["error"]) == ("stopped", "dominated at epoch 1")


def test_the_density_asked_for_is_reached_to_the_last_weight(finished, result):
    masks = masks_of(finished)
    assert {name.removesuffix(".weight"): mask.numel() for name, mask in masks.items()} == LAYERS
    assert all(mask.dtype == torch.bool for mask in masks.values())
    kept = sum(int(mask.sum()) for mask in masks.values())
    weights = result["density"]["weights"]
    assert kept == round(0.1 * TOTAL) == 100
    assert weights == {"requested": 0.1, "achieved": kept / TOTAL, "kept": kept, "total": TOTAL}
    for layer, told in result["density"]["layers"].items():
        mine = int(masks[f"{layer}.weight"].sum())
        assert told == {
            "requested": mine / LAYERS[layer], "achieved": mine / LAYERS[layer], "kept": mine, "total": LAYERS[layer],
        }  # fmt: skip
    assert 0 < result["density"]["connections"]["live"] <= result["density"]["connections"]["forward"] <= kept


def test_dead_weights_are_exactly_zero_in_the_saved_network(finished):
    tensors = load_file(finished / "checkpoint.safetensors")
    for name, mask in masks_of(finished).items():
        weight = tensors[f"model/{name}"]
        assert torch.equal(weight[~mask], torch.zeros(int((~mask).sum())))
        assert int(weight.count_nonzero()) > 0


def test_connections_were_regrown_and_parameters_add_up(result):
    assert result["regrown"] > 0
    dense, kept = result["parameters"]["dense"], result["parameters"]["kept"]
    assert dense - kept == TOTAL - result["density"]["weights"]["kept"]
    assert result["dense"]["regrown"] == 0
    assert result["dense"]["density"]["weights"] == {
        "requested": 1.0, "achieved": 1.0, "kept": TOTAL, "total": TOTAL
    }  # fmt: skip


def test_the_checkpoint_is_read_by_safetensors_and_its_state_by_json_alone(finished):
    with safe_open(finished / "checkpoint.safetensors", framework="numpy") as file:
        inside = json.loads(file.metadata()["state"])
        assert "model/fc2.weight" in file.keys()  # noqa: SIM118
    assert json.loads((finished / "state.json").read_text()) == inside


def test_the_saved_network_has_the_accuracy_of_the_result_exactly(finished, result, tiny):
    parts = assemble.data(tiny())
    for folder, told in ((finished, result), (finished / "dense", result["dense"])):
        network = assemble.load_network(folder, parts)
        again = measure(network, batches(parts.test, "cpu"), masks=masks_of(folder) or None)
        assert again.accuracy == told["accuracy"]["test"]
        assert again.synops_per_sample == told["synops_per_sample"]
        assert again.firing_rate == told["firing_rate"]
        assert measure(network, batches(parts.validation, "cpu")).accuracy == told["accuracy"]["validation"]


def test_the_network_learned_something(result):
    assert result["dense"]["accuracy"]["test"] > 0.6
    assert result["accuracy"]["test"] > 0.2, "100 connections after 63 steps; chance is 0.1"


def test_the_recipe_in_the_folder_is_the_one_that_ran(finished, result, tiny):
    ran = tiny("dense_baseline=true", "train.epochs=3")
    again = load(finished / "recipe.yaml")
    assert again == ran
    assert digest(again) == digest(ran) == result["digest"]
    assert load(finished / "dense" / "recipe.yaml") == runner.dense_recipe(ran)


def test_the_journal_tells_each_epoch_and_each_update_once(finished, journal_lines):
    lines = journal_lines(finished / "metrics.jsonl")
    assert (lines[0]["event"], lines[-1]["event"]) == ("started", "finished")
    assert [line["epoch"] for line in lines if line["event"] == "epoch"] == [1, 2, 3]
    # 21 batches an epoch; updates every 10 steps until 80 % of 63
    assert [line["step"] for line in lines if line["event"] == "mask_update"] == [10, 20, 30, 40, 50]
    assert lines[-2]["metrics"]["density"] == pytest.approx(0.1, abs=0.5 / TOTAL)


def test_the_report_is_drawn_again_from_the_folder(finished, capsys):
    page = (finished / "report.html").read_bytes()
    (finished / "report.html").unlink()
    assert main(["report", str(finished)]) == 0
    assert capsys.readouterr().out == f"{finished / 'report.html'}\n"
    assert (finished / "report.html").read_bytes() == page


def test_a_finished_run_is_returned_and_not_trained_again(finished, result, tiny, monkeypatch):
    monkeypatch.setattr("snnsl_plugin.recipe.phase.fit", None)
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"}
    again = runner.run(tiny("dense_baseline=true", "train.epochs=3"), run_dir=finished, resume=True, name="tiny")
    assert again == result
    assert {path: path.stat().st_mtime_ns for path in before} == before


def tensors_of(run_dir: Path) -> dict[str, torch.Tensor]:
    stored = load_file(run_dir / "checkpoint.safetensors")
    assert {name.split("/")[0] for name in stored} <= {"model", "masks"}
    return stored


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_same_seed_gives_the_same_result_masks_and_weights(
    finished, result, tiny, tmp_path, comparable, journal_lines
):
    again = runner.run(tiny("dense_baseline=true", "train.epochs=3"), run_dir=tmp_path / "again", name="tiny")
    assert comparable(again) == comparable(result)
    for phase in (".", "dense"):
        assert same(tensors_of(tmp_path / "again" / phase), tensors_of(finished / phase))
        assert journal_lines(tmp_path / "again" / phase / "metrics.jsonl") == journal_lines(
            finished / phase / "metrics.jsonl"
        )
    assert set(result) - set(comparable(result)) == {
        "wall_s", "seconds_per_epoch", "peak_memory_mib", "mlflow_run_id", "versions"
    }  # fmt: skip


@pytest.mark.usefixtures("undrawn")
def test_another_seed_gives_other_masks_and_weights(finished, result, tiny, tmp_path):
    other = runner.run(tiny("seed=1"), run_dir=tmp_path / "other")
    mine, theirs = tensors_of(tmp_path / "other"), tensors_of(finished)
    assert not same(mine, theirs)
    assert not torch.equal(mine["masks/fc1.weight"], theirs["masks/fc1.weight"])
    assert (other["seed"], other["density"]["weights"]) == (1, result["density"]["weights"])
    assert other["digest"] != result["digest"]


class Guarded:
    """A part of the data that counts its passes, and may be read only while it is open."""

    def __init__(self, loader) -> None:
        self._loader, self.open, self.passes = loader, False, 0

    def __len__(self) -> int:
        return len(self._loader)

    def epoch(self, generator) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        assert self.open, "the test part was read before the training was over"
        self.passes += 1
        yield from self._loader.epoch(generator)


@pytest.mark.usefixtures("undrawn")
def test_the_test_part_is_read_only_after_the_last_epoch(tiny, tmp_path, monkeypatch):
    guards: list[Guarded] = []
    honest = assemble.data

    def guarded(recipe):
        parts = honest(recipe)
        guards.append(Guarded(parts.test))
        return replace(parts, test=guards[-1])

    def watch(phase, event):
        guards[-1].open = isinstance(event, Epoch) and event.epoch == event.epochs

    monkeypatch.setattr(assemble, "data", guarded)
    runner.run(tiny(), run_dir=tmp_path / "run", on_event=watch)
    assert len(guards) == 1
    # once for the last epoch, once for the selected one, and its first picture for the shape of the input
    assert guards[0].passes == 3


@pytest.mark.usefixtures("undrawn")
def test_wrong_labels_in_the_test_part_change_nothing_but_the_test_accuracy(tiny, tmp_path, monkeypatch, comparable):
    right = comparable(runner.run(tiny(), run_dir=tmp_path / "right"))
    honest = assemble.data

    def shifted(recipe):
        parts = honest(recipe)
        parts.test.dataset.labels.add_(1).remainder_(10)
        return parts

    monkeypatch.setattr(assemble, "data", shifted)
    wrong = comparable(runner.run(tiny(), run_dir=tmp_path / "wrong"))
    assert wrong["accuracy"].pop("test") != right["accuracy"].pop("test")
    assert wrong["accuracy"].pop("test_last") != right["accuracy"].pop("test_last")
    assert wrong == right
    assert same(tensors_of(tmp_path / "right"), tensors_of(tmp_path / "wrong"))


CONSTANT = "pruning.density={name: constant, value: 0.2}"
#: the published rules as changes of the digits recipe, and the weights they keep of 996
RULES = {
    "GMP": (["pruning.swap=null"], 100),
    "SET": ([CONSTANT, "pruning.growth=random", "pruning.swap={name: constant, value: 0.3}"], 199),
    "RigL": ([CONSTANT, "pruning.growth=gradient"], 199),
    "GraNet": (["pruning.every=4it"], 100),
    "NDSNN": (["pruning.growth=momentum", "pruning.criterion=taylor"], 100),
    "spikes": (["pruning.criterion=spike_saliency", "pruning.distribution=uniform", "pruning.sample_every=2"], 100),
    "fisher": (["pruning.criterion=fisher", "pruning.distribution=global"], 100),
    "STDS": (["pruning={type: snnsl.stds, threshold: {name: sine, first: 0.0, last: 0.05}}"], None),
    "dense": (["pruning={type: dense}"], TOTAL),
}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_a_change_of_the_recipe_that_ends_well(rule, tiny, tmp_path):
    changes, kept = RULES[rule]
    done = runner.run(tiny("train.epochs=1", *changes), run_dir=tmp_path / "run")
    assert done["status"] == "finished"
    weights = done["density"]["weights"]
    if kept is None:  # a density that is an outcome
        assert weights["requested"] is None
        assert 0 < weights["kept"] < TOTAL
    else:
        assert weights["kept"] == kept
    network = assemble.load_network(tmp_path / "run", assemble.data(tiny()))
    alive = sum(int(network.get_submodule(name).weight.count_nonzero()) for name in LAYERS)
    assert alive <= weights["kept"]
    if rule in ("SET", "RigL", "GraNet"):
        assert done["regrown"] > 0
    if rule in ("GMP", "dense"):
        assert done["regrown"] == 0


@pytest.mark.usefixtures("undrawn")
def test_a_constant_density_holds_from_the_first_step_to_the_last(tiny, tmp_path, journal_lines):
    runner.run(tiny("train.epochs=1", CONSTANT, "pruning.growth=random"), run_dir=tmp_path / "run")
    densities = [
        line["metrics"]["density"]
        for line in journal_lines(tmp_path / "run" / "metrics.jsonl")
        if "density" in line["metrics"]
    ]
    assert len(densities) >= 3
    assert set(densities) == {round(0.2 * TOTAL) / TOTAL}


@pytest.fixture(scope="module")
def untaught(tiny, tmp_path_factory) -> Path:
    """One epoch without a guide."""
    run_dir = tmp_path_factory.mktemp("untaught") / "run"
    runner.run(tiny("train.epochs=1", "distillation=null"), run_dir=run_dir)
    return run_dir


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "guide", ["virtual", "{name: virtual, compat: tfkd}", "{name: self, since: 30%}", "{name: self, ema: 0.9}"]
)
def test_a_guide_teaches_a_run(guide, untaught, tiny, tmp_path):
    words = f"distillation={{guide: {guide}, weight: 0.5}}"
    assert runner.run(tiny("train.epochs=1", words), run_dir=tmp_path / "taught")["status"] == "finished"
    assert not same(tensors_of(tmp_path / "taught"), tensors_of(untaught))


@pytest.mark.usefixtures("undrawn")
def test_the_sparse_network_of_an_earlier_run_teaches_a_sparse_one(finished, tiny, tmp_path):
    guide = f"distillation={{guide: {{name: sparse, run: '{finished}'}}, weight: 0.5}}"
    before = (finished / "checkpoint.safetensors").read_bytes()
    done = runner.run(tiny("train.epochs=1", guide), run_dir=tmp_path / "run")
    assert (done["status"], done["density"]["weights"]["kept"]) == ("finished", 100)
    assert (finished / "checkpoint.safetensors").read_bytes() == before
    again = runner.run(tiny("train.epochs=1", guide), run_dir=tmp_path / "again")
    assert again["accuracy"] == done["accuracy"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "changes",
    [
        ["data.encoder={name: poisson, T: 2}"],
        ["train.amp=true"],
        ["train.optimizer={name: adamw, lr: 0.01}"],
        ["train.optimizer={name: sgd, lr: 0.1}", "train.lr_schedule=constant", "train.label_smoothing=0.1"],
    ],
    ids=["Poisson", "AMP", "AdamW", "SGD"],
)
def test_every_way_to_train_repeats_itself(changes, tiny, tmp_path, comparable):
    runs = [runner.run(tiny("train.epochs=1", *changes), run_dir=tmp_path / name) for name in ("one", "two")]
    assert comparable(runs[0]) == comparable(runs[1])
    assert runs[0]["density"]["weights"]["kept"] == 100
    assert same(tensors_of(tmp_path / "one"), tensors_of(tmp_path / "two"))


@pytest.mark.usefixtures("undrawn")
def test_a_picture_that_became_spikes_costs_no_multiplications(tiny, tmp_path):
    done = runner.run(tiny("train.epochs=1", "data.encoder={name: poisson, T: 2}"), run_dir=tmp_path / "run")
    assert done["macs_per_sample"] == 0
    assert done["synops_per_sample"] > 0
