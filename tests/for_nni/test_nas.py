"""NNI's evolution over spiking networks: the space, the evaluator, the search, and what of NNI fails on this torch."""

import importlib
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import psutil
import pytest
import torch
from filelock import FileLock

from snnsl_plugin.datasets.digits import digits
from snnsl_plugin.errors import BadCheckpoint, BadData, BadOption, Diverged, MissingExtra, RunFolderInUse, UnknownName
from snnsl_plugin.for_nni.nas import (
    Candidate,
    SpikingNetwork,
    SpikingSpace,
    StructureLearningEvaluator,
    best,
    explore,
    load_best,
    table,
)
from snnsl_plugin.for_nni.nas.candidate import score
from snnsl_plugin.models.spiking_cnn import spiking_cnn
from snnsl_plugin.training import checkpoint
from snnsl_plugin.training.seeds import derived

# isort: split
# NNI warns at its first import of what this torch has anew; our import above lets it say so in silence.
import nni
from nni.mutable import SampleValidationError
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.experiment import NasExperiment, NasExperimentConfig
from nni.nas.space import SimplifiedModelSpace
from nni.nas.strategy import RegularizedEvolution
from nni.nas.strategy.evolution import Individual
from nni.nas.utils.serializer import TorchSerializer

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "nni_nas.py"
LABELS = ("width", "depth", "T", "density")
SAMPLE = {"width": 4, "depth": 1, "T": 2, "density": 0.25}
SMALL = {"widths": [2, 4, 8], "depths": [1, 2], "steps": [1, 2], "densities": [0.1, 0.25, 0.5, 1.0], "hidden": 8}


class _Untouchable:
    """A test part that nobody may look at."""

    def __len__(self) -> int:
        raise AssertionError("the search asked for the size of the test part")

    def __getitem__(self, index: int) -> None:
        raise AssertionError("the search read the test part")


def space(**changes):
    return SpikingSpace((1, 8, 8), 10, **{**SMALL, **changes})


def few_digits(train=64, start=0):
    parts = digits()
    return replace(
        parts,
        train=parts.train.subset(torch.arange(start, start + train)),
        validation=parts.validation.subset(torch.arange(48)),
        test=_Untouchable(),
    )


def evaluator(folder, data=None, **changes):
    options = {"epochs": 2, "batch_size": 16, "every": "2it", **changes}
    return StructureLearningEvaluator(data or few_digits(), folder, **options)


def lines(folder):
    return [json.loads(line) for line in (folder / "candidates.jsonl").read_text().splitlines()]


def trained(folder):
    """The samples that were trained, in order."""
    return [line["candidate"]["sample"] for line in lines(folder) if line["event"] == "candidate"]


# ---------------------------------------------------------------------------------------------------------- the space


@pytest.mark.parametrize("corner", list(product([2, 8], [1, 2], [1, 2], [0.1, 1.0])), ids=str)
def test_every_corner_of_the_space_is_a_plain_network_that_runs(corner):
    net = space().freeze(dict(zip(LABELS, corner, strict=True)))
    width, depth, steps, _ = corner
    assert net(torch.rand(steps, 3, 1, 8, 8)).shape == (steps, 3, 10)
    assert [name for name, _ in net.named_children() if name.startswith("conv")] == ["conv1", "conv2"][:depth]
    assert net.conv1.weight.shape == (width, 1, 3, 3)
    assert net[4 * (depth - 1)].out_channels == width * 2 ** (depth - 1)
    assert {"norm1", "spike1", "fc1", "fc2"} <= set(dict(net.named_children()))
    assert type(net) is SpikingNetwork
    assert not isinstance(net, nni.mutable.Mutable)


def test_the_space_has_four_mutables_that_nni_sees():
    mutables = space().simplify()
    assert {label: mutable.values for label, mutable in mutables.items()} == {
        "width": [2, 4, 8],
        "depth": [1, 2],
        "T": [1, 2],
        "density": [0.1, 0.25, 0.5, 1.0],
    }


