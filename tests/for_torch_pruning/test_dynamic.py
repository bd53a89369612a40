import copy
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from networks import batch, conv_net
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.compaction.optimizer_state import following
from snnsl_plugin.errors import (
    BadCheckpoint,
    BadOption,
    CannotCut,
    Diverged,
    MissingStatistic,
    NothingRemoved,
)
from snnsl_plugin.for_torch_pruning import SpikingDynamicPruner, SpikingImportance, SpikingPruner, calibrate
from snnsl_plugin.for_torch_pruning.unit_update import UnitUpdate
from snnsl_plugin.models.sew_resnet import sew_resnet
from snnsl_plugin.models.spiking_cnn import spiking_cnn
from snnsl_plugin.training.checkpoint import load, save

pytestmark = pytest.mark.filterwarnings("ignore:Unwrapped parameters detected:UserWarning")


def l2() -> Any:
    return tp.importance.MagnitudeImportance(p=2)


def sgd(net: nn.Module, lr: float = 0.05, momentum: float = 0.9) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum)


def train(
    net: nn.Module, optimizer: Any, pruner: SpikingDynamicPruner, steps: int, x: Tensor, y: Tensor
) -> list[UnitUpdate]:
    updates = []
    net.train()
    for _ in range(steps):
        reset_(net)
        F.cross_entropy(net(x).mean(0), y).backward()
        optimizer.step()
        update = pruner.step()
        optimizer.zero_grad()
        if update:
            updates.append(update)
    return updates


def outputs(net: nn.Module, x: Tensor) -> Tensor:
    double = net.double().eval()
    reset_(double)
    with torch.no_grad():
        return double(x.double())  # type: ignore[no-any-return]


def small(seed: int = 0) -> tuple[nn.Sequential, Tensor, Tensor]:
    torch.manual_seed(seed)
    net = spiking_cnn((1, 8, 8), 10, channels=[8, 10], hidden=12, v_threshold=0.2)
    assert isinstance(net, nn.Sequential)
    return net, torch.rand(3, 6, 1, 8, 8), torch.arange(6)


def three_layers(*between: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 4, bias=False), *between, neuron.IFNode(v_threshold=0.1), nn.Linear(4, 2))


def by_rows(group: Any) -> Tensor:
    rows: Tensor = group[0].dep.target.module.weight.detach()[group[0].idxs].abs().flatten(1).sum(1)
    return rows


def make(net: nn.Module, x: Tensor, **options: Any) -> SpikingDynamicPruner:
    given: dict[str, Any] = {"interval": 1, "iterative_steps": 2, "ignored_layers": [list(net.modules())[-1]]}
    given |= {"optimizer": sgd(net)} | options
    return SpikingDynamicPruner(net, x, given.pop("importance", l2()), **given)


# ------------------------------------------------------------------------------------------------ worked by hand


