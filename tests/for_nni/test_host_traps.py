"""What NNI 3.0 does that costs its users time; a test says what happens today, so that a change is noticed."""

import copy
import io
import pickle
import sys
from collections import defaultdict

import nni
import pytest
import torch
from nni.compression.distillation import DynamicLayerwiseDistiller
from nni.compression.pruning import L1NormPruner, LevelPruner, SlimPruner, TaylorPruner
from schema import SchemaError, SchemaWrongKeyError
from spiking_pipelines import TIME, Batch, Training, batches, evaluator, network, sgd, training_step
from torch import Tensor, nn

HALF = [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.5}]
LOGITS = [{"op_names": ["fc"], "apply_method": "mse"}]


def pruned(model: nn.Module) -> LevelPruner:
    pruner = LevelPruner(model, HALF)
    pruner.compress()
    return pruner


def test_unwrapping_gives_back_weights_without_their_masks() -> None:
    model = network("ann")
    pruner = pruned(model)
    masks = pruner.get_masks()
    pruner.unwrap_model()
    assert masks["conv2"]["weight"].mean() == 0.5
    assert model.conv2.weight.all()


def test_after_wrapping_the_users_own_optimizer_trains_other_tensors_than_the_model() -> None:
    model = network("ann")
    optimizer = sgd(model)
    before = model.conv1.weight.detach().clone()
    pruner = pruned(model)
    training_step(batches(1)[0], model).backward()
    optimizer.step()
    wrapped = pruner._module_wrappers["conv1"].weight
    assert wrapped.grad.any()
    assert all(wrapped is not owned for group in optimizer.param_groups for owned in group["params"])
    assert torch.equal(wrapped, before)


def test_an_optimizer_traced_over_named_parameters_comes_back_without_parameters() -> None:
    model = network("ann")
    optimizer = nni.trace(torch.optim.SGD)(model.named_parameters(), lr=0.1)
    assert len(optimizer.param_groups[0]["params"]) == len(list(model.parameters()))
    host = evaluator(model, optimizer=optimizer)
    pruner = LevelPruner(model, HALF, host)
    host.bind_model(model, pruner._get_param_names_map())
    assert [group["params"] for group in host._optimizers[0].param_groups] == [[]]


def test_an_optimizer_that_is_not_traced_is_refused_without_a_word() -> None:
    model = network("ann")
    with pytest.raises(AssertionError, match=r"^$"):
        evaluator(model, optimizer=torch.optim.SGD(model.parameters(), 0.1))


def test_mul_gives_masked_weights_no_gradient() -> None:
    pruner = pruned(model := network("ann"))
    training_step(batches(1)[0], model).backward()
    for layer, targets in pruner.get_masks().items():
        gradient = pruner._module_wrappers[layer].weight.grad
        assert gradient[targets["weight"] > 0].any()
        assert not gradient[targets["weight"] == 0].any()


def test_a_masked_weight_keeps_its_value_and_drifts_by_weight_decay() -> None:
    model = network("ann")
    host = evaluator(model, optimizer=nni.trace(torch.optim.SGD)(model.parameters(), lr=0.1, weight_decay=0.1))
    pruner = LevelPruner(model, HALF, host)
    _, masks = pruner.compress()
    dead = masks["conv2"]["weight"] == 0
    before = pruner._module_wrappers["conv2"].weight.detach()[dead].clone()
    host.bind_model(model, pruner._get_param_names_map())
    host.train(max_steps=1)
    torch.testing.assert_close(pruner._module_wrappers["conv2"].weight.detach()[dead], before * 0.99)


def test_masks_are_a_defaultdict_that_safe_loading_refuses() -> None:
    masks = pruned(network("ann")).get_masks()
    assert type(masks) is defaultdict
    file = io.BytesIO()
    torch.save(masks, file)
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(file, weights_only=True)


def test_a_wrapped_model_cannot_be_copied_after_a_training_pass() -> None:
    model = network("ann")
    pruned(model)
    copy.deepcopy(model)
    training_step(batches(1)[0], model)
    with pytest.raises(RuntimeError, match="Only Tensors created explicitly by the user"):
        copy.deepcopy(model)


def test_new_masks_reach_a_frozen_layer_all_the_same() -> None:
    pruner = LevelPruner(network("ann"), HALF)
    pruner._module_wrappers["conv1"].freeze()
    pruner.compress()
    assert pruner.get_masks()["conv1"]["weight"].mean() == 0.5


def test_a_layer_is_known_by_the_name_of_its_class_alone() -> None:
    class WeightStandardized(nn.Conv2d):
        """What users call their own convolutions."""

    assert set(LevelPruner(network("snn_m"), HALF)._target_spaces) == {"conv1", "conv2", "fc"}
    with pytest.raises(AssertionError, match="WeightStandardized is not registered"):
        LevelPruner(
            nn.Sequential(WeightStandardized(1, 2, 1)), [{"op_types": ["WeightStandardized"], "sparse_ratio": 0.5}]
        )
    with pytest.raises(AssertionError, match="LIFNode is not registered"):
        LevelPruner(network("snn_m"), [{"op_names": ["act1"], "sparse_ratio": 0.5}])