def test_a_sample_survives_json_and_gives_the_same_network_again():
    searched = space()
    for _ in range(5):
        net = searched.random()
        again = space().freeze(json.loads(json.dumps(net.sample)))
        assert again.sample == net.sample
        assert torch.equal(torch.nn.utils.parameters_to_vector(again.parameters()), weights(net))


def weights(net):
    return torch.nn.utils.parameters_to_vector(net.parameters()).detach()


def test_first_weights_are_those_of_the_model_with_the_seed_and_nothing_else_is_drawn():
    torch.manual_seed(derived(3, "model"))
    expected = weights(spiking_cnn((1, 8, 8), 10, channels=[4], hidden=8))
    before = torch.get_rng_state()
    net = space(seed=3).freeze(SAMPLE)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights(net), expected)
    assert not torch.equal(weights(space(seed=4).freeze(SAMPLE)), expected)


def test_nni_builds_the_same_network_from_its_simplified_space():
    frozen = SimplifiedModelSpace.from_model(space(), None).freeze(SAMPLE)
    made = frozen.executable_model()
    assert made.sample == SAMPLE
    assert torch.equal(weights(made), weights(space().freeze(SAMPLE)))


@pytest.mark.parametrize("sample", [{**SAMPLE, "width": 3}, {"width": 4}], ids=["foreign", "missing"])
def test_a_sample_outside_the_space_is_refused_in_nnis_words(sample):
    with pytest.raises(SampleValidationError):
        space().freeze(sample)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"widths": []}, r"widths is \[\]"),
        ({"widths": [4, 4]}, "none twice"),
        ({"depths": [0]}, "depths"),
        ({"steps": [1.5]}, "steps"),
        ({"densities": [0.0]}, "densities"),
        ({"densities": [1.2]}, "densities"),
        ({"depths": [1, 4]}, "too small for 4 poolings"),
        ({"neuron": "liff"}, "liff"),
        ({"widths": 4}, "widths is 4; it must list one or more whole numbers"),
        ({"widths": [True]}, r"widths is \[True\]"),
        ({"depths": None}, "depths is None; it must list"),
        ({"densities": 0.5}, "densities is 0.5; it must list one or more fractions"),
        ({"densities": ["a"]}, r"densities is \['a'\]; it must list one or more fractions"),
        ({"densities": [float("nan")]}, r"densities is \[nan\]"),
        ({"seed": "a"}, "seed is 'a'; it is a whole number"),
        ({"hiden": 3}, "no option 'hiden'; did you mean 'hidden'"),
        ({"channels": [3]}, "channels follow from width and depth"),
        ({"hidden": "a"}, "options {'hidden': 'a'} make no network .*: check their types"),
        ({"detach_reset": "a"}, "options {.*'detach_reset': 'a'} make no network .*: check their types"),
    ],
)
def test_a_space_nobody_can_build_is_refused_at_once(changes, said):
    with pytest.raises(BadOption, match=said) as caught:
        space(**changes)
    assert "\n" not in str(caught.value)


def test_a_space_itself_cannot_be_run():
    with pytest.raises(BadOption, match="freeze"):
        space()(torch.zeros(1, 1, 1, 8, 8))


# ------------------------------------------------------------------------------------------------------ the evaluator


def test_the_score_worked_by_hand():
    assert score(0.5, 123.0, 0.0) == 0.5
    assert score(0.9, 10_000.0, 0.05) == pytest.approx(0.7)
    assert score(0.1, 0.0, 0.05) == 0.1


@pytest.mark.parametrize("density", SMALL["densities"])
def test_the_sampled_density_is_met_to_the_last_weight(density, tmp_path):
    candidate = evaluator(tmp_path).evaluate(space().freeze({**SAMPLE, "depth": 2, "density": density}))
    total = 4 * 9 + 8 * 4 * 9 + 8 * 32 + 8 * 10
    assert candidate.weights == total
    assert candidate.kept == round(density * total)
    net, again, masks = load_best(tmp_path, space())
    assert again == candidate
    assert sum(int(mask.sum()) for mask in masks.values()) == candidate.kept
    for name, mask in masks.items():
        assert not net.get_parameter(name)[~mask].any()
    assert 0 < candidate.connections <= candidate.kept


