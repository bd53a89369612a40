"""Rates of channels, recorded for importances."""

import copy
import gc

import pytest
import torch
import torch.nn.functional as F
from networks import batch, conv_net
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from snnsl_plugin.errors import Diverged, MissingStatistic
from snnsl_plugin.for_torch_pruning import calibrate
from snnsl_plugin.for_torch_pruning.calibration import _KNOWN, follow, held, known, put_back


def firing(rows, step_mode="s"):
    """A layer and an IF neuron with threshold 1 and hard reset; row r sees its input times r."""
    linear = layer.Linear(1, len(rows), bias=False, step_mode=step_mode)
    linear.weight.data = torch.tensor(rows).view(-1, 1)
    return nn.Sequential(linear, neuron.IFNode(step_mode=step_mode))


def test_rates_worked_by_hand():
    model = firing([1.0, 0.5, 0.25, 0.0], "m")
    told = calibrate(model, [torch.ones(4, 3, 1)])  # an input of one half fires at every second of four steps
    assert told.outputs["1"].tolist() == [1.0, 0.5, 0.25, 0.0]
    assert told.inputs["0"].tolist() == [1.0]
    assert told.batches == 1
    spikes = known(model[1]).outputs
    assert spikes.counts.tolist() == [12, 6, 3, 0]
    assert spikes.slots == 12
    assert spikes.saturated.tolist() == [True, False, False, False]


def test_what_is_never_zero_is_not_saturated_unless_it_is_one_spike():
    model = firing([1.0], "m")
    calibrate(model, [torch.tensor([1.0, 0.5]).view(2, 1, 1)])
    spikes = known(model[0]).inputs
    assert spikes.rate.tolist() == [1.0]
    assert spikes.saturated.tolist() == [False]


def test_rates_are_sums_over_batches_and_not_means_of_their_means():
    model = firing([1.0], "m")
    told = calibrate(model, [torch.ones(2, 1, 1), torch.zeros(2, 3, 1)])
    assert told.outputs["1"].tolist() == [2 / 8]


def test_memory_is_reset_before_each_batch():
    model = firing([0.5], "m")
    told = calibrate(model, [torch.ones(1, 1, 1)] * 4)  # one step each: half a threshold never suffices
    assert told.outputs["1"].tolist() == [0.0]


class Looped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x_seq):
        return torch.stack([self.inner(x) for x in x_seq])


@pytest.mark.parametrize("seed", [0, 1])
def test_a_loop_over_single_steps_counts_as_the_same_net_in_multi_step_mode(seed):
    multi = conv_net(seed)
    single = copy.deepcopy(multi)
    functional.set_step_mode(single, "s")
    x, y = batch(seed)
    told, looped = calibrate(multi, [(x, y)]), calibrate(Looped(single), [(x, y)])
    assert told.outputs["2"].std() > 0
    for name, rate in told.outputs.items():
        assert torch.equal(looped.outputs[f"inner.{name}"], rate)
    for name, rate in told.inputs.items():
        assert torch.equal(looped.inputs[f"inner.{name}"], rate)


@pytest.mark.parametrize("sites", [(5,), (5, 6), (5, 6, 7)])
@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_channels_are_found_for_any_number_of_sites(sites, step_mode):
    node = neuron.IFNode(step_mode=step_mode)
    x = torch.zeros(*((4,) if step_mode == "m" else ()), 2, 3, *sites)
    x.select(-1 - len(sites), 1).fill_(2.0)
    assert calibrate(nn.Sequential(node), [x]).outputs["0"].tolist() == [0.0, 1.0, 0.0]


