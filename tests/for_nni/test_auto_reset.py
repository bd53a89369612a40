"""Neurons forget where NNI's pipeline says nothing about it; and a training that fails leaves nothing behind."""

import nni
import pytest
import torch
from nni.compression import TorchEvaluator
from nni.compression.base.wrapper import ModuleWrapper
from nni.compression.pruning import AGPPruner, LevelPruner
from spiking_pipelines import network
from torch import nn

from snnsl_plugin.anatomy import neurons, reset_
from snnsl_plugin.errors import BadOption
from snnsl_plugin.for_nni import SpikingDynamicPruner
from snnsl_plugin.training.losses import cross_entropy

STEPS = 6
WEIGHTS = [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.7}]


def pictures(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(8, 1, 6, 6, generator=generator), torch.randint(0, 5, (8,), generator=generator)


def of_one_call(step, model):
    """The model takes the whole sample at once, or loops over time itself."""
    x, y = pictures(step)
    return nn.functional.cross_entropy(model(x), y)


def of_three_calls(step, model):
    """The loop over time is outside the model."""
    x, y = pictures(step)
    return cross_entropy(torch.stack([model(x) for _ in range(3)]), y)


class Stepwise(nn.Module):
    """One step of time a call; `training_step` may also run `net` alone."""

    def __init__(self):
        super().__init__()
        self.net = network("snn_s")

    def forward(self, x):
        net = self.net
        x = net.pool(net.act2(net.bn2(net.conv2(net.act1(net.bn1(net.conv1(x)))))))
        return net.fc(net.flatten(x))


def trained(model, training_step, auto_reset, *, every=1, between=lambda model: None, head=lambda pruner: pruner):
    """The weights after training; `between` is called between two training steps, as an evaluation is."""

    def train(model, optimizer, training_step, scheduler, max_steps, max_epochs):
        for step in range(max_steps):
            for part in range(every):
                training_step(step * every + part, model).backward()
                between(model)
            optimizer.step()
            optimizer.zero_grad()

    evaluator = TorchEvaluator(train, nni.trace(torch.optim.SGD)(model.parameters(), lr=0.1), training_step)
    pruner = SpikingDynamicPruner(model, WEIGHTS, evaluator, interval_steps=2, total_times=3, auto_reset=auto_reset)
    head = head(pruner)
    head.compress(STEPS, None)
    if auto_reset != "never":
        assert_untouched(model)
    head.unwrap_model()
    return [parameter.detach().clone() for parameter in model.parameters()]


def by_hand(training_step):
    def step(batch, model):
        reset_(model)
        return training_step(batch, model)

    return step


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def remembers(model):
    return any(isinstance(neuron.v, torch.Tensor) for neuron in neurons(model).values())


def assert_untouched(model):
    assert hooks(model) == 0
    assert not remembers(model), "a membrane with a graph cannot be copied"


def assert_same(one, other):
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


@pytest.fixture(params=["m, forward", "s loops inside, forward", "s loops inside, step", "s looped outside, step"])
def pipeline(request):
    """How a model is built, its training step, and the reset that is right for it."""
    build = {
        "m, forward": (lambda: network("snn_m"), of_one_call, "forward"),
        "s loops inside, forward": (lambda: network("snn_s"), of_one_call, "forward"),
        "s loops inside, step": (lambda: network("snn_s"), of_one_call, "step"),
        "s looped outside, step": (Stepwise, of_three_calls, "step"),
    }
    return build[request.param]


def test_it_trains_as_if_the_training_step_had_reset_the_model(pipeline):
    build, step, reset = pipeline
    assert_same(trained(build(), step, reset), trained(build(), by_hand(step), "never"))


def test_without_it_training_fails(pipeline):
    build, step, _ = pipeline
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        trained(build(), step, "never")


def test_each_of_two_accumulated_training_steps_starts_afresh(pipeline):
    build, step, reset = pipeline
    assert_same(trained(build(), step, reset, every=2), trained(build(), by_hand(step), "never", every=2))


def test_an_evaluation_between_two_training_steps_leaves_no_trace_in_training(pipeline):
    build, step, reset = pipeline

    @torch.no_grad()
    def evaluation(model):
        model.eval()
        for seed in (90, 91):
            step(seed, model)
        model.train()

    assert_same(trained(build(), step, reset, between=evaluation), trained(build(), by_hand(step), "never"))


def test_an_evaluation_starts_afresh_and_with_forward_each_of_its_batches(pipeline):
    build, step, reset = pipeline
    said = []

    @torch.no_grad()
    def evaluation(model):
        model.eval()
        said.append([step(90, model) for _ in range(2)])
        reset_(model)
        said[-1].append(step(90, model))
        reset_(model)
        model.train()

    trained(build(), step, reset, between=evaluation)
    assert len(said) == STEPS
    for first, second, fresh in said:
        assert torch.equal(first, fresh)
        if reset == "forward":
            assert torch.equal(second, fresh)


def test_step_also_knows_an_evaluation_that_runs_only_a_part_of_the_model():
    @torch.no_grad()
    def evaluation(model):
        model.eval()
        model.net.act1(model.net.bn1(model.net.conv1(pictures(90)[0])))
        model.train()

    one = trained(Stepwise(), of_three_calls, "step", between=evaluation)
    assert_same(one, trained(Stepwise(), by_hand(of_three_calls), "never"))


def test_forward_says_so_where_a_training_step_goes_past_the_model():
    model = nn.Sequential(network("snn_m"))
    with pytest.raises(BadOption, match="auto_reset='forward' saw no call of the model.*set auto_reset='step'"):
        trained(model, lambda step, model: of_one_call(step, model[0]), "forward")
    assert_untouched(model)


def test_the_schedule_of_agp_may_hold_it():
    def agp(pruner):
        return AGPPruner(pruner, interval_steps=2, total_times=3)

    one = trained(network("snn_m"), of_one_call, "forward", head=agp)
    assert_same(one, trained(network("snn_m"), by_hand(of_one_call), "never", head=agp))


@pytest.mark.parametrize("held", [False, True], ids=["alone", "held by AGPPruner"])
@pytest.mark.parametrize("reset", ["forward", "step"])
def test_a_training_function_that_fails_leaves_no_hooks_and_no_patches(reset, held):
    model = network("snn_s")
    last = [3, STEPS]

    def train(model, optimizer, training_step, scheduler, max_steps, max_epochs):
        for step in range(last[0]):
            optimizer.zero_grad()
            training_step(step, model).backward()
            optimizer.step()
        if last.pop(0) < max_steps:
            training_step(0, model)
            raise KeyboardInterrupt

    evaluator = TorchEvaluator(train, nni.trace(torch.optim.SGD)(model.parameters(), lr=0.1), of_one_call)
    options = {"criterion": "spike_saliency", "sample_every": 1, "auto_reset": reset}
    pruner = SpikingDynamicPruner(model, WEIGHTS, evaluator, interval_steps=2, total_times=3, **options)
    head = AGPPruner(pruner, 2, 3) if held else pruner
    with pytest.raises(KeyboardInterrupt):
        head.compress(STEPS, None)
    assert_untouched(model)
    assert evaluator.model is None
    assert evaluator._training_step is of_one_call
    assert "train" not in vars(evaluator)
    assert pruner.dynamic.step_number == 3
    # The masks of the one update so far are in force, and a new try begins anew.
    assert all((mask["weight"] == 0).any() for mask in head.get_masks().values())
    head.compress(STEPS, None)
    assert pruner.dynamic.step_number == STEPS
    assert_untouched(model)


def test_an_option_that_training_cannot_meet_leaves_no_hooks_either():
    model = network("snn_m")
    evaluator = TorchEvaluator(lambda *_: None, nni.trace(torch.optim.SGD)(model.parameters(), lr=0.1), of_one_call)
    pruner = SpikingDynamicPruner(model, WEIGHTS, evaluator, 2, 3, growth="momentum", auto_reset="forward")
    with pytest.raises(BadOption, match="needs an optimizer with momentum"):
        pruner.compress(STEPS, None)
    assert hooks(model) == 0


def test_no_layer_call_empties_the_cache_of_cuda_as_every_one_of_nni_does(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append(1))
    ours, theirs = network("snn_s"), network("snn_s")
    evaluator = TorchEvaluator(lambda *_: None, nni.trace(torch.optim.SGD)(ours.parameters(), lr=0.1), of_one_call)
    SpikingDynamicPruner(ours, WEIGHTS, evaluator)
    LevelPruner(theirs, WEIGHTS)
    assert any(isinstance(module, ModuleWrapper) for module in ours.modules())
    of_one_call(0, ours)
    assert len(calls) == 0
    of_one_call(0, theirs)
    assert len(calls) == 9, "three layers at three steps of time"
