"""Ten pruners of NNI on four networks: a release of NNI, torch or SpikingJelly that breaks the host fails by name."""

import math
from collections.abc import Callable

import pytest
import torch
from nni.compression import TorchEvaluator
from nni.compression.base.compressor import Pruner
from nni.compression.pruning import (
    AGPPruner,
    FPGMPruner,
    L1NormPruner,
    L2NormPruner,
    LevelPruner,
    LinearPruner,
    MovementPruner,
    SlimPruner,
    TaylorPruner,
)
from spiking_pipelines import NETWORKS, Training, evaluator, network, training_step
from torch import Tensor, nn

RATIO = 0.7
LAYERS = [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": RATIO}]
NORMS = [{"op_types": ["BatchNorm2d"], "sparse_ratio": RATIO}]
TRAINED_STEPS = 8
FINE_TUNED_STEPS = 4
Built = tuple[Pruner, tuple[int | None, ...]]


def norm(kind: type[Pruner]) -> Callable[[nn.Module, TorchEvaluator], Built]:
    return lambda model, host: (kind(model, LAYERS, host), ())


def slim(model: nn.Module, host: TorchEvaluator) -> Built:
    return SlimPruner(model, NORMS, host, TRAINED_STEPS), ()


def taylor(model: nn.Module, host: TorchEvaluator) -> Built:
    return TaylorPruner(model, LAYERS, host, TRAINED_STEPS), ()


def linear_l1(model: nn.Module, host: TorchEvaluator) -> Built:
    return LinearPruner(L1NormPruner(model, LAYERS, host), interval_steps=2, total_times=3), (TRAINED_STEPS, None)


def agp_level(model: nn.Module, host: TorchEvaluator) -> Built:
    return AGPPruner(LevelPruner(model, LAYERS, host), interval_steps=2, total_times=3), (TRAINED_STEPS, None)


def agp_taylor(model: nn.Module, host: TorchEvaluator) -> Built:
    pruner = TaylorPruner(model, LAYERS, host, training_steps=2)
    return AGPPruner(pruner, interval_steps=2, total_times=3), (TRAINED_STEPS, None)


def movement(model: nn.Module, host: TorchEvaluator) -> Built:
    return MovementPruner(model, LAYERS, host, warmup_step=2, cooldown_begin_step=6), (TRAINED_STEPS, None)


# name: (how it is built, whether it trains by itself, whether it prunes single weights)
PRUNERS: dict[str, tuple[Callable[[nn.Module, TorchEvaluator], Built], bool, bool]] = {
    "Level": (norm(LevelPruner), False, True),
    "L1Norm": (norm(L1NormPruner), False, False),
    "L2Norm": (norm(L2NormPruner), False, False),
    "FPGM": (norm(FPGMPruner), False, False),
    "Slim": (slim, True, False),
    "Taylor": (taylor, True, False),
    "Linear(L1)": (linear_l1, True, False),
    "AGP(Level)": (agp_level, True, True),
    "AGP(Taylor)": (agp_taylor, True, False),
    "Movement": (movement, True, False),
}


@pytest.mark.parametrize("model_name", NETWORKS)
@pytest.mark.parametrize("pruner_name", PRUNERS)
def test_the_host_trains_and_prunes_as_asked(pruner_name: str, model_name: str) -> None:
    build, trains, single_weights = PRUNERS[pruner_name]
    model = network(model_name)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    training = Training()
    host = evaluator(model, training)
    pruner, arguments = build(model, host)
    assert len(pruner._target_spaces) == (2 if pruner_name == "Slim" else 3)

    compressed, masks = pruner.compress(*arguments)

    assert compressed is model
    assert len(training.losses) == (TRAINED_STEPS if trains else 0)
    check_masks(masks, before, single_weights)
    fine_tune(pruner, host)
    assert len(training.losses) == FINE_TUNED_STEPS + (TRAINED_STEPS if trains else 0)
    assert all(math.isfinite(loss) for loss in training.losses)
    check_that_training_keeps_masks(pruner, masks, before)
    check_unwrapping(pruner, before)


def check_masks(masks: dict[str, dict[str, Tensor | None]], weights: dict[str, Tensor], single_weights: bool) -> None:
    for layer, targets in masks.items():
        weight, mask = weights[f"{layer}.weight"], targets["weight"]
        assert mask.shape == weight.shape
        assert set(mask.unique().tolist()) == {0.0, 1.0}
        rows = mask.reshape(len(mask), -1)
        if single_weights:
            assert (mask == 0).sum() == int(weight.numel() * RATIO), f"{layer}: not the number of weights asked for"
        else:
            assert (rows.amin(1) == rows.amax(1)).all(), f"{layer}: an output channel is masked in part"
            assert (rows[:, 0] == 0).sum() == int(len(weight) * RATIO), f"{layer}: not the number of channels asked for"
        if f"{layer}.bias" in weights:
            # NNI's alignment sums a vector to one number, so of a batch norm only the weight is masked
            follows = rows.amax(1) if weight.dim() > 1 else torch.ones_like(weight)
            assert torch.equal(targets["bias"], follows), f"{layer}: the mask of the bias does not follow its weight"
        else:
            assert targets["bias"] is None


def fine_tune(pruner: Pruner, host: TorchEvaluator) -> None:
    """What a training pruner does inside; the norms do it only when they are fused with another compressor."""
    host.bind_model(pruner.bound_model, pruner._get_param_names_map())
    host.train(max_steps=FINE_TUNED_STEPS)
    host.unbind_model()


def check_that_training_keeps_masks(
    pruner: Pruner, masks: dict[str, dict[str, Tensor]], before: dict[str, Tensor]
) -> None:
    assert {name: set(targets) for name, targets in pruner.get_masks().items()} == {
        name: {"weight", "bias"} for name in pruner._target_spaces
    }
    for layer, wrapper in pruner._module_wrappers.items():
        kept = masks[layer]["weight"] > 0
        assert torch.equal(pruner.get_masks()[layer]["weight"], masks[layer]["weight"])
        assert (wrapper.weight[kept] != before[f"{layer}.weight"][kept]).any(), f"{layer}: did not learn"
        assert not wrapper.module.weight[~kept].any(), f"{layer}: a masked weight takes part in the forward pass"


def check_unwrapping(pruner: Pruner, before: dict[str, Tensor]) -> None:
    learned = {name: wrapper.weight.detach().clone() for name, wrapper in pruner._module_wrappers.items()}
    pruner.unwrap_model()
    model = pruner.bound_model
    assert {name: value.shape for name, value in model.named_parameters()} == {n: v.shape for n, v in before.items()}
    assert not any(hasattr(module, "_nni_wrapper") for module in model.modules())
    for layer, weight in learned.items():
        assert torch.equal(model.get_parameter(f"{layer}.weight"), weight)
    Training()(model, torch.optim.SGD(model.parameters(), 0.1), training_step)