def test_a_config_that_selects_no_layer_prunes_nothing_in_silence() -> None:
    _, masks = LevelPruner(network("ann"), [{"op_types": ["Conv3d"], "sparse_ratio": 0.5}]).compress()
    assert masks == {}


@pytest.mark.parametrize(
    ("extra", "error"),
    [
        ({"regrow_ratio": 0.1}, SchemaWrongKeyError),
        ({"target_settings": {"weight": {"regrow_ratio": 0.1}}}, SchemaError),
        ({"apply_method": "own"}, SchemaError),
        ({"sparse_ratio": 1}, SchemaError),
    ],
)
def test_the_schema_refuses_keys_and_values_of_others_and_a_whole_number(
    extra: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        LevelPruner(network("ann"), [HALF[0] | extra])


def test_the_bias_of_a_pruned_batch_norm_stays() -> None:
    model = network("ann")
    pruner = SlimPruner(model, [{"op_types": ["BatchNorm2d"], "sparse_ratio": 0.5}], evaluator(model), 2)
    _, masks = pruner.compress()
    assert masks["bn1"]["weight"].mean() == 0.5
    assert masks["bn1"]["bias"].all()


def test_nobody_resets_a_spiking_network_between_batches() -> None:
    model = network("snn_m")
    host = evaluator(model, step=lambda batch, net: nn.functional.cross_entropy(net(batch[0]), batch[1]))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        TaylorPruner(model, HALF, host, training_steps=2).compress()


@pytest.mark.parametrize(("kind", "seen"), [("snn_s", (8, 5)), ("snn_m", (TIME, 8, 5))])
def test_a_distiller_sees_the_last_call_of_a_layer_only(kind: str, seen: tuple[int, ...]) -> None:
    student = network(kind)
    calls: list[Tensor] = []
    student.fc.register_forward_hook(lambda module, inputs, output: calls.append(output))
    distiller = DynamicLayerwiseDistiller(
        student, LOGITS, evaluator(student), network(kind, 1), lambda batch, net: None
    )
    training_step(batches(1)[0], student)
    assert len(calls) == (TIME if kind == "snn_s" else 1)
    (state,) = distiller._target_spaces["fc"]["_output_0"].hidden_states
    assert state.shape == seen
    assert torch.equal(state, calls[-1])


def test_a_spiking_teacher_carries_its_membranes_from_batch_to_batch() -> None:
    student, teacher, said = network("snn_m"), network("snn_m", 1), []

    def predict(batch: Batch, model: nn.Module) -> None:
        said.append(model(batch[0]))

    host = evaluator(student, Training(batches(1)))
    DynamicLayerwiseDistiller(student, LOGITS, host, teacher.eval(), predict).compress(2, None)
    first, second = said
    assert not torch.equal(first, second)


def test_a_fused_distiller_gives_back_no_masks() -> None:
    model = network("ann")
    pruner = LevelPruner(model, HALF, evaluator(model))
    distiller = DynamicLayerwiseDistiller.from_compressor(
        pruner, LOGITS, network("ann", 1), lambda batch, net: net(batch[0])
    )
    assert distiller.compress(2, None) is model


def test_lightning_refuses_a_number_of_steps() -> None:
    lightning = pytest.importorskip("pytorch_lightning", minversion="2.0")

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network("ann")

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return sgd(self)

    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = nni.trace(lightning.Trainer)(max_epochs=1, accelerator="cpu", **quiet)
    host = nni.compression.LightningEvaluator(trainer, nni.trace(lightning.LightningDataModule)())
    pruner = TaylorPruner(Module(), HALF, host, training_steps=2)
    with pytest.raises(AttributeError, match="'max_steps' of '_FitLoop' object has no setter"):
        pruner.compress()


@pytest.mark.filterwarnings("ignore:.*_register_pytree_node. is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:<class 'torch.fx.immutable_collections:UserWarning")
def test_speedup_cannot_trace_even_a_plain_network() -> None:
    from nni.compression.speedup import ModelSpeedup

    model = network("ann")
    pruner = L1NormPruner(model, [{"op_names": ["conv1"], "sparse_ratio": 0.5}])
    _, masks = pruner.compress()
    pruner.unwrap_model()
    told = {
        (3, 12): (TypeError, "__type_params__ must be set to a tuple"),
    }.get(sys.version_info[:2], (AttributeError, "'NoneType' object has no attribute 'startswith'"))
    with pytest.raises(told[0], match=told[1]):
        ModelSpeedup(model, batches(1)[0][0], masks).speedup_model()