def test_the_least_important_units_go_and_the_one_masked_before_comes_back_in_place_of_the_worst() -> None:
    net = three_layers()
    rows = torch.tensor([[2.0, 2.0], [2.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    net[0].weight.data.copy_(rows)
    reads = net[2].weight.detach().clone()
    pruner = make(
        net, torch.rand(5, 2), importance=by_rows, schedule="linear", swap=0.5, growth="random", pruning_ratio=0.5
    )
    first = pruner.step()
    # 4 - int(4 * 0.75) = 1 is masked; of the 3 kept, floor(1.5) = 1 would be exchanged, and none was masked before.
    assert first is not None
    assert pruner.masks["0"].tolist() == [True, True, True, False]
    assert (first.kept, first.born, first.dropped, first.ratio) == ({"0": 3}, {"0": 0}, {"0": 1}, 0.25)
    second = pruner.step()
    # 2 are kept: the best survives, and unit 3, masked before, returns rather than 1 or 2, dropped just now.
    assert second is not None
    assert pruner.masks["0"].tolist() == [True, False, False, True]
    assert (second.kept, second.born, second.dropped, second.ratio) == ({"0": 2}, {"0": 1}, {"0": 2}, 0.5)
    assert pruner.regrown == second.regrown == 1
    assert torch.equal(net[0].weight, torch.tensor([[2.0, 2.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))
    assert torch.equal(net[2].weight, reads)
    assert pruner.finish().channels == {"0": [1, 2]}
    assert net[0].weight.shape == (2, 2)
    assert torch.equal(net[2].weight, reads[:, [0, 3]])


def test_growth_is_the_norm_of_the_dense_gradient_of_a_units_rows() -> None:
    net = three_layers()
    net[0].weight.data.copy_(torch.tensor([[9.0, 0.0], [8.0, 0.0], [0.1, 0.0], [0.2, 0.0]]))
    pruner = make(net, torch.rand(5, 2), importance=by_rows, schedule="constant", swap=0.5, iterative_steps=2)
    pruner.step()
    assert pruner.masks["0"].tolist() == [True, True, False, False]
    net[0].weight.grad = torch.tensor([[0.0, 0.0], [7.0, 7.0], [3.0, 4.0], [5.1, 0.0]])
    pruner.step()
    assert pruner.masks["0"].tolist() == [True, False, False, True]  # |(3, 4)| = 5 < 5.1; unit 1 has only now left


def test_ties_go_to_the_lowest_index() -> None:
    net = three_layers()
    net[0].weight.data.fill_(1.0)
    pruner = make(net, torch.rand(5, 2), importance=by_rows, schedule="constant", swap=None)
    pruner.step()
    assert pruner.masks["0"].tolist() == [True, True, False, False]


# ------------------------------------------------------------------------------------------------ oracles


@pytest.mark.parametrize("scope", [{}, {"global_pruning": True}, {"global_pruning": True, "isomorphic": True}])
def test_without_a_swap_the_choices_are_those_of_torch_prunings_iterative_pruning(scope: dict[str, Any]) -> None:
    net, x, _ = small()
    theirs = copy.deepcopy(net)
    cutter = SpikingPruner(theirs, x, l2(), pruning_ratio=0.6, iterative_steps=3, ignored_layers=[theirs.fc2], **scope)
    for _ in range(3):
        cutter.step()
    pruner = make(
        net, x, pruning_ratio=0.6, iterative_steps=3, schedule="linear", swap=None, ignored_layers=[net.fc2], **scope
    )
    for _ in range(3):
        pruner.step()
    pruner.finish()
    ours, other = net.state_dict(), theirs.state_dict()
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in other.items()}
    assert all(torch.equal(ours[name], other[name]) for name in ours)


def test_a_masked_channel_has_the_gradient_it_would_have_if_its_norm_handed_on_its_input() -> None:
    net, (x, y) = conv_net(), batch()
    pruner = make(net, x, schedule="constant", iterative_steps=1, ignored_layers=[net[7]])
    train(net, torch.optim.SGD(net.parameters(), lr=0.01), pruner, 1, x, y)
    masked = ~pruner.masks["0"]
    assert int(masked.sum()) == 3
    reset_(net)
    twin = copy.deepcopy(net)
    for module in twin.modules():
        module._forward_hooks.clear()
    for each in (net, twin):
        reset_(each)
        each.zero_grad()
    F.cross_entropy(net(x).mean(0), y).backward()
    current = twin[0](x)
    shown = twin[1](current)
    shown = torch.where(masked[:, None, None], current - current.detach(), shown)
    F.cross_entropy(twin[2:](shown).mean(0), y).backward()
    assert torch.allclose(net[0].weight.grad, twin[0].weight.grad, atol=1e-7)
    assert bool((net[0].weight.grad[masked].abs().sum((1, 2, 3)) > 0).all())


# ------------------------------------------------------------------------------------------------ properties


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.75])
@pytest.mark.parametrize("scope", [False, True])
def test_counts_are_exact_at_every_update(ratio: float, scope: bool) -> None:
    net, x, y = small()
    optimizer = sgd(net)
    pruner = make(
        net, x, optimizer=optimizer, pruning_ratio=ratio, global_pruning=scope, iterative_steps=4, swap=0.4,
        schedule="cubic", ignored_layers=[net.fc2],
    )  # fmt: skip
    sizes = {"conv1": 8, "conv2": 10, "fc1": 12}
    before = pruner.masks
    for number, update in enumerate(train(net, optimizer, pruner, 4, x, y), start=1):
        now = ratio * (1 - (1 - number / 4) ** 3)
        if scope:
            assert sum(update.kept.values()) == int(30 * (1 - now))
        else:
            assert update.kept == {name: int(size * (1 - now)) for name, size in sizes.items()}
        for name in sizes:
            assert update.kept[name] == int(before[name].sum()) + update.born[name] - update.dropped[name]
        before = dict.fromkeys(sizes, torch.empty(0)) | {name: torch.ones(update.kept[name]) for name in sizes}
    assert pruner.ratio == pytest.approx(1 - sum(update.kept.values()) / 30)
    assert bool(pruner.finish()) == (ratio > 0)
    assert net.conv1.out_channels == update.kept["conv1"]
    assert net.conv2.out_channels == update.kept["conv2"]
    assert net.fc1.out_features == update.kept["fc1"]


@pytest.mark.parametrize("how", [torch.optim.SGD, torch.optim.AdamW])
def test_masked_units_are_exactly_zero_after_every_step_and_have_gradients(how: Callable[..., Any]) -> None:
    net, x, y = small()
    optimizer = how(net.parameters(), lr=0.01, weight_decay=0.1)
    pruner = make(net, x, optimizer=optimizer, schedule="constant", iterative_steps=1, ignored_layers=[net.fc2])
    for step in range(4):
        reset_(net)
        F.cross_entropy(net(x).mean(0), y).backward()
        if step:
            assert float(net.conv2.weight.grad[~pruner.masks["conv2"]].abs().max()) > 0
        optimizer.step()
        pruner.step()
        optimizer.zero_grad()
        for number, name in enumerate(("conv1", "conv2", "fc1"), start=1):
            dead = ~pruner.masks[name]
            norm = net.get_submodule(f"norm{number}")
            for tensor in (net.get_submodule(name).weight, norm.weight, norm.bias):
                assert not tensor[dead].any()
                assert tensor[~dead].any()


def test_equal_seeds_give_equal_masks_and_other_seeds_others() -> None:
    def masks(seed: int, caller: int) -> list[Tensor]:
        net, x, y = small()
        torch.manual_seed(caller)  # where the caller's own generator is does not matter
        optimizer = sgd(net)
        pruner = make(
            net, x, optimizer=optimizer, importance=tp.importance.RandomImportance(), growth="random", seed=seed,
            iterative_steps=3, swap=0.5, ignored_layers=[net.fc2],
        )  # fmt: skip
        train(net, optimizer, pruner, 3, x, y)
        return list(pruner.masks.values())

    first, again, other = masks(0, 1), masks(0, 2), masks(1, 1)
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


def test_an_update_leaves_the_callers_random_numbers_alone() -> None:
    net, x, _ = small()
    pruner = make(net, x, importance=tp.importance.RandomImportance(), growth="random", ignored_layers=[net.fc2])
    before = torch.get_rng_state()
    assert pruner.step()
    assert torch.equal(before, torch.get_rng_state())


def test_a_resumed_run_is_bit_equal(tmp_path: Path) -> None:
    def start() -> tuple[nn.Sequential, Tensor, Tensor, Any, SpikingDynamicPruner]:
        net, x, y = small()
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        pruner = make(
            net, x, optimizer=optimizer, growth="random", interval=2, iterative_steps=4, swap=0.5, schedule="linear",
            ignored_layers=[net.fc2],
        )  # fmt: skip
        return net, x, y, optimizer, pruner

    net, x, y, optimizer, pruner = start()
    train(net, optimizer, pruner, 5, x, y)
    reset_(net)
    save(tmp_path / "c.safetensors", {"pruner": pruner.state_dict(), "model": dict(net.state_dict())})
    moments = copy.deepcopy(optimizer.state_dict())
    rest = train(net, optimizer, pruner, 4, x, y)

    twin, x, y, second, resumed = start()
    stored = load(tmp_path / "c.safetensors")
    twin.load_state_dict(stored["model"])
    second.load_state_dict(moments)
    resumed.load_state_dict(stored["pruner"])
    assert train(twin, second, resumed, 4, x, y) == rest
    assert sum(each.regrown for each in rest) > 0
    assert resumed.regrown == pruner.regrown
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), twin.state_dict().values(), strict=True))
    assert str(resumed.finish()) == str(pruner.finish())