def test_the_network_given_is_the_one_trained_and_it_learns(tmp_path):
    larger = space(widths=[16], steps=[4], hidden=64)
    sample = {"width": 16, "depth": 1, "T": 4, "density": 0.5}
    given = larger.freeze(sample)
    candidate = StructureLearningEvaluator(digits(), tmp_path, epochs=3).evaluate(given)
    net, _, _ = load_best(tmp_path, larger)
    assert torch.equal(weights(net), weights(given))
    assert not torch.equal(weights(net), weights(larger.freeze(sample)))
    assert candidate.accuracy > 0.4


def test_the_sampled_time_steps_are_those_it_is_trained_and_measured_with(tmp_path):
    figures = {}
    for steps in (1, 2):
        sample = {**SAMPLE, "T": steps, "density": 1.0}
        figures[steps] = evaluator(tmp_path / str(steps)).evaluate(space().freeze(sample))
    # A dense first layer multiplies every non-zero pixel once per step, whatever was learned.
    assert figures[2].macs == 2 * figures[1].macs > 0


def test_the_same_sample_and_seed_give_the_same_figures_and_weights(tmp_path):
    made = {}
    for folder, seed in (("first", 0), ("second", 0), ("other", 1)):
        torch.manual_seed(hash(folder) % 1000)
        candidate = evaluator(tmp_path / folder, seed=seed).evaluate(space().freeze(SAMPLE))
        made[folder] = candidate, weights(load_best(tmp_path / folder, space())[0])
    assert made["first"][0] == made["second"][0]
    assert torch.equal(made["first"][1], made["second"][1])
    assert not torch.equal(made["first"][1], made["other"][1])


def test_the_objective_weighs_operations_where_asked(tmp_path):
    plain = evaluator(tmp_path / "plain").evaluate(space().freeze(SAMPLE))
    weighed = evaluator(tmp_path / "weighed", synops_weight=0.1).evaluate(space().freeze(SAMPLE))
    assert plain.score == plain.accuracy
    assert replace(weighed, score=plain.score) == plain
    assert weighed.score == pytest.approx(plain.accuracy - 0.1 * torch.tensor(plain.synops).log10().item())


def test_a_known_sample_is_looked_up_and_not_trained_again(tmp_path):
    candidate = evaluator(tmp_path).evaluate(space().freeze(SAMPLE))
    untouched = space().freeze(SAMPLE)
    later = evaluator(tmp_path)
    assert later.evaluate(untouched) == candidate == later.found(SAMPLE)
    assert torch.equal(weights(untouched), weights(space().freeze(SAMPLE)))
    assert trained(tmp_path) == [SAMPLE]
    with pytest.raises(BadOption, match="not evaluated"):
        later.found({**SAMPLE, "T": 1})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 1}, "evaluator"),
        ({"data": few_digits(start=1)}, "data"),
        ({"space": space(hidden=9)}, "space"),
        ({"space": space(seed=9)}, "space"),
    ],
    ids=["epochs", "data", "hidden", "seed"],
)
def test_a_folder_of_other_settings_is_refused_with_what_differs(change, said, tmp_path):
    evaluator(tmp_path).evaluate(space().freeze(SAMPLE))
    searched = change.pop("space", space())
    with pytest.raises(RunFolderInUse, match=rf"differs in {said}\)"):
        evaluator(tmp_path, **change).evaluate(searched.freeze({**SAMPLE, "T": 1}))
    assert trained(tmp_path) == [SAMPLE]


def test_a_line_cut_short_by_a_kill_is_trained_again(tmp_path):
    candidate = evaluator(tmp_path).evaluate(space().freeze(SAMPLE))
    file = tmp_path / "candidates.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    assert evaluator(tmp_path).evaluate(space().freeze(SAMPLE)) == candidate
    assert trained(tmp_path) == [SAMPLE]


