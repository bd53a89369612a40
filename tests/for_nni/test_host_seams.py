"""The seams of NNI 3.0 that extensions hold on to: names that are not public, and the order in which things happen."""

import inspect
from collections.abc import Callable

import pytest
import torch
from nni.compression.base import apply_method, config, setting
from nni.compression.base.compressor import Compressor, Pruner
from nni.compression.base.target_space import PruningTargetSpace
from nni.compression.distillation import DynamicLayerwiseDistiller
from nni.compression.pruning import AGPPruner, LevelPruner, LinearPruner, MovementPruner
from nni.compression.utils.evaluator import ForwardHook
from spiking_pipelines import Training, batches, evaluator, network
from torch import Tensor, nn

HALF = [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.5}]
NAMES = {
    "pruner": """bound_model config_list evaluator fused_compressors _is_wrapped _module_wrappers _target_spaces
        wrap_model unwrap_model track_forward _get_param_names_map _validate_config _set_default_sparse_granularity
        _single_compress _fusion_compress _fuse_preprocess _fuse_postprocess
        generate_masks _collect_data _calculate_metrics _generate_sparsity get_masks update_masks
        sparse_goals _init_sparse_goals update_sparse_goals _update_sparse_goals_by_ratio""",
    "combined": "bound_pruner interval_steps total_times _initial_ratio _initialize_state _target_spaces",
    "wrapper": """module module_forward name config fused_modules _track_funcs wrap unwrap freeze patch_outputs
        pruning_target_spaces distillation_target_spaces quantization_target_spaces weight weight_mask""",
    "space": """target mask type shape setting apply_method sparse_ratio sparse_threshold max_sparse_ratio
        min_sparse_ratio global_group_id granularity align _setting _wrapper _target_name _scaler""",
    "evaluator": """model _optimizers _initialization_complete _param_names_map bind_model unbind_model train
        patch_loss revert_loss patch_optimizer_step revert_optimizer_step patch_optim_param_group
        register_hooks remove_all_hooks""",
    "distiller": """teacher_model teacher_predict origin_loss_lambda _teacher_target_spaces _teacher_module_wrappers
        wrap_teacher_model unwrap_teacher_model _register_loss_patch compute_distill_loss""",
    "distilled": "hidden_state hidden_states clean link lambda_ apply_method _buffer_mode",
    "settings": "PruningSetting DistillatoinSetting",  # the misspelling is NNI's
    "schemas": "default_config_schema select_modules_by_config trans_legacy_config_list",
    "methods": "pruning_apply_methods",
}


@pytest.fixture(scope="module")
def holders() -> dict[str, object]:
    model = network("ann")
    host = evaluator(model)
    pruner = MovementPruner(model, HALF, host, warmup_step=0, cooldown_begin_step=1)
    other = network("ann")
    student = network("ann")
    distiller = DynamicLayerwiseDistiller(
        student, [{"op_names": ["fc"]}], evaluator(student), network("ann", 1), lambda batch, net: None
    )
    return {
        "pruner": pruner,
        "combined": AGPPruner(LevelPruner(other, HALF, evaluator(other)), 1, 1),
        "wrapper": pruner._module_wrappers["fc"],
        "space": pruner._target_spaces["fc"]["weight"],
        "evaluator": host,
        "distiller": distiller,
        "distilled": distiller._target_spaces["fc"]["_output_0"],
        "settings": setting,
        "schemas": config,
        "methods": apply_method,
    }


@pytest.mark.parametrize("holder", NAMES)
def test_the_host_still_has_the_names_that_an_extension_reaches_for(holder: str, holders: dict[str, object]) -> None:
    assert [name for name in NAMES[holder].split() if not hasattr(holders[holder], name)] == []


def test_arguments_keep_their_order() -> None:
    assert list(inspect.signature(Pruner).parameters) == ["model", "config_list", "evaluator", "existed_wrappers"]
    assert list(inspect.signature(Pruner.compress).parameters) == ["self", "max_steps", "max_epochs"]
    assert list(inspect.signature(Compressor.from_compressor).parameters) == [
        "compressor",
        "new_config_list",
        "args",
        "evaluator",
        "kwargs",
    ]


def test_tasks_before_a_step_run_last_come_first_served_and_those_after_it_in_order() -> None:
    model, order = network("ann"), []
    host = evaluator(model)
    pruner = LevelPruner(model, HALF, host)
    host.bind_model(model, pruner._get_param_names_map())
    for name in "12":
        host.patch_optimizer_step(
            [lambda n=name: order.append(f"before {n}")], [lambda n=name: order.append(f"after {n}")]
        )
    host.train(max_steps=1)
    assert order == ["before 2", "before 1", "after 1", "after 2"]