# ------------------------------------------------------------------------------------------------ end to end


@pytest.mark.parametrize("family", ["spiking_cnn", "sew_resnet18"])
def test_units_regrow_during_training_and_the_survivors_compute_the_same_once_cut(family: str) -> None:
    torch.manual_seed(0)
    if family == "spiking_cnn":
        net, x, y = small()
        last: Any = net.fc2
    else:
        net, x, y = sew_resnet((1, 8, 8), 10, v_threshold=0.5), torch.rand(2, 2, 1, 8, 8), torch.tensor([3, 7])
        last = net.fc
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.7  # a few steps are all its statistics have
    optimizer = sgd(net)
    pruner = make(net, x, optimizer=optimizer, iterative_steps=3, swap=0.4, ignored_layers=[last])
    sizes = {each.name: each.count for each in pruner.units}
    updates = train(net, optimizer, pruner, 4, x, y)
    assert len(updates) == 3
    assert sum(update.regrown for update in updates) == pruner.regrown > 0
    assert updates[-1].kept == {name: size // 2 for name, size in sizes.items()}
    assert pruner.ratio == updates[-1].ratio == 0.5

    reset_(net)
    optimizer.zero_grad()
    masked, density = copy.deepcopy(net), pruner.density
    weights = sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    with following(net, optimizer):
        removed = pruner.finish()
    assert all(len(gone) * 2 == removed.before[name] for name, gone in removed.channels.items())
    left = sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    assert density == left / weights < 0.35
    one, other = outputs(masked, x), outputs(copy.deepcopy(net), x)
    assert float((one - other).abs().max()) <= 1e-9 * float(one.abs().max())
    assert float(one.std(dim=1).max()) > 1e-4  # the network tells its inputs apart
    assert not any(module._forward_hooks for module in net.modules())

    before = {name: value.clone() for name, value in net.named_parameters()}
    reset_(net)
    F.cross_entropy(net.train()(x).mean(0), y).backward()
    optimizer.step()
    assert any(not torch.equal(before[name], value) for name, value in net.named_parameters())


# ------------------------------------------------------------------------------------------------ kinds of networks


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.spike1 = neuron.LIFNode(v_threshold=0.2)
        self.grouped = nn.Conv2d(8, 12, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(12)
        self.spike2 = neuron.LIFNode(v_threshold=0.2)
        self.last = nn.Conv2d(12, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.spike2(self.norm(self.grouped(self.spike1(self.first(x)))))).mean((2, 3))[None]  # type: ignore[no-any-return]


class Joined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(1, 4, 3, padding=1)
        self.right = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(10)
        self.spike = neuron.LIFNode(v_threshold=0.2)
        self.last = nn.Conv2d(10, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.left(x), self.right(x)], 1)
        return self.last(self.spike(self.norm(joined))).mean((2, 3))[None]  # type: ignore[no-any-return]


class Plain(nn.Module):
    """A norm without scale and shift, and a neuron that fires by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8, affine=False, momentum=0.7)
        self.spike1 = neuron.IFNode(v_threshold=0.1)
        self.second = nn.Conv2d(8, 6, 3, padding=1)
        self.spike = neuron.IFNode(v_threshold=-0.55, v_reset=-0.5)
        self.last = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.spike(self.second(self.spike1(self.norm(self.first(x)))))).mean((2, 3))[None]  # type: ignore[no-any-return]


class Parallel(nn.Module):
    """Neurons that see all steps at once, and two norms that know of time."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            layer.Conv2d(1, 8, 3, padding=1),
            layer.ThresholdDependentBatchNorm2d(1.0, 1.0, 8),
            neuron.PSN(4),
            layer.Conv2d(8, 6, 3, padding=1),
            layer.TemporalEffectiveBatchNorm2d(4, 6),
            neuron.LIFNode(v_threshold=0.2),
        )
        self.last = layer.Conv2d(6, 3, 1)
        functional.set_step_mode(self, "m")
        nn.init.constant_(self.net[2].bias, -0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.net(x[None].repeat(4, 1, 1, 1, 1))).mean((3, 4))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [Grouped, Joined, Plain, Parallel])
