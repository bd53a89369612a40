"""What a rule learns beside the weights: in any loop, scaled or not, resumed, and left in the model."""

import copy
import os

import pytest
import torch
from networks import batch, conv_net
from spikingjelly.activation_based import layer, neuron
from torch import nn

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.compaction.compact import compact
from snnsl_plugin.compaction.export import export_program
from snnsl_plugin.errors import BadOption, MissingStatistic, NothingMatched
from snnsl_plugin.metrics.measure import measure
from snnsl_plugin.metrics.paths import live_paths
from snnsl_plugin.training import checkpoint
from snnsl_plugin.training.guides.self import self as earlier_self
from snnsl_plugin.training.losses import cross_entropy
from snnsl_plugin.training.neuron_masks import NeuronMask, expect_masks_, masked_neurons, put_on_
from snnsl_plugin.training.pruner import DynamicPruner

OPTIONS = {"price": 1e-6, "score_lr": 0.01, "total_steps": 20}


def fresh(**options):
    model = conv_net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    return model, optimizer, DynamicPruner(model, optimizer, "upr", **OPTIONS | options)


def train(made, steps):
    model, optimizer, pruner = made
    events = []
    for _ in range(steps):
        x, y = batch(pruner.step_number)
        reset_(model.train())
        cross_entropy(model(x), y).backward()
        optimizer.step()
        events.append(pruner.step())
        optimizer.zero_grad()
    return [event for event in events if event]


def answer(model, seed=99):
    model.eval()
    reset_(model)
    with torch.no_grad():
        out = model(batch(seed)[0])
    reset_(model)
    return out


def test_a_mask_of_neurons_by_hand() -> None:
    net = nn.Sequential(nn.Identity(), neuron.IFNode(v_threshold=0.5))
    handle = put_on_(net[1], NeuronMask(torch.tensor([[True, False], [False, True]])))
    assert net(torch.ones(1, 2, 2)).tolist() == [[[1.0, 0.0], [0.0, 1.0]]]
    assert list(net.state_dict()) == ["1.neuron_mask.mask"]
    assert copy.deepcopy(net)(torch.ones(1, 2, 2)).sum() == 2
    handle.remove()
    assert net(torch.ones(1, 2, 2)).sum() == 4


def test_soft_while_it_trains_and_hard_while_it_is_evaluated() -> None:
    model, _, pruner = made = fresh()
    train(made, 3)
    seen = {}
    model[2].register_forward_hook(lambda module, args, out: seen.update({module.training: out.detach()}))
    answer(model)
    model.train()(batch(99)[0])
    assert set(seen[False].unique().tolist()) == {0.0, 1.0}
    assert len(seen[True].unique()) > 2
    assert float(seen[True].max()) < 1.0
    mask = pruner.neuron_masks["2"]
    assert not bool(seen[False][..., ~mask].any())
    assert bool((seen[True] != 0)[..., ~mask].any())
    pruner.finish()


def test_until_the_end_nothing_is_decided_then_masks_stay_and_what_is_left_goes_on_learning() -> None:
    model, _, pruner = made = fresh()
    events = train(made, 20)
    assert [event.step for event in events] == [10, 16]
    assert events[0].dropped == {"0": 0, "4": 0, "7": 0}
    assert events[1].density == pruner.density
    shares = {name: float(pruner.masks[f"{name}.weight"].double().mean()) for name in ("0", "4", "7")}
    assert events[1].layers == pytest.approx(shares)
    assert sum(events[1].dropped.values()) == sum(int((~mask).sum()) for mask in pruner.masks.values())
    assert pruner.score_optimizer() is None
    masks = {name: mask.clone() for name, mask in (pruner.masks | pruner.neuron_masks).items()}
    before = model[4].weight.detach().clone()
    train(made, 2)
    after = model.eval()[4].weight.detach()
    assert all(torch.equal(mask, (pruner.masks | pruner.neuron_masks)[name]) for name, mask in masks.items())
    assert torch.equal(after != 0, masks["4.weight"])
    assert not torch.equal(before, after)


