"""The numbers of a run: the cost of its training worked by hand, and the operations of a network counted twice."""

import json
from pathlib import Path

import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from snnsl_plugin.anatomy import reset_, weight_layers
from snnsl_plugin.comparison.numbers import layer_macs, numbers, training_cost
from snnsl_plugin.models.sew_resnet import sew_resnet
from snnsl_plugin.models.spiking_cnn import spiking_cnn
from snnsl_plugin.tracking.journal import Journal

MACS = {"conv": 300, "fc": 100}
WEIGHTS = {"conv": 20, "fc": 50}


def journal(run: Path, *lines: tuple[str, int, dict[str, float]]) -> Path:
    with Journal(run / "metrics.jsonl") as written:
        for event, step, metrics in lines:
            written.write(event, step, metrics, **({"layers": WEIGHTS} if event == "started" else {}))
    return run


# ----------------------------------------------------------------------------------------------- cost of a training


def test_by_hand_half_a_training_dense_and_half_with_fewer_weights(tmp_path):
    """Ten of 20 steps at 400 operations, ten at 0.1 * 300 + 0.5 * 100 = 80: (4,000 + 800) / 8,000."""
    masks = {"density": 0.2, "density/conv": 0.1, "density/fc": 0.5, "dropped/conv": 18.0, "dropped/fc": 25.0}
    run = journal(
        tmp_path, ("started", 0, {}), ("epoch", 10, {"density": 1.0}), ("mask_update", 10, masks), ("finished", 20, {})
    )
    assert training_cost(run, MACS) == pytest.approx(0.6)


def test_by_hand_masks_that_change_three_times(tmp_path):
    """5 steps at 1, 5 at 0.25 * 0.4 + 0.75 * 1 = 0.85, 10 at 0.5, 20 at 0.05: (5 + 4.25 + 5 + 1) / 40."""
    run = journal(
        tmp_path,
        ("started", 0, {}),
        ("mask_update", 5, {"density/fc": 0.4, "dropped/fc": 30}),  # a layer that is not named keeps all its weights
        ("mask_update", 10, {"density/conv": 0.5, "density/fc": 0.5}),
        ("mask_update", 20, {"density/conv": 0.05, "density/fc": 0.05}),
        ("epoch", 40, {}),
        ("finished", 40, {}),
    )
    assert training_cost(run, MACS) == pytest.approx(15.25 / 40)


def test_what_is_sparse_from_the_start_costs_that_much(tmp_path):
    masks = {"density/conv": 0.1, "density/fc": 0.1}
    run = journal(tmp_path, ("started", 0, {}), ("mask_update", 0, masks), ("epoch", 8, {}), ("finished", 8, {}))
    assert training_cost(run, MACS) == pytest.approx(0.1)


def test_what_was_masked_before_training_is_not_charged_until_its_first_update(tmp_path):
    """Sparse from the start: at step 4 of 8 one layer drops 2 of 20 and grows 2, the other drops 5 of 50 for good."""
    masks = {"density/conv": 0.1, "dropped/conv": 2, "born/conv": 2, "density/fc": 0.1, "dropped/fc": 5, "born/fc": 0}
    run = journal(tmp_path, ("started", 0, {}), ("mask_update", 4, masks), ("finished", 8, {}))
    before = (300 * 0.1 + 100 * 0.2) / 400
    assert training_cost(run, MACS) == pytest.approx((before + 0.1) / 2)


def test_a_dense_training_costs_one(tmp_path):
    assert training_cost(journal(tmp_path, ("started", 0, {}), ("epoch", 8, {}), ("finished", 8, {})), MACS) == 1.0


def test_a_share_counts_by_operations_and_not_by_weights(tmp_path):
    lines = (("started", 0, {}), ("mask_update", 0, {"density/conv": 0.0, "dropped/conv": 20}), ("finished", 4, {}))
    assert training_cost(journal(tmp_path, *lines), {"conv": 1, "fc": 999}) == pytest.approx(0.999)


# -------------------------------------------------------------------------------------------- operations of a network


def flops(model: nn.Module, x: torch.Tensor) -> int:
    """What torch counts: a multiplication and an addition apart, convolutions and matrix products only."""
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x[:, :1])
    reset_(model)
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: spiking_cnn((1, 8, 8), 10, channels=[4, 8], hidden=16), (4, 3, 1, 8, 8)),
        (lambda: spiking_cnn((2, 16, 16), 5, channels=[4], hidden=8), (2, 2, 2, 16, 16)),
        (lambda: sew_resnet((3, 16, 16), 10, depth=18), (2, 2, 3, 16, 16)),
    ],
    ids=["spiking_cnn", "spiking_cnn of events", "sew_resnet18"],
)
def test_operations_are_half_of_what_torch_counts(make, shape):
    torch.manual_seed(0)
    model, x = make(), torch.rand(shape)
    counted = layer_macs(model, x)
    assert counted.keys() == weight_layers(model).keys()
    assert all(counted.values())
    assert 2 * sum(counted.values()) == flops(model, x)


def test_operations_by_hand():
    """Three steps of a 4x4 picture: 2 channels of 3x3 over 1, then 5 classes over 2 * 4 * 4 values."""
    model = nn.Sequential(
        layer.Conv2d(1, 2, 3, padding=1, step_mode="m"),
        neuron.IFNode(step_mode="m"),
        layer.Flatten(step_mode="m"),
        layer.Linear(32, 5, step_mode="m"),
    )
    assert layer_macs(model, torch.rand(3, 7, 1, 4, 4)) == {"0": 3 * 16 * 2 * 9, "3": 3 * 5 * 32}


def test_counting_leaves_the_network_as_it_was():
    model = spiking_cnn((1, 8, 8), 10, channels=[4, 8], hidden=16)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layer_macs(model, torch.rand(2, 3, 1, 8, 8))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in weight_layers(model).values())


# ------------------------------------------------------------------------------------------------- numbers of a run


@pytest.fixture
def run(tmp_path) -> Path:
    result = {
        "status": "finished",
        "accuracy": {"test": 0.9, "test_last": 0.85, "validation": 0.95, "dense_test": None},
        "density": {"weights": {"achieved": 0.1}, "connections": {"density": 0.09}},
        "synops_per_sample": 1234.5,
        "macs_per_sample": 99.0,
        "energy_pj_per_sample": {"total": 5000.0},
        "epochs": 3,
        "wall_s": 12.5,
        "seconds_per_epoch": 4.0,
        "peak_memory_mib": 512.0,
    }
    (tmp_path / "result.json").write_text(json.dumps(result))
    return journal(tmp_path, ("finished", 6, {}))


def test_every_number_comes_from_its_place(run):
    assert numbers(run, judge="test", macs=MACS) == {
        "accuracy": 0.9, "accuracy_test": 0.9, "accuracy_test_last": 0.85, "accuracy_validation": 0.95,
        "density": 0.1, "connections": 0.09, "synops": 1234.5, "macs": 99.0, "energy_nj": 5.0, "epochs": 3,
        "training_cost": 1.0, "wall_s": 12.5, "seconds_per_epoch": 4.0, "peak_memory_mib": 512.0,
    }  # fmt: skip


def test_who_judges_by_validation_is_not_told_what_the_test_set_says(run):
    found = numbers(run, judge="validation", macs=MACS)
    assert found["accuracy"] == 0.95
    assert found["accuracy_test"] is None
    assert found["accuracy_test_last"] is None