def test_other_structures_stay_silent_where_masked_and_compute_the_same_once_cut(kind: type[Any]) -> None:
    torch.manual_seed(1)
    net, x, y = kind(), torch.rand(4, 1, 5, 5) * 2, torch.tensor([0, 1, 2, 0])
    optimizer = sgd(net)
    pruner = make(net, x, optimizer=optimizer, iterative_steps=3, swap=0.5, growth="random", ignored_layers=[net.last])
    train(net, optimizer, pruner, 8, x, y)
    assert pruner.regrown > 0
    reset_(net)
    optimizer.zero_grad()
    masked, density = copy.deepcopy(net), pruner.density
    before = sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d))
    pruner.finish()
    assert density == sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d)) / before
    one, other = outputs(masked, x), outputs(net, x)
    assert float(one.std(dim=1).max()) > 1e-4
    assert torch.allclose(one, other, rtol=0, atol=1e-12)
    expected = {"Grouped": [4, 6], "Joined": [2, 3], "Plain": [4, 3], "Parallel": [4, 3]}[kind.__name__]
    assert [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)][:2] == expected


def test_with_channel_groups_the_same_channel_of_each_group_goes() -> None:
    torch.manual_seed(0)
    net = Grouped()
    pruner = make(net, torch.rand(2, 1, 5, 5), schedule="constant", iterative_steps=1, ignored_layers=[net.last])
    pruner.step()
    gone = pruner.finish().channels
    for name, size in (("first", 4), ("grouped", 6)):
        half = len(gone[name]) // 2
        assert [channel - size for channel in gone[name][half:]] == gone[name][:half]


def test_a_copy_of_a_masked_model_is_silent_too() -> None:
    torch.manual_seed(0)
    net, x = Plain(), torch.rand(4, 1, 5, 5)
    pruner = make(net, x, schedule="constant", iterative_steps=1, ignored_layers=[net.last])
    pruner.step()
    copied = copy.deepcopy(net)
    spikes = copied.spike(copied.second(x.expand(4, 8, 5, 5)))
    assert not spikes[:, ~pruner.masks["second"]].any()
    assert spikes[:, pruner.masks["second"]].any()