def test_finished_it_computes_the_same_and_a_fresh_network_can_load_it(tmp_path) -> None:
    model, _, pruner = made = fresh()
    train(made, 20)
    expected, x = answer(model), batch(99)[0]
    assert not torch.equal(expected, answer(conv_net()))
    kept = {name: mask.clone() for name, mask in pruner.masks.items()}
    before = measure(model, [batch(99)], masks=kept), live_paths(model, x[:1, :1], kept)
    pruner.finish()
    pruner.finish()
    assert torch.equal(answer(model), expected)
    assert masked_neurons(model) == ["2", "5"]
    checkpoint.save(tmp_path / "c.safetensors", {"model": model.state_dict()})
    state, other = checkpoint.load(tmp_path / "c.safetensors")["model"], conv_net(1)
    expect_masks_(other, state)
    other.load_state_dict(state)
    assert torch.equal(answer(other), expected)
    for each in (model, other):
        assert measure(each, [batch(99)]).synops_per_sample == before[0].synops_per_sample > 0
        paths = live_paths(each, x[:1, :1])
        assert (paths.connections, paths.forward_connections) == (before[1].connections, before[1].forward_connections)
        assert paths.connections < sum(int(mask.sum()) for mask in kept.values())


def mlp():
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Linear(4, 6), neuron.IFNode(v_threshold=0.1), layer.Linear(6, 5), neuron.IFNode(), layer.Linear(5, 2)
    )
    for module in net:
        module.step_mode = "m"
    return net


@pytest.mark.parametrize("seed", range(5))
def test_masked_neurons_take_their_connections_along_as_zero_weights_around_them_would(seed) -> None:
    drawn = torch.Generator().manual_seed(seed)
    masked, zeros = mlp(), mlp()
    for place in (1, 3):
        mask = torch.rand(masked[place - 1].out_features, generator=drawn) < 0.6
        put_on_(masked[place], NeuronMask(mask))
        with torch.no_grad():
            zeros[place + 1].weight[:, ~mask] = 0.0
    x, y = torch.rand(3, 8, 4, generator=drawn), torch.zeros(8, dtype=torch.long)
    assert torch.equal(masked(x), zeros(x))
    for net in (masked, zeros):
        reset_(net)
    one, other = live_paths(masked, x[:1, :1]), live_paths(zeros, x[:1, :1])
    assert one.connections == other.connections
    assert one.forward_connections == other.forward_connections
    ours, theirs = measure(masked, [(x, y)]), measure(zeros, [(x, y)])
    assert ours.synops_per_sample == theirs.synops_per_sample
    assert ours.macs_per_sample == theirs.macs_per_sample


@pytest.mark.parametrize("steps", [7, 16, 18])
def test_resumed_from_plain_state_it_goes_on_bit_for_bit(tmp_path, steps) -> None:
    whole, half, again = fresh(), fresh(), fresh()
    train(whole, 20)
    train(half, steps)
    state = {"model": half[0].state_dict(), "optimizer": half[1].state_dict(), "pruner": half[2].state_dict()}
    checkpoint.save(tmp_path / "c.safetensors", state)
    saved = checkpoint.load(tmp_path / "c.safetensors")
    for part, word in zip(again, state, strict=True):
        part.load_state_dict(saved[word])
    assert torch.equal(answer(again[0]), answer(half[0]))
    train(again, 20 - steps)
    for name, value in whole[0].state_dict().items():
        assert torch.equal(value, again[0].state_dict()[name]), name
    assert all(torch.equal(mask, again[2].neuron_masks[name]) for name, mask in whole[2].neuron_masks.items())
    half[2].load_state_dict(half[2].state_dict())  # its own state changes nothing
    train(half, 20 - steps)
    assert torch.equal(answer(half[0]), answer(whole[0]))


def test_a_copy_has_masks_of_its_own_and_the_guide_self_takes_them_along() -> None:
    model, _, _ = made = fresh()
    train(made, 5)
    expected = answer(model)
    guide = earlier_self(since="5it")
    guide.observe(model, 5)
    train(made, 9)
    assert not torch.equal(answer(model), expected)
    assert torch.equal(answer(guide._guide.network), expected)
    again = earlier_self(since="5it")
    again.load_state_dict(guide.state_dict(), model)
    assert torch.equal(answer(again._guide.network), expected)