def test_the_optimizer_exists_from_before_the_first_hook_until_after_the_last() -> None:
    seen: dict[str, object] = {}

    class Looking(LevelPruner):
        def _single_compress(self, max_steps: int | None, max_epochs: int | None) -> None:
            self._fusion_compress(max_steps, max_epochs)

        def _fuse_preprocess(self, host: object) -> None:
            (optimizer,) = host._optimizers
            owned = {id(value) for group in optimizer.param_groups for value in group["params"]}
            seen["owned"] = owned == {id(value) for value in self.bound_model.parameters()}
            self.hook = ForwardHook(self.bound_model.fc, "fc", lambda buffer: lambda *_: buffer.append(1))
            host.register_hooks([self.hook])

        def _fuse_postprocess(self, host: object) -> None:
            seen["after"] = (len(host._optimizers), len(self.hook.buffer))

    model = network("ann")
    host = evaluator(model)
    pruner = Looking(model, HALF, host)
    pruner.compress(3, None)
    assert seen == {"owned": True, "after": (1, 3)}
    assert host._optimizers is None
    assert pruner.hook.buffer == []


@pytest.mark.parametrize(("kind", "ratios"), [(LinearPruner, [1 / 3, 2 / 3, 1]), (AGPPruner, [19 / 27, 26 / 27, 1])])
def test_goals_move_as_fractions_of_what_was_asked(
    kind: Callable[..., LinearPruner | AGPPruner], ratios: list[float]
) -> None:
    model = network("ann")
    inner = LevelPruner(model, HALF, evaluator(model))
    outer = kind(inner, interval_steps=2, total_times=3)
    assert outer.sparse_goals["fc"]["weight"] == {"sparse_ratio": 0.5}
    goals = []
    for times in (1, 2, 3):
        outer.update_sparse_goals(times)
        goals.append(inner._target_spaces["fc"]["weight"].sparse_ratio)
    assert goals == pytest.approx([0.5 * ratio for ratio in ratios])
    assert goals[-1] == 0.5
    outer.compress(6, None)
    assert (inner.interval_steps, inner.total_times) == (2, 3)


def test_a_setting_below_a_target_passes_word_for_word_and_one_beside_it_is_dropped() -> None:
    class Lenient(LevelPruner):
        def _validate_config(self) -> None:
            """Takes everything, as an extension with an own schema does."""

    below = {"op_names": ["fc"], "sparse_ratio": 0.5, "beside": 1, "target_settings": {"weight": {"below": 2}}}
    (space, _) = Lenient(network("ann"), [below])._target_spaces["fc"].values()
    assert space.setting["below"] == 2
    assert "beside" not in space.setting


def test_an_own_way_to_apply_a_mask_is_looked_up_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def negative(target: Tensor, space: PruningTargetSpace) -> Tensor:
        return -target * space.mask

    monkeypatch.setitem(apply_method.pruning_apply_methods, "negative", negative)
    model = network("ann")
    pruner = LevelPruner(model, HALF)
    space = pruner._target_spaces["fc"]["weight"]
    space.apply_method = "negative"
    model(batches(1)[0][0])
    assert torch.equal(model.fc.weight, -space.target)


def test_a_mask_is_a_buffer_that_travels_with_the_state_of_the_model() -> None:
    pruner = LevelPruner(network("ann"), HALF)
    pruner.compress()
    state = pruner.bound_model.state_dict()
    assert {"fc.weight", "fc._nni_wrapper.weight", "fc._nni_wrapper.weight_mask"} <= set(state)
    fresh = LevelPruner(network("ann", 1), HALF)
    fresh.bound_model.load_state_dict(state)
    assert torch.equal(fresh.get_masks()["fc"]["weight"], pruner.get_masks()["fc"]["weight"])


def test_a_fused_compressor_takes_over_wrappers_evaluator_and_masks() -> None:
    model, training = network("ann"), Training()
    pruner = LevelPruner(model, HALF, evaluator(model, training))
    pruner.compress()
    masks = pruner.get_masks()
    distiller = DynamicLayerwiseDistiller.from_compressor(
        pruner, [{"op_names": ["fc"]}], network("ann", 1), lambda batch, net: net(batch[0])
    )
    assert distiller.fused_compressors == [distiller, pruner]
    assert distiller.evaluator is pruner.evaluator
    assert distiller._module_wrappers["fc"] is pruner._module_wrappers["fc"]
    assert isinstance(distiller.bound_model, nn.Module)
    distiller.compress(2, None)
    assert len(training.losses) == 2
    assert torch.equal(pruner.get_masks()["conv2"]["weight"], masks["conv2"]["weight"])