def test_a_damaged_file_is_named(tmp_path):
    evaluator(tmp_path).evaluate(space().freeze(SAMPLE))
    file = tmp_path / "candidates.jsonl"
    file.write_text(file.read_text().replace('"sample"', '"simple"'))
    with pytest.raises(BadData, match="candidates.jsonl"):
        evaluator(tmp_path).evaluate(space().freeze(SAMPLE))


def test_a_network_that_blows_up_is_a_candidate_without_a_score(tmp_path):
    candidate = evaluator(tmp_path, lr=1e30).evaluate(space().freeze(SAMPLE))
    assert candidate.score is None
    assert "loss" in candidate.failure or "not finite" in candidate.failure or "NaN" in candidate.failure
    assert evaluator(tmp_path, lr=1e30).evaluate(space().freeze(SAMPLE)) == candidate
    assert not (tmp_path / "best.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 0}, "epochs is 0; it is a whole number of at least 1"),
        ({"epochs": "1"}, "epochs is '1'; it is a whole number"),
        ({"epochs": 1.5}, "epochs is 1.5; it is a whole number"),
        ({"epochs": True}, "epochs is True; it is a whole number"),
        ({"batch_size": 1.5}, "batch_size is 1.5; it is a whole number"),
        ({"lr": 0.0}, "lr is 0.0; a learning rate is a positive number"),
        ({"lr": "a"}, "lr is 'a'; a learning rate"),
        ({"lr": float("inf")}, "lr is inf; a learning rate"),
        ({"synops_weight": -1.0}, "synops_weight is -1.0; it is a number of at least 0"),
        ({"synops_weight": "a"}, "synops_weight is 'a'"),
        ({"synops_weight": float("nan")}, "synops_weight is nan"),
        ({"swap": "a"}, r"swap is 'a'; it is a fraction in \[0, 1\]"),
        ({"swap": 1.1}, r"swap is 1.1; it is a fraction in \[0, 1\]"),
        ({"seed": 1.5}, "seed is 1.5; it is a whole number"),
        ({"criterion": len}, "criterion is <.*>; write its registered name"),
        ({"device": "gpu"}, "device is 'gpu'; write 'cpu', 'cuda' or 'cuda:0'"),
        ({"device": 3}, "device is 3; write 'cpu'"),
    ],
)
def test_options_of_the_evaluator_out_of_range_are_refused(changes, said, tmp_path):
    with pytest.raises(BadOption, match=said):
        evaluator(tmp_path, **changes)


def test_recordings_of_events_are_refused(tmp_path):
    with pytest.raises(BadOption, match="T is searched"):
        evaluator(tmp_path, replace(few_digits(), events=True))


def test_a_gpu_beyond_those_there_are_is_refused_with_their_number(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    evaluator(tmp_path, device="cuda:1")
    with pytest.raises(BadOption, match=r"device is 'cuda:2' but this machine has 2 GPU\(s\): write 'cuda:0'"):
        evaluator(tmp_path, device="cuda:2")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadOption, match="no usable GPU"):
        evaluator(tmp_path, device="cuda")


def test_the_best_network_belongs_to_its_space(tmp_path):
    with pytest.raises(BadCheckpoint, match="cannot be read"):
        load_best(tmp_path, space())
    evaluator(tmp_path).evaluate(space().freeze(SAMPLE))
    for other in (space(hidden=9), space(widths=[2]), space(neuron="if")):
        with pytest.raises(BadCheckpoint, match="not of this space"):
            load_best(tmp_path, other)


def test_nnis_engine_hears_each_epoch_and_the_score_and_nothing_after_the_end(tmp_path, monkeypatch):
    judge = evaluator(tmp_path)
    frozen = SimplifiedModelSpace.from_model(space(), judge).freeze(SAMPLE)
    SequentialExecutionEngine().submit_models(frozen)
    assert frozen.metric == judge.found(SAMPLE).score
    assert len(frozen.metrics.intermediates) == 2
    assert frozen.metrics.intermediates[-1] == judge.found(SAMPLE).accuracy
    monkeypatch.setattr(nni, "report_final_result", lambda value: pytest.fail("the trial was over"))
    judge.evaluate(space().freeze(SAMPLE))