def test_a_skipped_step_moves_no_score_and_leaves_no_gradient_behind() -> None:
    made = model, optimizer, pruner = fresh()
    train(made, 2)
    scores = pruner.state_dict()["states"]["4"]["score"].detach().clone()
    reset_(model)
    cross_entropy(model(batch(5)[0]), batch(5)[1]).backward()
    assert pruner._states["4"]["score"].grad is not None
    optimizer.zero_grad()
    pruner.step(applied=False)
    assert torch.equal(pruner.state_dict()["states"]["4"]["score"], scores)
    assert pruner._states["4"]["score"].grad is None


def scaled(scaler, *, unscale=True, precision=torch.bfloat16, steps=4):
    model, optimizer, pruner = fresh()
    for _ in range(steps):
        x, y = batch(pruner.step_number)
        reset_(model)
        with torch.autocast("cpu", dtype=precision):
            loss = cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        if unscale and (scores := pruner.score_optimizer()):
            scaler.unscale_(scores)
        scaler.step(optimizer)
        scaler.update()
        pruner.step()
        optimizer.zero_grad()
    return {name: state["score"].clone() for name, state in pruner.state_dict()["states"].items()}


def test_a_scaled_loss_moves_scores_as_one_that_is_not() -> None:
    off = torch.amp.GradScaler("cpu", enabled=False)
    plain = scaled(off)
    by_power_of_two = scaled(torch.amp.GradScaler("cpu", init_scale=1024.0))
    assert all(torch.allclose(score, by_power_of_two[name], atol=1e-6) for name, score in plain.items())


def test_a_loss_in_float16_whose_scores_are_not_scaled_back_is_refused() -> None:
    with pytest.raises(BadOption, match=r"scaler.unscale_\(pruner.score_optimizer\(\)\)"):
        scaled(torch.amp.GradScaler("cpu"), unscale=False, precision=torch.float16)


def test_batches_that_accumulate_charge_the_price_once() -> None:
    def owed(parts: int):
        model, optimizer, pruner = fresh(price=1.0)
        for _ in range(parts):
            reset_(model)
            (model(batch()[0]).sum() * 0.0).backward()
        found = []
        learner = pruner.score_optimizer()
        learner.register_step_pre_hook(
            lambda opt, *_: found.extend(p.grad.clone() for p in opt.param_groups[0]["params"])
        )
        optimizer.step()
        pruner.step()
        return found

    assert all(torch.equal(one, two) for one, two in zip(owed(1), owed(3), strict=True))
    assert float(owed(1)[0].min()) == pytest.approx(16 * 5 / 4)  # 16 sites, beta 5, sigmoid' 1/4


def test_without_neurons_only_weights_are_masked() -> None:
    model, _, pruner = made = fresh(neurons=False)
    train(made, 20)
    assert pruner.neuron_masks == {}
    expected = answer(model)
    pruner.finish()
    assert masked_neurons(model) == []
    assert torch.equal(answer(model), expected)
    small = compact(model, pruner.masks, batch()[0][:, :1])
    assert torch.allclose(answer(small.model), expected, atol=1e-5)


def test_what_cannot_follow_masks_of_single_neurons_says_so_and_a_program_can(tmp_path) -> None:
    model, _, pruner = made = fresh()
    train(made, 20)
    pruner.finish()
    with pytest.raises(BadOption, match="neurons=False"):
        compact(model.eval(), pruner.masks, batch()[0][:, :1])
    export_program(tmp_path / "net.pt2", model, batch()[0])  # proves that it computes the same
    assert os.path.getsize(tmp_path / "net.pt2")


def test_a_network_without_spiking_neurons_or_that_was_never_called_or_was_moved_is_refused() -> None:
    plain = nn.Linear(4, 2)
    with pytest.raises(NothingMatched, match="neurons=False"):
        DynamicPruner(plain, torch.optim.SGD(plain.parameters(), lr=0.1), "upr", total_steps=10)
    with pytest.raises(MissingStatistic, match="call the model"):
        fresh()[2].step()
    model, _, pruner = fresh()
    with pytest.raises(BadOption, match="move it first"):
        model.double()(batch()[0].double())
    made = model, _, pruner = fresh()
    train(made, 1)
    reset_(model)
    model.double()(batch()[0].double()).sum().backward()
    with pytest.raises(BadOption, match="move it first"):
        pruner.step()
