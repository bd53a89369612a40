"""Where a pruner meets models, optimizers and loops that it was not written for."""

import copy

import pytest
import torch
from networks import batch, conv_net
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from snnsl_plugin.anatomy import reset_, weight_layers
from snnsl_plugin.core import distributions, schedules
from snnsl_plugin.errors import BadOption, Disconnected
from snnsl_plugin.training.losses import cross_entropy
from snnsl_plugin.training.pruner import DynamicPruner

HALF = schedules.constant(value=0.5)
RAMP = schedules.linear(first=1.0, last=0.5)


def pruner_of(model: nn.Module, optimizer=None, **options) -> DynamicPruner:
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return DynamicPruner(model, optimizer, **({"every": "1it", "until": "9it", "density": RAMP} | options))


def test_weights_that_cannot_be_pruned_while_they_train_are_refused() -> None:
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(BadOption, match="layers '0' and '1' share one weight"):
        pruner_of(tied)
    frozen = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    frozen[0].requires_grad_(False)
    with pytest.raises(BadOption, match="layer '0' is frozen"):
        pruner_of(frozen)
    pruner_of(frozen, exclude=["0"], density=schedules.linear(first=1.0, last=0.8))
    elsewhere = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    with pytest.raises(BadOption, match="the optimizer does not hold the weight of layer '1'"):
        pruner_of(elsewhere, torch.optim.SGD(elsewhere[0].parameters(), lr=0.1))


def test_a_bare_layer_is_a_model_too() -> None:
    model = nn.Linear(4, 4)
    pruner = pruner_of(model)
    assert list(pruner.masks) == ["weight"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler imports what torch deprecates
def test_names_are_those_of_the_model_inside_its_wrappers() -> None:
    for wrap in (nn.DataParallel, torch.compile):
        assert list(weight_layers(wrap(nn.Sequential(nn.Linear(2, 2))))) == ["0"]


def test_a_step_that_the_optimizer_skipped_counts_but_its_gradients_do_not() -> None:
    model = conv_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    pruner = pruner_of(model, optimizer, criterion="fisher", every="2it", sample_every=10)
    x, y = batch()
    for applied in (True, False, True):
        reset_(model)
        cross_entropy(model(x), y).backward()
        if not applied:
            model[0].weight.grad.fill_(float("inf"))
        event = pruner.step(applied=applied)
        optimizer.zero_grad()
    assert pruner.step_number == 3
    assert event is not None  # the update due at step 2 came with step 3, which recorded what it needs


def test_the_loss_scaler_of_a_run_tells_the_pruner_about_an_overflow(monkeypatch) -> None:
    from snnsl_plugin.training import loop

    told: list[bool] = []
    model = conv_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = pruner_of(model, optimizer, every="1it", until="3it", total_steps=3)
    step = pruner.step
    monkeypatch.setattr(pruner, "step", lambda *, applied=True: told.append(applied) or step(applied=applied))

    class Overflows(loop.GradScaler):
        def step(self, *args, **named):
            super().step(*args, **named)
            self.met = getattr(self, "met", 0) + 1

        def get_scale(self) -> float:
            return 1.0 if getattr(self, "met", 0) < 2 or not getattr(self, "updated", False) else 0.5

        def update(self, *args) -> None:
            self.updated = self.met == 2

    class Parts:
        def __len__(self) -> int:
            return 3

        def epoch(self, generator):
            return iter([batch(i) for i in range(3)])

    scaler = Overflows("cpu", enabled=False)
    list(loop.fit(model, Parts(), Parts(), optimizer, loop.Training(epochs=1), pruner=pruner, scaler=scaler))
    assert told == [True, False, True]


def test_clipping_a_rule_with_effective_weights_counts_every_gradient() -> None:
    model = conv_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stds = DynamicPruner(model, optimizer, "stds", until="9it", threshold=schedules.sine(last=0.1))
    assert stds.by_parameter() == {}


def test_a_deep_copy_of_the_model_is_not_counted_and_copies_no_optimizer() -> None:
    model = conv_net()
    pruner = pruner_of(model, criterion="spike_saliency", sample_every=1)
    x, _ = batch()
    model(x)
    slots = pruner._statistics.of("0")["pre_slots"]
    reset_(model)
    other = copy.deepcopy(model)
    other(x)
    assert pruner._statistics.of("0")["pre_slots"] == slots
    assert pruner._living.example is not None
    hook = next(iter(other._forward_pre_hooks.values()))
    assert hook is next(iter(model._forward_pre_hooks.values()))


def test_a_block_ends_with_no_hook_left() -> None:
    model = conv_net()
    with pruner_of(model, criterion="spike_saliency"):
        assert model[0]._forward_pre_hooks
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_an_input_by_keyword_is_seen() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, *, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x)

    model = Named()
    pruner = pruner_of(model, paths=True)
    model(x=torch.ones(2, 4)).sum().backward()
    assert pruner._living.example.shape == (1, 4)


def test_looking_for_paths_leaves_membrane_potentials_alone() -> None:
    model = conv_net()
    pruner = pruner_of(model, criterion=lambda each: each.weight.abs() * 0 + each.weight[0, 0].numel(), until="2it")
    x, y = batch()
    cross_entropy(model(x), y).backward()
    before = model[2].v.clone()
    pruner.step()
    assert torch.equal(model[2].v, before)


