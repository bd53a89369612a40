"""Half of the channels of every kind of spiking network, cut, against the dense network with those channels silent."""

import copy
import zlib
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from compaction.families import FAMILIES, REFUSED, STEPS, Family
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from snnsl_plugin.anatomy import LAYERS, neurons
from snnsl_plugin.compaction.cutting import Removed
from snnsl_plugin.errors import CannotCut
from snnsl_plugin.for_torch_pruning import SpikingPruner

# Torch-Pruning says so of operations that it takes for element-wise.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Unknown operation"),
    pytest.mark.filterwarnings("ignore:Unwrapped parameters detected"),
]
NORMS = nn.modules.batchnorm._BatchNorm
CASES = [
    pytest.param(name, mode, id=f"{name}-{mode}", marks=[pytest.mark.slow] if family.slow else [])
    for name, family in FAMILIES.items()
    for mode in family.modes
]
REFUSALS = [pytest.param(name, mode, id=f"{name}-{mode}") for name, family in REFUSED.items() for mode in family.modes]


def drawn(group) -> Tensor:
    """Scores that depend on nothing but the name of the first layer of a group, without ties."""
    name = group._DG._module2name[group[0].dep.target.module]
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randperm(len(group[0].idxs), generator=generator).double()


def pruner_of(model: nn.Module, family: Family, mode: str, **options) -> SpikingPruner:
    return SpikingPruner(
        model,
        family.example(mode),
        importance=drawn,
        pruning_ratio=0.5,
        ignored_layers=[model.get_submodule(name) for name in family.keep],
        neuron_types=family.neuron_types,
        **options,
    )


def inputs(family: Family, mode: str, samples: int = 3) -> list[Tensor]:
    """As many steps as a neuron remembers: in one call, or in calls one after the other."""
    calls = 1 if mode == "m" or family.timed else STEPS
    return [family.example(mode, samples, seed + 1) for seed in range(calls)]


def outputs(model: nn.Module, steps: list[Tensor]) -> Tensor:
    functional.reset_net(model)
    found = torch.stack([model(x) for x in steps])
    functional.reset_net(model)
    return found


@dataclass
class Cut:
    dense: nn.Module
    model: nn.Module
    gone: dict[str, list[int]]
    removed: Removed


@cache
def cut(name: str, mode: str) -> Cut:
    family = FAMILIES[name]
    model = family.model(mode)
    model(family.example(mode, samples=4, seed=9))  # leaves potentials behind, and their graph
    removed = pruner_of(model, family, mode).step()
    return Cut(family.model(mode), model, labelled(family, mode), removed)


@torch.no_grad()
def labelled(family: Family, mode: str) -> dict[str, list[int]]:
    """Which channels go, read off a twin in whose layers and norms every number is the number of its channel."""
    twin = family.model(mode)
    wide = {name: module for name, module in twin.named_modules() if isinstance(module, (*LAYERS, NORMS))}
    before = {name: len(module.weight) for name, module in wide.items()}
    for module in wide.values():
        numbers = torch.arange(len(module.weight), dtype=torch.float32)
        module.weight.copy_(numbers.view(-1, *[1] * (module.weight.dim() - 1)).expand_as(module.weight))
    pruner_of(twin, family, mode, verify=False).step()
    kept = {
        name: module.weight.flatten(1)[:, 0] if module.weight.dim() > 1 else module.weight
        for name, module in wide.items()
    }
    return {name: sorted(set(range(before[name])) - set(kept[name].int().tolist())) for name in wide}