# --------------------------------------------------------------------------------------------------------- the search

SEARCH = {"candidates": 8, "population": 3, "sample_size": 3, "mutation": 0.05, "seed": 1}
# Small enough for a second, and the operations tell the candidates apart where accuracies are still those of chance.
SEARCHED = {"widths": [4, 8, 16], "steps": [2, 4], "hidden": 16}
BRIEFLY = {"epochs": 1, "batch_size": 8, "every": "2it", "lr": 1e-2, "synops_weight": 0.1}


def search(folder, judge=None, **changes):
    judge = judge or evaluator(folder, **BRIEFLY)
    return explore(space(**SEARCHED), judge, **{**SEARCH, **changes})


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    return folder, search(folder)


def test_children_are_the_best_of_the_living_population_with_one_mutable_changed(searched):
    _, found = searched
    for number in range(SEARCH["population"], len(found)):
        living = found[number - SEARCH["population"] : number]  # the oldest leaves for each that joins
        parents = [each for each in living if each.score == max(one.score for one in living)]
        child = found[number].sample
        assert any(sum(child[label] != parent.sample[label] for label in LABELS) == 1 for parent in parents)


def test_evolution_improves_on_its_random_start(searched):
    _, found = searched
    assert best(found).score > best(found[: SEARCH["population"]]).score


def test_no_sample_is_tried_twice_and_each_is_on_disk(searched):
    folder, found = searched
    samples = [each.sample for each in found]
    assert len(found) == SEARCH["candidates"] == len({json.dumps(sample) for sample in samples})
    assert trained(folder) == samples
    assert [line["candidate"] for line in lines(folder)[1:]] == [asdict(each) for each in found]
    assert len(list(folder.glob("nni/*/log/experiment.log"))) == 1


def test_the_best_candidate_is_the_one_exported(searched):
    folder, found = searched
    net, candidate, masks = load_best(folder, space(**SEARCHED))
    assert candidate == best(found)
    assert net.sample == candidate.sample
    assert set(masks) == {
        name for name, _ in net.named_parameters() if name.startswith(("conv", "fc")) and "weight" in name
    }
    assert checkpoint.load(folder / "best.safetensors")["candidate"]["sample"] == candidate.sample


def test_the_same_seed_explores_the_same_and_another_seed_does_not(searched, tmp_path):
    _, found = searched
    assert search(tmp_path / "again", candidates=5) == found[:5]
    other = search(tmp_path / "other", seed=2, candidates=3)
    assert [each.sample for each in other] != [each.sample for each in found[:3]]


def test_a_stopped_search_goes_on_without_training_what_is_known(searched, tmp_path):
    folder, found = searched
    kept = (folder / "candidates.jsonl").read_text().splitlines(keepends=True)[:6]
    (tmp_path / "candidates.jsonl").write_text("".join(kept))
    assert search(tmp_path) == found
    assert (tmp_path / "candidates.jsonl").read_text().splitlines(keepends=True)[:6] == kept
    assert trained(tmp_path) == trained(folder)


class _Interrupted(StructureLearningEvaluator):
    def evaluate(self, model):
        if len(lines(self.folder) if (self.folder / "candidates.jsonl").exists() else []) > 3:
            raise KeyboardInterrupt
        return super().evaluate(model)


def test_an_interrupt_leaves_the_search_which_can_go_on(searched, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, _Interrupted(few_digits(), tmp_path, **BRIEFLY))
    assert len(trained(tmp_path)) == 3
    assert search(tmp_path, candidates=4) == searched[1][:4]


class _Watched(StructureLearningEvaluator):
    def evaluate(self, model):
        self.seen = [*getattr(self, "seen", []), _processes_and_ports()]
        return super().evaluate(model)


