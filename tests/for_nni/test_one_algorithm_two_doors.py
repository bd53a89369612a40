"""From the same weights, statistics, seed and step, NNI's door and any loop's door give the same masks, bit for bit."""

import sys
from functools import partial

import networks
import nni
import pytest
import torch
from networks import batch, conv_net
from nni.compression import TorchEvaluator
from nni.compression.pruning import AGPPruner, LinearPruner
from spikingjelly.activation_based import neuron
from torch import nn

from snnsl_plugin import registry
from snnsl_plugin.anatomy import reset_, weight_name
from snnsl_plugin.core import schedules
from snnsl_plugin.errors import BadOption
from snnsl_plugin.for_nni import SpikingDynamicPruner
from snnsl_plugin.training.losses import cross_entropy
from snnsl_plugin.training.pruner import DynamicPruner
from snnsl_plugin.training.statistics import BEHIND, needed

STEPS, EVERY, TIMES = 22, 3, 6
OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-3),
    "adam": partial(torch.optim.Adam, lr=1e-2),
}
COMMON = {"swap": {"name": "cosine", "first": 0.4, "last": 0.0}, "sample_every": 2}


def ending_in_spikes():
    return nn.Sequential(*networks.conv_net(), neuron.IFNode(step_mode="m", v_threshold=0.2))


def loss_of(model, step):
    x, y = batch(step)
    reset_(model)
    return cross_entropy(model(x), y)


def in_a_loop(optimizer, *, start=0, **options):
    model = conv_net()
    made = OPTIMIZERS[optimizer](model.parameters())
    when = {"start": f"{start}it", "every": f"{EVERY}it", "until": f"{start + EVERY * TIMES}it"}
    pruner = DynamicPruner(model, made, total_steps=STEPS, **when, **options)
    history = []
    for step in range(STEPS):
        loss_of(model, step).backward()
        made.step()
        if pruner.step():
            history.append({name: mask.clone() for name, mask in pruner.masks.items()})
        made.zero_grad()
    pruner.finish()
    return model, history, pruner


def in_nni(optimizer, *, ratio=0.8, around=None, config=None, start=0, **options):
    """The same training under NNI; the masks after each update, read from NNI's own buffers."""
    model = conv_net()
    history = []

    def train(model, optimizer, training_step, scheduler, max_steps, max_epochs):
        for step in range(max_steps):
            training_step(step, model).backward()
            optimizer.step()
            update = step + 1 - start
            if update >= 0 and update % EVERY == 0 and update <= EVERY * TIMES:
                history.append({weight_name(n): m["weight"].bool() for n, m in pruner.get_masks().items()})
            optimizer.zero_grad()

    def training_step(step, model):
        return loss_of(model, step)

    made = OPTIMIZERS[optimizer]
    traced = nni.trace(made.func)(model.parameters(), **made.keywords)
    evaluator = TorchEvaluator(train, traced, training_step)
    entry = {"op_types": ["Conv2d", "Linear"]} | ({} if ratio is None else {"sparse_ratio": ratio})
    pruner = SpikingDynamicPruner(
        model, config or [entry], evaluator, interval_steps=EVERY, total_times=TIMES, start_step=start, **options
    )
    head = around(pruner, interval_steps=EVERY, total_times=TIMES) if around else pruner
    _, masks = head.compress(max_steps=STEPS, max_epochs=None)
    head.unwrap_model()
    return model, history, pruner, masks


def every_way():
    """Every rule of the registry, with every distribution where it shares a budget."""
    return [
        (rule, distribution)
        for rule in registry.names("rules")
        for distribution in (
            registry.names("distributions") if "distribution" in registry.options("rules", rule) else [None]
        )
    ]


def assert_equal_bit_by_bit(loop, host):
    (one, masks, pruner), (other, nni_masks, dynamic) = loop, host
    assert len(masks) == len(nni_masks) > 0
    for mine, theirs in zip(masks, nni_masks, strict=True):
        for name, mask in theirs.items():
            assert torch.equal(mask, mine[name]), name
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, dict(other.named_parameters())[name]), name
    assert pruner.born == dynamic.born
    assert pruner.density == dynamic.density


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("rule", "distribution"), every_way())
def test_masks_and_weights_are_equal_bit_by_bit(rule, distribution, optimizer):
    known = registry.options("rules", rule)
    ours, theirs = {}, {}
    if "density" in known:
        ours["density"] = schedules.cubic(first=1.0, last=0.2)
    if "swap" in known:
        ours["swap"], theirs["swap"] = schedules.cosine(first=0.4, last=0.0), COMMON["swap"]
    if "threshold" in known:
        ours["threshold"], theirs["threshold"] = schedules.sine(last=0.1), {"name": "sine", "last": 0.1}
    if "patience" in known:  # so that six updates show something
        ours |= {"patience": 1, "pressure": 20.0}
        theirs |= {"patience": 1, "pressure": 20.0}
    if distribution:
        ours["distribution"] = theirs["distribution"] = distribution
    if getattr(sys.modules[registry.get("rules", rule).__module__], "STRUCTURED", False):
        # the last layer's channels are classes
        ours["exclude"], theirs["config"] = ["7"], [{"op_names": ["0", "4"], "sparse_ratio": 0.8}]
        ours["density"] = schedules.cubic(first=1.0, last=1.0 - 0.8 * 486 / 646)
    model, history, pruner = in_a_loop(optimizer, rule=rule, sample_every=2, **ours)
    host, nni_history, theirs_pruner, last = in_nni(
        optimizer, rule=rule, ratio=0.8 if "density" in known else None, sample_every=2, **theirs
    )
    if "density" not in known:
        # The weights of such a rule move on between two updates, and after the last one.
        history = [pruner.masks]
        nni_history = [{weight_name(name): mask["weight"].bool() for name, mask in last.items()}]
    assert_equal_bit_by_bit((model, history, pruner), (host, nni_history, theirs_pruner.dynamic))