def halved(net: nn.Sequential, x: Tensor, y: Tensor) -> tuple[Any, SpikingDynamicPruner]:
    """A pruner after one update of two, by which half of all units are masked and others are yet to be."""
    optimizer = sgd(net)
    pruner = make(net, x, optimizer=optimizer, growth="random", schedule="constant", swap=0.5, ignored_layers=[net.fc2])
    for number in (1, 2, 3):
        net.get_submodule(f"norm{number}").bias.data.fill_(1.5)  # all fire
    train(net, optimizer, pruner, 1, x, y)
    reset_(net)
    return optimizer, pruner


def test_a_copy_goes_on_computing_what_it_did_while_the_original_is_masked_on() -> None:
    net, x, y = small()
    optimizer, pruner = halved(net, x, y)
    best, before = copy.deepcopy(net), pruner.masks
    first = outputs(copy.deepcopy(best), x)
    train(net, optimizer, pruner, 1, x, y)
    assert any(not torch.equal(before[name], mask) for name, mask in pruner.masks.items())
    assert torch.equal(outputs(best, x), first)
    pruner.close()
    assert torch.equal(outputs(best.float(), x), first)


def test_a_whole_model_can_be_written_and_read_while_it_is_masked() -> None:
    net, x, y = small()
    optimizer, pruner = halved(net, x, y)
    first = outputs(copy.deepcopy(net), x)
    read = pickle.loads(pickle.dumps(net))
    train(net, optimizer, pruner, 1, x, y)
    assert torch.equal(outputs(read, x), first)


@pytest.mark.parametrize("wrap", [nn.DataParallel, partial(torch.compile, backend="eager")])
def test_a_wrapped_model_is_pruned_as_the_model_inside(wrap: Callable[[nn.Module], Any]) -> None:
    results = []
    for wrapper in (wrap, lambda net: net):
        net, x, y = small()
        model = wrapper(net)
        optimizer = sgd(net)
        pruner = make(model, x, optimizer=optimizer, iterative_steps=3, swap=0.5, ignored_layers=[net.fc2])
        updates = train(net, optimizer, pruner, 4, x, y)
        with following(model, optimizer):
            results.append((updates, pruner.masks, pruner.density, str(pruner.finish()), net.state_dict()))
    (updates, masks, density, removed, state), plain = results
    assert updates == plain[0]
    assert set(masks) == {"conv1", "conv2", "fc1"}
    assert all(torch.equal(mask, plain[1][name]) for name, mask in masks.items())
    assert (density, removed) == plain[2:4]
    assert all(torch.equal(value, plain[4][name]) for name, value in state.items())


# ------------------------------------------------------------------------------------------------ options


def test_a_group_keeps_what_a_largest_ratio_leaves_it_and_others_make_up_for_it() -> None:
    net, x, _ = small()
    net.conv1.weight.data *= 1e-6
    net.norm1.weight.data *= 1e-6
    pruner = make(
        net, x, importance=tp.importance.MagnitudeImportance(p=2, normalizer=None), global_pruning=True,
        pruning_ratio=0.5, max_pruning_ratio=0.75, schedule="constant", iterative_steps=1, ignored_layers=[net.fc2],
    )  # fmt: skip
    update = pruner.step()
    assert update is not None
    assert update.kept["conv1"] == 2
    assert sum(update.kept.values()) == 15


def test_channels_are_rounded_to_the_multiple_below_but_not_to_none() -> None:
    for multiple, kept in ((4, [4, 4, 4]), (5, [5, 5, 5])):  # of 4, 5 and 6
        net, x, _ = small()
        options: dict[str, Any] = {"schedule": "constant", "iterative_steps": 1, "ignored_layers": [net.fc2]}
        update = make(net, x, round_to=multiple, pruning_ratio=0.5, **options).step()
        assert update is not None
        assert [update.kept[name] for name in ("conv1", "conv2", "fc1")] == kept


def test_a_ratio_of_its_own_holds_for_one_module() -> None:
    net, x, _ = small()
    pruner = make(
        net, x, pruning_ratio_dict={net.conv2: 0.8}, schedule="constant", iterative_steps=1, ignored_layers=[net.fc2]
    )
    update = pruner.step()
    assert update is not None
    assert update.kept == {"conv1": 4, "conv2": int(10 * (1 - 0.8)), "fc1": 6}


def test_a_group_without_scores_is_left_alone_and_named() -> None:
    net, x, _ = small()

    def only_wide(group: Any) -> Tensor | None:
        return by_rows(group) if len(group[0].idxs) != 8 else None

    pruner = make(net, x, importance=only_wide, schedule="constant", iterative_steps=1, ignored_layers=[net.fc2])
    update = pruner.step()
    assert update is not None
    assert update.left_out == ("conv1",)
    assert update.kept == {"conv1": 8, "conv2": 5, "fc1": 6}