def _processes_and_ports():
    process = psutil.Process()
    ports = {each.laddr for each in process.net_connections() if each.status == psutil.CONN_LISTEN}
    return {child.pid for child in process.children(recursive=True)}, ports


def test_no_server_is_started_no_port_opened_and_no_log_left_open(tmp_path):
    before = _processes_and_ports()
    judge = _Watched(few_digits(), tmp_path, **BRIEFLY)
    search(tmp_path, judge, candidates=3)
    assert judge.seen == [before] * 3
    assert not [each for each in logging.getLogger("nni").handlers if isinstance(each, logging.FileHandler)]


def test_failed_candidates_are_passed_over_and_shown(tmp_path):
    found = search(tmp_path, evaluator(tmp_path, lr=1e30), candidates=4)
    assert [each.score for each in found] == [None] * 4
    assert table(found).count("failed: ") == 4
    with pytest.raises(Diverged, match="none of 4 candidates"):
        best(found)


def test_the_table_shows_the_best_first_and_failures_last():
    shown = {"accuracy": 0.5, "kept": 9, "connections": 8, "synops": 1234.5, "macs": 7.0}
    found = [
        Candidate(SAMPLE, 36, failure="it fell apart"),
        Candidate(SAMPLE, 36, score=0.25, **shown),
        Candidate(SAMPLE, 36, score=0.75, **shown),
    ]
    assert table(found).splitlines() == [
        "width depth   T density accuracy connections    SynOps   score",
        "    4     1   2    0.25   0.5000           8     1,234  0.7500",
        "    4     1   2    0.25   0.5000           8     1,234  0.2500",
        "    4     1   2    0.25 failed: it fell apart",
    ]
    assert best(found) is found[2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"candidates": 49}, "48 samples"),
        ({"candidates": 2}, "in this order"),
        ({"sample_size": 4}, "in this order"),
        ({"sample_size": 0}, "in this order"),
        ({"mutation": 0.0}, "mutation is 0.0; a probability"),
        ({"mutation": "a"}, "mutation is 'a'; a probability"),
        ({"mutation": True}, "mutation is True; a probability"),
        ({"candidates": 1.5}, "candidates is 1.5; it is a whole number"),
        ({"population": "a"}, "population is 'a'; it is a whole number"),
        ({"sample_size": 2.0}, "sample_size is 2.0; it is a whole number"),
        ({"seed": "a"}, r"seed is 'a'; it is a whole number in \[0, 2\*\*32\)"),
        ({"seed": -1}, "seed is -1; it is a whole number"),
        ({"seed": None}, "seed is None; it is a whole number"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(changes, said, tmp_path):
    with pytest.raises(BadOption, match=said):
        search(tmp_path, **changes)
    assert not (tmp_path / "candidates.jsonl").exists()


def test_a_space_with_an_impossible_corner_is_refused_before_anything_is_trained(tmp_path):
    judge = evaluator(tmp_path)
    with pytest.raises(BadOption, match=r"width 2, depth 1: at density 0.001 layer 'conv1'"):
        explore(space(densities=[0.5, 0.001]), judge, **SEARCH)
    with pytest.raises(UnknownName, match="magnitude"):
        search(tmp_path, evaluator(tmp_path, criterion="magnitud"))
    with pytest.raises(BadOption, match="not a duration"):
        search(tmp_path, evaluator(tmp_path, every="ten"))
    assert not (tmp_path / "candidates.jsonl").exists()


def test_a_folder_that_another_search_holds_is_refused(tmp_path):
    with FileLock(str(tmp_path / ".lock")), pytest.raises(RunFolderInUse, match="held by another search"):
        search(tmp_path)


def test_a_small_space_is_explored_to_its_end_and_less_is_said(tmp_path, caplog):
    tiny = space(widths=[2], depths=[1], steps=[1], densities=[0.25, 0.5, 1.0])
    options = {"candidates": 3, "population": 2, "sample_size": 1, "seed": 0}
    assert len(explore(tiny, evaluator(tmp_path, epochs=1), mutation=1.0, **options)) == 3
    assert "were explored" not in caplog.text
    found = explore(tiny, evaluator(tmp_path, epochs=1), mutation=1e-9, **options)
    assert len(found) == 2
    assert "2 of 3 candidates were explored" in caplog.text


# ------------------------------------------------------------------------------------------------- the host as it is


@pytest.mark.filterwarnings("ignore:unclosed file.*experiment.log:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_space_and_evaluator_serve_nnis_own_experiment_too(tmp_path, monkeypatch):
    from nni.tools.nnictl.config_utils import Experiments

    monkeypatch.setattr(Experiments.__init__, "__defaults__", (str(tmp_path / "home"),))
    config = NasExperimentConfig("sequential", "simplified")
    config.max_trial_number, config.experiment_working_directory = 3, str(tmp_path / "nni")
    strategy = RegularizedEvolution(population_size=2, sample_size=1, seed=0)
    judge = evaluator(tmp_path, epochs=1)
    experiment = NasExperiment(space(), judge, strategy, config)
    try:
        assert experiment.run()
        top = experiment.export_top_models(formatter="dict")
    finally:
        experiment.stop()
    assert top == [best(map(judge.found, trained(tmp_path))).sample]


def test_nni_cannot_read_its_own_checkpoint_on_this_torch(tmp_path):
    """Pins a failure of the host: where this one passes, NNI's resume works again, and the records may go."""
    serializer = TorchSerializer()
    serializer.save({"population": [Individual(SAMPLE, 0.5)]}, tmp_path / "state.ckpt")
    with pytest.raises(pickle.UnpicklingError, match=r"evolution\.Individual was not an allowed global"):
        serializer.load(tmp_path / "state.ckpt")


def test_a_missing_library_is_named(monkeypatch):
    name = "snnsl_plugin.for_nni.nas.space"
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nni.nas.nn.pytorch", None)
    with pytest.raises(MissingExtra, match="pytorch-lightning"):
        importlib.import_module(name)


def test_the_front_door_imports_nothing_heavy():
    code = "import sys, snnsl_plugin.for_nni.nas as nas; dir(nas); print({'torch', 'nni'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ------------------------------------------------------------------------------------------------------------- slow


@pytest.mark.slow
def test_digits_are_searched_for_real(tmp_path):
    searched = SpikingSpace((1, 8, 8), 10, widths=[4, 16], depths=[1, 2], steps=[2, 8], densities=[0.1, 0.5], hidden=64)
    data = replace(digits(), test=_Untouchable())
    found = explore(
        searched,
        StructureLearningEvaluator(data, tmp_path, epochs=4, synops_weight=0.02),
        candidates=10,
        population=4,
        sample_size=2,
        mutation=0.2,
    )
    assert len(found) == 10
    assert best(found).accuracy > 0.85
    assert all(each.kept == round(each.sample["density"] * each.weights) for each in found)


def script(folder, *arguments):
    environment = {**os.environ, "HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), "--folder", str(folder / "search"), *arguments]
    return subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_the_example_runs_is_killed_and_goes_on_to_the_same_end(tmp_path):
    arguments = ["--candidates", "5", "--population", "2", "--epochs", "1", "--seed", "0"]
    tables = []
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "search" / "candidates.jsonl"
        if name == "killed":
            first = script(tmp_path / name, *arguments)
            until = time.monotonic() + 120
            while not file.exists() or len(file.read_text().splitlines()) < 3:
                assert first.poll() is None, first.communicate()
                assert time.monotonic() < until
                time.sleep(0.02)
            first.send_signal(signal.SIGKILL)
            first.communicate()
            assert len(trained(tmp_path / name / "search")) < 5
        done = script(tmp_path / name, *arguments)
        out, error = done.communicate(timeout=300)
        assert done.returncode == 0, error
        tables.append(out[out.index("width depth") :])
        assert len(trained(tmp_path / name / "search")) == 5
        assert not (tmp_path / name / "home" / "nni-experiments").exists()
    assert tables[0] == tables[1]
    assert len(tables[0].splitlines()) >= 6