@torch.no_grad()
def silenced(dense: nn.Module, gone: dict[str, list[int]]) -> nn.Module:
    """Nothing comes out of these channels of a layer, and no norm lifts them off zero."""
    dense = copy.deepcopy(dense)
    for name, channels in gone.items():
        module = dense.get_submodule(name)
        module.weight[channels] = 0.0
        if module.bias is not None:
            module.bias[channels] = 0.0
    return dense


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_what_is_left_computes_what_the_dense_net_computes_with_those_channels_silent(name: str, mode: str) -> None:
    case, family = cut(name, mode), FAMILIES[name]
    reference, model = silenced(case.dense, case.gone).double(), copy.deepcopy(case.model).double()
    steps = [x.double() for x in inputs(family, mode)]
    rates: dict[nn.Module, list[float]] = {}
    for neuron in neurons(reference, family.neuron_types).values():
        neuron.register_forward_hook(lambda module, args, out: rates.setdefault(module, []).append(float(out.mean())))
    with torch.no_grad():
        expected, found = outputs(reference, steps), outputs(model, steps)
    assert expected.flatten(1).std() > 1e-3
    assert rates
    assert all(0 < sum(each) < len(each) for each in rates.values()), rates
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.abs().max()) + 1e-14)
    reference, model = reference.float(), model.float()
    steps = inputs(family, mode)
    with torch.no_grad():
        expected, found = outputs(reference, steps), outputs(model, steps)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * float(expected.abs().max()))


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_half_of_the_channels_of_every_layer_are_gone_and_the_report_says_which(name: str, mode: str) -> None:
    case, family = cut(name, mode), FAMILIES[name]
    layers = {key: module for key, module in case.dense.named_modules() if isinstance(module, LAYERS)}
    for key, layer in layers.items():
        channels = len(layer.weight)
        groups = getattr(layer, "groups", 1)
        half = channels - int(channels / groups * 0.5) * groups if groups != channels else channels // 2
        assert len(case.gone[key]) == (0 if key in family.keep else half), key
        assert len(case.model.get_submodule(key).weight) == channels - len(case.gone[key])
        assert sorted(case.removed.channels.get(key, [])) == case.gone[key]
    sizes = [sum(p.numel() for p in model.parameters()) for model in (case.dense, case.model)]
    assert case.removed.parameters == tuple(sizes)
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_what_is_left_can_be_run_trained_and_copied(name: str, mode: str) -> None:
    case, family = cut(name, mode), FAMILIES[name]
    model = copy.deepcopy(case.model).train()
    for samples in (1, 5):
        functional.reset_net(model)
        with torch.no_grad():
            assert model.eval()(family.example(mode, samples)).shape[-2 if family.shape else -1] in (samples, STEPS)
    model.train()
    functional.reset_net(model)
    model(family.example(mode, 4)).square().sum().backward()
    trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
    assert len(trained) >= 0.8 * len(list(model.parameters()))
    assert all(parameter.grad.shape == parameter.shape for parameter in trained)


def marks(model: nn.Module) -> list[tuple]:
    """What cutting is not to change."""
    return [
        (
            name,
            module.training,
            getattr(module, "step_mode", None),
            "forward" in vars(module),
            len(module._forward_hooks),
        )
        for name, module in model.named_modules()
    ]


@pytest.mark.parametrize(("name", "mode"), [case for case in CASES if not case.marks])
def test_modes_flags_hooks_and_memories_are_as_before(name: str, mode: str) -> None:
    family = FAMILIES[name]
    model = family.model(mode).train()
    next(model.children()).eval()
    calls: list[str] = []
    handle = model.register_forward_hook(lambda *_: calls.append("model"))
    before = marks(model)
    pruner = pruner_of(model, family, mode)
    assert marks(model) == before
    pruner.step()
    assert marks(model) == before
    assert calls == []
    for neuron in neurons(model, family.neuron_types).values():
        assert getattr(neuron, "v", 0.0) == 0.0
    handle.remove()
    assert len(model._forward_hooks) == 0


@pytest.mark.parametrize(("name", "mode"), REFUSALS)
def test_what_cannot_be_cut_is_refused_by_name_and_left_as_it_was(name: str, mode: str) -> None:
    family = REFUSED[name]
    model, dense = family.model(mode), family.model(mode)
    held = dict(model.state_dict(keep_vars=True))
    sizes = {key: repr(module) for key, module in model.named_modules()}
    pruner = pruner_of(model, family, mode)
    named = {
        "through_time_norm": "conv",
        "linear_recurrent": "sub_module.0",
        "element_wise_recurrent": "sub_module.0",
        "spikformer_qkv": "attn.qkv_conv_bn.0",
        "classifier": "fc",
    }[name]
    with pytest.raises(CannotCut, match=rf"'[\w.]*{named}[\w.]*' cannot be cut.*as it was.*ignored_layers"):
        pruner.step()
    now = model.state_dict(keep_vars=True)
    assert list(now) == list(held)
    assert all(now[key] is held[key] for key in held)
    assert {key: repr(module) for key, module in model.named_modules()} == sizes
    with torch.no_grad():
        steps = inputs(family, mode)
        assert torch.equal(outputs(model, steps), outputs(dense, steps))


@pytest.mark.parametrize(("name", "refused"), [("spikformer_qkv", "blocks.0.attn.qkv_conv_bn.0"), ("classifier", "fc")])
def test_the_same_pruner_goes_on_when_what_it_cannot_cut_is_ignored(name: str, refused: str) -> None:
    family = REFUSED[name]
    model, fresh = family.model("m"), family.model("m")
    pruner = pruner_of(model, family, "m")
    with pytest.raises(CannotCut):
        pruner.step()
    assert pruner.pruning_history() == []
    pruner.ignored_layers.append(model.get_submodule(refused))
    removed = pruner.step()
    other = pruner_of(fresh, replace(family, keep=(*family.keep, refused)), "m")
    assert removed.channels == other.step().channels
    assert pruner.pruning_history() == other.pruning_history()
    with torch.no_grad():
        assert torch.equal(outputs(model, inputs(family, "m")), outputs(fresh, inputs(family, "m")))