def test_what_the_optimizer_kept_of_a_regrown_unit_is_forgotten_and_its_norm_is_new() -> None:
    net, x, y = small()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    pruner = make(
        net, x, optimizer=optimizer, iterative_steps=2, schedule="constant", swap=0.4, ignored_layers=[net.fc2]
    )
    train(net, optimizer, pruner, 1, x, y)
    before = pruner.masks["conv2"]
    train(net, optimizer, pruner, 1, x, y)
    born = pruner.masks["conv2"] & ~before
    assert int(born.sum()) == 2
    for word in ("exp_avg", "exp_avg_sq"):
        moments = optimizer.state[net.conv2.weight][word]
        assert not moments[born].any()
        assert moments[~born].flatten(1).any(1).all()
    assert net.norm2.weight[born].tolist() == net.norm2.running_var[born].tolist() == [1.0, 1.0]
    assert net.norm2.bias[born].tolist() == net.norm2.running_mean[born].tolist() == [0.0, 0.0]


def test_an_update_of_a_skipped_step_waits_for_the_next() -> None:
    net, x, _ = small()
    pruner = make(net, x, interval=2, swap=None, ignored_layers=[net.fc2])
    assert [pruner.step(applied=number != 2) is None for number in (1, 2, 3, 4)] == [True, True, False, False]
    other = make(small()[0], x, iterative_steps=3, swap=None, ignored_layers=[nn.Linear])
    # Three in a row are skipped: none of the updates is lost.
    assert [other.step(applied=number > 3) is None for number in range(1, 8)] == [True] * 3 + [False] * 3 + [True]


def test_dead_gradients_do_not_count_in_clipping() -> None:
    net, x, _ = small()
    pruner = make(net, x, schedule="constant", iterative_steps=1, ignored_layers=[net.fc2])
    assert pruner.by_parameter() == {}
    pruner.step()
    masks = pruner.by_parameter()
    assert set(masks) == {net.get_parameter(f"{name}.weight") for name in ("conv1", "conv2", "fc1")} | {
        net.get_parameter(f"norm{number}.{word}") for number in (1, 2, 3) for word in ("weight", "bias")
    }
    assert torch.equal(masks[net.conv2.weight][:, 0, 0, 0], pruner.masks["conv2"])


@pytest.mark.parametrize("name", ["MagnitudeImportance", "TaylorImportance", "LAMPImportance", "FPGMImportance",
                                  "BNScaleImportance", "HessianImportance", "SpikingImportance"])  # fmt: skip