def test_modes_memories_hooks_gradients_and_statistics_stay_as_they_were():
    model, (x, y) = conv_net(), batch()
    model[1].eval()
    loss = F.cross_entropy(model(x).mean(0), y)
    loss.backward()
    grads = [p.grad.clone() for p in model.parameters()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    memory, training = model[2].v.clone(), [m.training for m in model.modules()]
    calibrate(model, [(x + 1, y)], loss=lambda out, labels: F.cross_entropy(out.mean(0), labels))
    assert torch.equal(model[2].v, memory)
    assert [m.training for m in model.modules()] == training
    assert all(torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), grads, strict=True))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_pass_that_fails_leaves_the_model_and_what_was_known():
    model, (x, _) = conv_net(), batch()
    calibrate(model, [x])
    before = held(model)
    model.train()
    with pytest.raises(RuntimeError, match="size of tensor"):
        calibrate(model, [x, torch.zeros(3, 2, 1, 9, 9)])
    assert held(model) == before
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_gradients_are_the_means_over_batches_of_those_that_backward_leaves():
    model, twin = conv_net(), conv_net()
    batches = [batch(0), batch(1)]

    def loss(out, labels):
        return F.cross_entropy(out.mean(0), labels)

    told = calibrate(model, batches, loss=loss)
    twin.eval()
    losses, grads = [], []
    for x, y in batches:
        functional.reset_net(twin)
        twin.zero_grad()
        value = loss(twin(x), y)
        value.backward()
        losses.append(float(value.detach()))
        grads.append(twin[4].weight.grad.clone())
    mean, square = known(model[4]).gradients["weight"]
    assert torch.allclose(mean, (grads[0] + grads[1]) / 2)
    assert torch.allclose(square, (grads[0] ** 2 + grads[1] ** 2) / 2)
    assert mean.abs().sum() > 0
    assert told.loss == pytest.approx(sum(losses) / 2)


def test_at_most_so_many_batches_are_taken():
    def endless():
        while True:
            yield torch.ones(2, 1, 1)

    assert calibrate(firing([1.0], "m"), endless(), batches=3).batches == 3


def test_a_neuron_of_ones_own_is_counted():
    class Own(nn.Module):
        def forward(self, x):
            return (x > 0.5).float()

    model = nn.Sequential(nn.Linear(2, 2), Own())
    assert list(calibrate(model, [torch.ones(1, 2)], neuron_types=(Own,)).outputs) == ["1"]


@pytest.mark.parametrize(
    ("loader", "loss", "says"),
    [([], None, "gave no batch"), ([torch.ones(1, 1, 1)], lambda out, y: out.sum(), "needs labels")],
)
def test_what_is_missing_is_named(loader, loss, says):
    with pytest.raises(MissingStatistic, match=says):
        calibrate(firing([1.0], "m"), loader, loss=loss)


def test_a_loss_that_is_not_finite_is_refused():
    with pytest.raises(Diverged, match="batch 1 is nan"):
        calibrate(firing([1.0], "m"), [(torch.ones(1, 1, 1), 0)], loss=lambda out, y: out.sum() * float("nan"))


def test_another_calibration_replaces_the_first():
    model = firing([1.0], "m")
    calibrate(model, [torch.ones(2, 1, 1)])
    calibrate(model, [torch.zeros(2, 1, 1)])
    assert known(model[1]).outputs.rate.tolist() == [0.0]


def test_what_is_known_follows_a_cut_and_can_be_put_back():
    model, (x, _) = conv_net(), batch()
    calibrate(model, [x])
    before = held(model)
    spikes = known(model[2]).outputs
    follow(model[2], [1, 4], reads=False)
    follow(model[4], [1, 4], reads=True)
    follow(model[4], [0], reads=False)  # nothing is known of the outputs of a layer
    assert known(model[2]).outputs.counts.tolist() == spikes.counts[[0, 2, 3, 5]].tolist()
    assert known(model[4]).inputs.rate.tolist() == before[model[4]].inputs.rate[[0, 2, 3, 5]].tolist()
    put_back(before)
    assert held(model) == before


def test_nothing_is_kept_of_models_that_are_gone_and_nothing_known_of_copies():
    gc.collect()
    count = len(_KNOWN)
    model = firing([1.0], "m")
    calibrate(model, [torch.ones(2, 1, 1)])
    assert len(_KNOWN) == count + 2
    assert known(copy.deepcopy(model)[1]).outputs is None
    del model
    gc.collect()
    assert len(_KNOWN) == count