def test_rounds_that_rewind_and_see_fewer_steps_are_alike(monkeypatch):
    def longer(seed):
        x, y = networks.batch(seed)
        return x.repeat(2, 1, 1, 1, 1), y

    monkeypatch.setattr(sys.modules[__name__], "batch", longer)
    common = {"rule": "lth", "start": 2, "early_time": 0.6}
    loop = in_a_loop("adam", density=schedules.geometric(first=1.0, last=0.343), **common)
    *host, theirs, _ = in_nni("adam", ratio=0.657, schedule={"name": "geometric", "ratio": 0.343}, **common)
    assert_equal_bit_by_bit(loop, (*host, theirs.dynamic))
    assert [loop[2].round_position(step) for step in (0, 4, 5, 19, 20, 21)] == [0, 4 / 5, 2 / 5, 4 / 5, 2 / 4, 3 / 4]
    assert [theirs.dynamic.round_position(step) for step in (4, 19, 21)] == [4 / 5, 4 / 5, 3 / 4]


def test_a_training_that_ends_with_the_last_rewind_is_refused():
    with pytest.raises(BadOption, match="where the training ends, and the network is rewound there"):
        in_nni("adam", rule="lth", start=STEPS - EVERY * TIMES)


@pytest.mark.parametrize("criterion", registry.names("criteria"))
@pytest.mark.parametrize("growth", registry.names("growth"))
def test_every_criterion_and_growth_is_recorded_alike(criterion, growth, monkeypatch):
    asked = needed([registry.get("criteria", criterion), registry.get("growth", growth)])
    if asked & BEHIND:  # every layer must drive a neuron
        monkeypatch.setattr(sys.modules[__name__], "conv_net", ending_in_spikes)
    options = {"criterion": criterion, "growth": growth, "distribution": "erk", "sample_every": 2}
    swap = schedules.constant(value=0.3)
    loop = in_a_loop("adam", density=schedules.linear(first=1.0, last=0.3), swap=swap, **options)
    model, history, pruner, _ = in_nni("adam", ratio=0.7, schedule="linear", swap=swap, **options)
    assert pruner.dynamic.born > 0
    assert_equal_bit_by_bit(loop, (model, history, pruner.dynamic))


@pytest.mark.parametrize("schedule", [name for name in registry.names("schedules") if name != "constant"])
def test_every_schedule_is_found_by_name(schedule):
    # A share of a goal begins at 0, and has no ratio of its ends.
    ratio = {"ratio": 0.05} if "ratio" in registry.options("schedules", schedule) else {}
    density = registry.get("schedules", schedule)(first=1.0, last=0.2, **ratio)
    loop = in_a_loop("sgd", density=density, distribution="uniform")
    model, history, pruner, _ = in_nni("sgd", schedule=schedule, distribution="uniform", swap=None)
    assert_equal_bit_by_bit(loop, (model, history, pruner.dynamic))


def test_a_sparse_start_draws_the_same_random_masks():
    options = {"growth": "random", "distribution": "erk", "seed": 7}
    swap = schedules.constant(value=0.3)
    loop = in_a_loop("sgd", density=schedules.constant(value=0.2), swap=swap, **options)
    model, history, pruner, _ = in_nni("sgd", schedule="constant", swap=swap, **options)
    assert_equal_bit_by_bit(loop, (model, history, pruner.dynamic))
    assert pruner.dynamic.born > 0


def test_each_layers_own_swap_is_the_same():
    options = {"distribution": "erk", "swap": schedules.constant(value=0.5), "pq": 0.8}
    loop = in_a_loop("sgd", density=schedules.linear(first=1.0, last=0.3), **options)
    model, history, pruner, _ = in_nni("sgd", ratio=0.7, schedule="linear", **options)
    assert_equal_bit_by_bit(loop, (model, history, pruner.dynamic))
    plain = in_a_loop("sgd", density=schedules.linear(first=1.0, last=0.3), **options | {"pq": None})
    assert 0 < pruner.dynamic.born < plain[2].born


@pytest.mark.parametrize("around", [AGPPruner, LinearPruner])
def test_the_schedules_of_nni_hold_the_pruner(around):
    schedule = schedules.cubic if around is AGPPruner else schedules.linear
    loop = in_a_loop(
        "adam", density=schedule(first=1.0, last=0.2), distribution="erk", swap=schedules.constant(value=0.2)
    )
    model, history, pruner, _ = in_nni(
        "adam", around=around, distribution="erk", swap={"name": "constant", "value": 0.2}, schedule="sine"
    )
    assert_equal_bit_by_bit(loop, (model, history, pruner.dynamic))