def nets() -> dict[str, nn.Module]:
    """Four ways to put an affine norm between a layer and its neuron."""
    torch.manual_seed(0)
    spike = lambda: neuron.IFNode(v_threshold=0.1, step_mode="m")  # noqa: E731
    head = [layer.Flatten(step_mode="m"), layer.Linear(64, 3, step_mode="m")]

    def conv() -> nn.Module:
        return layer.Conv2d(1, 4, 3, padding=1, step_mode="m")

    return {
        "norm": nn.Sequential(conv(), layer.BatchNorm2d(4, step_mode="m"), spike(), *head),
        "pool, norm": nn.Sequential(
            conv(), layer.AvgPool2d(3, 1, 1, step_mode="m"), layer.BatchNorm2d(4, step_mode="m"), spike(), *head
        ),
        "container": nn.Sequential(
            layer.SeqToANNContainer(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)), spike(), *head
        ),
        "two containers": nn.Sequential(
            layer.SeqToANNContainer(nn.Conv2d(1, 4, 3, padding=1)),
            layer.SeqToANNContainer(nn.BatchNorm2d(4)),
            spike(),
            *head,
        ),
        "group norm": nn.Sequential(
            layer.SeqToANNContainer(nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4)), spike(), *head
        ),
    }


@pytest.mark.parametrize("name", list(nets()))
def test_a_channel_without_input_says_nothing_whatever_norm_follows(name: str) -> None:
    model = nets()[name]
    for each in model.modules():
        if isinstance(each, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.constant_(each.bias, 5.0)
    conv_name = next(iter(weight_layers(model)))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def first_row_first(each):
        scores = torch.ones_like(each.weight)
        if each.name == conv_name:
            scores[0] = 0.0
        return scores

    density = schedules.linear(first=1.0, last=0.7)
    pruner = pruner_of(model, optimizer, criterion=first_row_first, distribution=distributions.uniform, density=density)
    x, y = torch.rand(2, 4, 1, 4, 4), torch.tensor([0, 1, 2, 0])
    for _ in range(9):
        functional.reset_net(model)
        cross_entropy(model(x), y).backward()
        optimizer.step()
        pruner.step()
        optimizer.zero_grad()
    assert not pruner.masks[f"{conv_name}.weight"][0].any()
    model.eval()
    functional.reset_net(model)
    spoken = model[:-2](x)
    assert not spoken[:, :, 0].any()
    assert spoken[:, :, 1:].any()


def test_a_channel_that_loses_its_last_connection_is_silent_before_anyone_looks() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Linear(8, 6), neuron.IFNode(v_threshold=0.1), layer.Linear(6, 4), neuron.IFNode(), layer.Linear(4, 2)
    )
    functional.set_step_mode(net, "m")
    with torch.no_grad():
        net[0].weight.abs_()
        net[0].weight[2] = 0.02  # small enough to go, large enough to fire
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    density = schedules.linear(first=1.0, last=0.5)
    options = {"distribution": "uniform", "every": "1it", "until": "1it", "total_steps": 1}
    pruner = DynamicPruner(net, optimizer, density=density, **options)
    net(torch.ones(3, 2, 8)).sum().backward()
    optimizer.step()
    pruner.step()
    assert not pruner.masks["0.weight"][2].any()


def test_a_bias_that_is_out_of_reach_is_an_error() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.last = (
                nn.Linear(4, 4, bias=False),
                nn.BatchNorm1d(4),
                nn.Linear(4, 4, bias=False),
            )
            nn.init.ones_(self.norm.bias)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(
                self.norm(self.first(x) * 1.0)
            )  # a new tensor between layer and norm: no trace of its writer

    model = Scaled()

    def first_row_first(each):
        scores = torch.ones_like(each.weight)
        if each.name == "first":
            scores[0] = 0.0
        return scores

    pruner = pruner_of(model, criterion=first_row_first, distribution=distributions.uniform)
    with pytest.raises(Disconnected, match="channels that no input reaches still act on layer 'last'"):
        for _ in range(9):
            model(torch.rand(2, 4)).sum().backward()
            pruner.step()


def test_a_returning_channel_forgets_the_statistics_of_its_silence() -> None:
    model = nets()["norm"]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    want = {"dead": True}

    def criterion(each):
        scores = torch.ones_like(each.weight)
        if each.name == "0":
            scores[0] = 0.0 if want["dead"] else 2.0
        return scores

    pruner = pruner_of(
        model, optimizer, criterion=criterion, growth=criterion, distribution=distributions.uniform, start="1it",
        until="60it", density=lambda done: 0.7 if done < 0.9 else 0.8,
    )  # fmt: skip
    x, y = torch.rand(2, 4, 1, 4, 4), torch.tensor([0, 1, 2, 0])
    for number in range(55):
        want["dead"] = number < 50
        functional.reset_net(model)
        cross_entropy(model(x), y).backward()
        optimizer.step()
        pruner.step()
        optimizer.zero_grad()
        if not pruner.masks["0.weight"][0].any():
            low = float(model[1].running_var[0])
    assert low < 0.1
    assert pruner.masks["0.weight"][0].any()
    assert float(model[1].running_var[0]) > 0.5


def test_the_earlier_network_of_stds_keeps_its_own_threshold(tmp_path) -> None:
    from snnsl_plugin.training.guides.self import self as self_guide

    model = conv_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    pruner = DynamicPruner(model, optimizer, "stds", until="10it", threshold=schedules.linear(first=0.0, last=0.1))
    guide = self_guide(10, since="2it")
    x, y = batch()
    for step in range(1, 10):
        reset_(model)
        cross_entropy(model(x), y).backward()
        optimizer.step()
        pruner.step()
        guide.observe(model, step)
    held = {k: v for k, v in guide.state_dict()["network"].items() if k.endswith("threshold")}
    assert [round(float(v), 3) for v in held.values()] == [0.02] * 3
    again = self_guide(10, since="2it")
    again.load_state_dict(guide.state_dict(), model)
    assert torch.equal(again._guide.network[0].weight, guide._guide.network[0].weight)
    assert not torch.equal(again._guide.network[0].weight, model[0].weight)