def test_importances_of_torch_pruning_and_ours_choose_units(name: str) -> None:
    net, x, y = small()
    importance = SpikingImportance() if name == "SpikingImportance" else getattr(tp.importance, name)()
    if name == "SpikingImportance":
        calibrate(net, [x])
    optimizer = sgd(net)
    pruner = make(net, x, importance=importance, optimizer=optimizer, iterative_steps=3, ignored_layers=[net.fc2])
    if name == "HessianImportance":
        importance.zero_grad()
        reset_(net)
        for loss in F.cross_entropy(net(x).mean(0), y, reduction="none"):
            net.zero_grad()
            loss.backward(retain_graph=True)
            importance.accumulate_grad(net)
    train(net, optimizer, pruner, 4, x, y)
    assert {each: int(mask.sum()) for each, mask in pruner.masks.items()} == {"fc1": 6, "conv2": 5, "conv1": 4}
    reset_(net)
    optimizer.zero_grad()
    masked = copy.deepcopy(net)
    pruner.finish()
    assert torch.allclose(outputs(masked, x), outputs(net, x), rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------------------ refusals


def test_what_cannot_be_cut_in_the_end_is_refused_before_training_and_the_model_is_as_it_was() -> None:
    net, x, _ = small()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(CannotCut, match=r"'fc2'.*ignored_layers"):
        make(net, x, ignored_layers=[])
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pruning_ratio": 0.95}, "would keep 0 of its 12 units"),
        ({"interval": 0}, "interval=0"),
        ({"iterative_steps": 0}, "iterative_steps=0"),
        ({"newborn_v": "mean"}, "newborn_v='mean'"),
        ({"growth": "gradeint"}, "did you mean 'gradient'"),
        (
            {"growth": "gradient_per_synop"},
            "growth .gradient_per_synop. needs macs, synops, which is not recorded for units",
        ),
        ({"schedule": "cubik"}, "did you mean 'cubic'"),
        ({"prune_num_heads": True}, "attention heads"),
        ({"iterative_pruning_ratio_scheduler": lambda ratio, steps: [-0.1] * (steps + 1)}, "must stay in"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    net, x, _ = small()
    with pytest.raises(Exception, match=words) as caught:
        make(net, x, **({"ignored_layers": [net.fc2]} | options))
    assert caught.type.__module__ == "snnsl_plugin.errors"


def test_an_optimizer_that_cannot_serve_is_refused() -> None:
    net, x, _ = small()
    with pytest.raises(BadOption, match="does not hold the weight of layer 'conv2'"):
        make(net, x, optimizer=torch.optim.SGD([net.conv1.weight, net.fc1.weight], lr=0.1), ignored_layers=[net.fc2])
    with pytest.raises(BadOption, match="momentum"):
        make(net, x, growth="momentum", optimizer=sgd(net, momentum=0.0), ignored_layers=[net.fc2])


def test_a_model_without_any_group_is_refused() -> None:
    net, x, _ = small()
    with pytest.raises(NothingRemoved, match="no group of channels"):
        make(net, x, ignored_layers=[nn.Conv2d, nn.Linear])


def test_an_importance_that_says_nothing_or_nonsense_is_refused() -> None:
    net, x, _ = small()
    said: list[tuple[Callable[[Any], Tensor | None], type[Exception], str]] = [
        (lambda group: None, NothingRemoved, "None for all 3 groups"),
        (lambda group: torch.zeros(3), BadOption, "one number for each channel"),
        (lambda group: torch.full((len(group[0].idxs),), torch.nan), Diverged, "is NaN"),
    ]
    for importance, error, words in said:
        pruner = make(net, x, importance=importance, ignored_layers=[net.fc2])
        with pytest.raises(error, match=words):
            pruner.step()
        pruner.close()


def test_growth_by_gradient_without_a_gradient_says_when_to_call() -> None:
    net, x, _ = small()
    pruner = make(net, x, swap=0.3, ignored_layers=[net.fc2])
    assert pruner.step()  # nothing is masked yet that could come back
    with pytest.raises(MissingStatistic, match=r"after loss.backward\(\) and before optimizer.zero_grad\(\)"):
        pruner.step()


def test_finishing_early_and_stepping_interactively_are_refused() -> None:
    net, x, _ = small()
    pruner = make(net, x, interval=3, swap=None, ignored_layers=[net.fc2])
    with pytest.raises(BadOption, match="take 6 steps"):
        pruner.finish()
    with pytest.raises(BadOption, match="finish"):
        pruner.step(interactive=True)
    for _ in range(6):
        pruner.step()
    pruner.finish()
    for again in (pruner.step, pruner.finish):
        with pytest.raises(BadOption, match="this pruner is done"):
            again()


def test_a_state_of_another_pruner_is_refused() -> None:
    net, x, _ = small()
    state = make(net, x, ignored_layers=[net.fc2]).state_dict()
    other = make(net, x, seed=5, interval=7, ignored_layers=[net.fc2])
    with pytest.raises(BadCheckpoint, match="interval 1 instead of 7; seed 0 instead of 5"):
        other.load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"swap": 0.5}, r"\(swap \[0.1[^;]*instead of \[0.5, 0.5\]\)"),
        ({"swap": None}, r"\(swap \[[^;]*instead of None\)"),
        ({"growth": "random"}, r"\(growth '[^;]*gradient[^;]*instead of '[^;]*random[^;]*'\)"),
        # Of 8, 10 and 12 units, as many are kept at 1/8 + 7/8 p^(...) as by default: only the way differs.
        ({"schedule": lambda done: 0.876 if done < 1 else 1.0}, r"\(schedule \[[^;]*instead of \[[^;]*0.876[^;]*\]\)"),
        ({"importance": tp.importance.TaylorImportance()}, r"importance '\w*Magnitude\w*' instead of '\w*Taylor\w*'"),
        ({"importance": by_rows}, "importance '[^;]*' instead of 'by_rows'"),
        ({"newborn_v": "layer_mean"}, "newborn_v 'zero' instead of 'layer_mean'"),
    ],
)
def test_a_state_made_with_other_choices_is_refused_by_their_name(options: dict[str, Any], words: str) -> None:
    net, x, _ = small()
    state = make(net, x, ignored_layers=[net.fc2]).state_dict()
    net, x, _ = small()
    make(net, x, ignored_layers=[net.fc2]).load_state_dict(state)
    net, x, _ = small()
    with pytest.raises(BadCheckpoint, match=words):
        make(net, x, ignored_layers=[net.fc2], **options).load_state_dict(state)


def test_what_is_no_state_at_all_is_refused_and_nothing_is_changed() -> None:
    net, x, _ = small()
    pruner = make(net, x, swap=None, ignored_layers=[net.fc2])
    pruner.step()
    before = pruner.masks
    fresh = make(small()[0], x, swap=None, ignored_layers=[nn.Linear]).state_dict()
    for state in ({}, {"options": {}}, {word: fresh[word] for word in fresh if word != "generators"}):
        with pytest.raises(BadCheckpoint, match="no state of a SpikingDynamicPruner.*lacks.*generators"):
            pruner.load_state_dict(state)
    assert pruner.step_number == pruner.current_step == 1
    assert all(torch.equal(before[name], mask) for name, mask in pruner.masks.items())


@pytest.mark.parametrize("scope", [False, True])
def test_a_multiple_by_which_no_group_could_lose_a_channel_is_refused(scope: bool) -> None:
    net, x, _ = small()
    given: dict[str, Any] = {"global_pruning": scope, "ignored_layers": [net.fc2]}
    for multiple in (64, 12):
        with pytest.raises(BadOption, match=f"round_to={multiple} .*'conv1' has 8") as caught:
            make(net, x, round_to=multiple, **given)
        assert "'conv2' has 10" in str(caught.value)
        assert "'fc1' has 12" in str(caught.value)
    assert not any(module._forward_hooks for module in net.modules())
    make(net, x, round_to=64, pruning_ratio=0.0, **given).close()  # nothing is asked
    make(net, x, round_to=11, **given).close()  # fc1 can lose one
    with pytest.raises(BadOption, match=r"\('conv1' has 8\)"):  # fc1 could, and is not asked
        make(net, x, round_to=8, pruning_ratio=0.0, pruning_ratio_dict={net.conv1: 0.5}, **given)


class Upwards(nn.Module):
    """A transposed convolution that writes what another layer reads, alone or with a convolution."""

    def __init__(self, added: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.spike1 = neuron.IFNode(v_threshold=0.1)
        self.up = nn.ConvTranspose2d(6, 4, 3, padding=1)
        self.beside = nn.Conv2d(6, 4, 1) if added else None
        self.spike2 = neuron.IFNode(v_threshold=0.1)
        self.last = nn.ConvTranspose2d(4, 1, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.spike1(self.first(x))
        x = self.up(x) if self.beside is None else self.beside(x) + self.up(x)
        return self.last(self.spike2(x)).flatten(1)[None]  # type: ignore[no-any-return]


@pytest.mark.parametrize("added", [False, True])
def test_transposed_convolutions_are_refused_unless_ignored(added: bool) -> None:
    torch.manual_seed(0)
    net, x = Upwards(added), torch.rand(3, 1, 5, 5)
    with pytest.raises(BadOption, match="'up' is a ConvTranspose2d: transposed convolutions.*ignored_layers"):
        make(net, x, ignored_layers=[])
    assert not any(module._forward_hooks for module in net.modules())
    pruner = make(net, x, swap=None, ignored_layers=[net.up])  # the last one has a single channel, which stays
    while pruner.current_step < 2:
        pruner.step()
    reset_(net)
    masked = copy.deepcopy(net)
    assert list(pruner.finish().channels) == ["first"]
    assert torch.allclose(outputs(masked, x), outputs(net, x), rtol=0, atol=1e-12)


def test_units_that_only_an_embedding_writes_are_refused() -> None:
    net = nn.Sequential(nn.Embedding(5, 8), neuron.IFNode(v_threshold=0.1), nn.Linear(8, 2))
    with pytest.raises(BadOption, match="'0' is a Embedding: only convolutions and linear layers.*ignored_layers"):
        make(net, torch.randint(5, (2, 3)), importance=by_rows, root_module_types=[nn.Embedding])


def test_as_a_context_it_takes_its_hooks_away() -> None:
    net, x, _ = small()
    with make(net, x, ignored_layers=[net.fc2]):
        assert any(module._forward_hooks for module in net.modules())
    assert not any(module._forward_hooks for module in net.modules())


def test_layers_in_multi_step_containers_are_masked_on_their_own_channel_axis() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.SeqToANNContainer(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)),
        neuron.LIFNode(v_threshold=0.2, step_mode="m"),
        layer.SeqToANNContainer(nn.Flatten(), nn.Linear(6 * 16, 5)),
    )
    x, y = batch()
    optimizer = sgd(net)
    pruner = make(net, x, optimizer=optimizer, iterative_steps=3, swap=0.5, ignored_layers=[net[2][1]])
    train(net, optimizer, pruner, 4, x, y)
    assert pruner.regrown > 0
    reset_(net)
    optimizer.zero_grad()
    masked = copy.deepcopy(net)
    pruner.finish()
    assert net[2][1].in_features == 3 * 16
    assert torch.allclose(outputs(masked, x), outputs(net, x), rtol=0, atol=1e-12)
