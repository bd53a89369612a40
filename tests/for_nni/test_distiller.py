import copy

import nni
import pytest
import torch
import torch.nn.functional as F
from networks import batch, conv_net
from nni.compression import TorchEvaluator
from nni.compression.pruning import AGPPruner, LevelPruner
from torch import nn

from snnsl_plugin import registry
from snnsl_plugin.anatomy import reset_
from snnsl_plugin.errors import BadOption, MissingStatistic, NothingMatched, UnknownName
from snnsl_plugin.for_nni import ReverseKDDistiller, SpikingDynamicPruner
from snnsl_plugin.for_nni.answers import labels_of, recorded
from snnsl_plugin.training.distiller import ReverseDistiller
from snnsl_plugin.training.losses import cross_entropy

STEPS = 8
LOGITS = [{"op_names": ["7"], "lambda": 0.3, "temperature": 3.0}]
WEIGHTS = [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.7}]
RUNS_A_NETWORK = {"teacher_predict": lambda batch, network: network(batch[0])}


def evaluator_of(model, training_step=None, lr=0.1, evaluate=None):
    def train(model, optimizer, training_step, scheduler, max_steps, max_epochs):
        for step in range(max_steps):
            if evaluate:
                evaluate(model)
            optimizer.zero_grad()
            training_step(batch(step), model).backward()
            optimizer.step()

    def own(batch, model):
        reset_(model)
        return cross_entropy(model(batch[0]), batch[1])

    return TorchEvaluator(train, nni.trace(torch.optim.SGD)(model.parameters(), lr=lr), training_step or own)


def given(name):
    """A guide of the registry and what it needs, for NNI's door and for any loop's."""
    if name in ("sparse", "dense", "permuted", "ann"):
        teacher = conv_net(5)
        options = {"teacher_model": copy.deepcopy(teacher), "guide": name} | RUNS_A_NETWORK
        return options, registry.get("guides", name)(teacher)
    if name == "self":
        return {"guide": {"name": name, "since": "3it"}} | RUNS_A_NETWORK, registry.get("guides", name)(since="3it")
    return {"guide": name}, registry.get("guides", name)()


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("name", registry.names("guides"))
def test_every_guide_teaches_under_nni_what_it_teaches_in_any_loop(name, per_step):
    options, guide = given(name)
    model = conv_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    distiller = ReverseDistiller(guide, temperature=3.0, weight=0.3, per_step=per_step)
    distiller.observe(model, 0)
    for step in range(STEPS):
        x, y = batch(step)
        reset_(model)
        distiller.loss(model(x), y, x=x).backward()
        optimizer.step()
        distiller.observe(model, step + 1)
        optimizer.zero_grad()

    def training_step(batch, model):
        reset_(model)
        return cross_entropy(model(batch[0]), batch[1], per_step=per_step)

    other = conv_net()
    config = [LOGITS[0] | {"per_step": per_step}]
    nni_distiller = ReverseKDDistiller(
        other, config, evaluator_of(other, training_step), origin_loss_lambda=0.7, **options
    )
    nni_distiller.compress(max_steps=STEPS, max_epochs=None)
    nni_distiller.unwrap_model()
    dense = conv_net()
    for (name, ours), theirs, start in zip(
        model.named_parameters(), other.parameters(), dense.parameters(), strict=True
    ):
        torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6, msg=name)
        assert not torch.equal(theirs, start)


def test_the_loss_of_the_virtual_teacher_is_the_one_worked_by_hand():
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    seen = []

    def training_step(batch, model):
        model(batch[0])
        return (model[0].weight * 0).sum() + 10.0

    def train(model, optimizer, training_step, *_):
        seen.append(float(training_step((x, y), model).detach()))
        optimizer.step()

    evaluator = TorchEvaluator(train, nni.trace(torch.optim.SGD)(model.parameters(), lr=0.1), training_step)
    config = [{"op_names": ["0"], "lambda": 0.5, "temperature": 1.0}]
    ReverseKDDistiller(model, config, evaluator, origin_loss_lambda=0.25, guide="virtual").compress(1, None)
    log_p = torch.tensor([1.0, 0.0]).log_softmax(0)
    guide = torch.tensor([0.99, 0.01])
    by_hand = 0.25 * 10.0 + 0.5 * float((guide * (guide.log() - log_p)).sum())
    assert seen == [pytest.approx(by_hand, abs=1e-5)]


@pytest.mark.parametrize("name", registry.names("guides"))
def test_a_pruner_and_a_distiller_work_together_in_both_orders(name):
    results = []
    for pruner_first in (True, False):
        options, _ = given(name)
        model = conv_net()
        evaluator = evaluator_of(model)
        own = {"interval_steps": 2, "total_times": 3, "swap": {"name": "constant", "value": 0.3}}
        if pruner_first:
            pruner = SpikingDynamicPruner(model, WEIGHTS, evaluator, **own)
            head = ReverseKDDistiller.from_compressor(pruner, LOGITS, origin_loss_lambda=0.7, **options)
        else:
            distiller = ReverseKDDistiller(model, LOGITS, evaluator, origin_loss_lambda=0.7, **options)
            head = pruner = SpikingDynamicPruner.from_compressor(distiller, WEIGHTS, **own)
        head.compress(max_steps=STEPS, max_epochs=None)
        head.unwrap_model()
        results.append((pruner.get_masks(), [p.detach().clone() for p in model.parameters()]))
        assert pruner.dynamic.born > 0
        assert pruner.dynamic.density == round(0.3 * 646) / 646
    (masks, weights), (other_masks, other_weights) = results
    assert all(torch.equal(masks[n]["weight"], other_masks[n]["weight"]) for n in masks)
    assert all(torch.equal(one, other) for one, other in zip(weights, other_weights, strict=True))


def test_it_teaches_beside_a_pruner_of_nni():
    model = conv_net()
    evaluator = evaluator_of(model)
    agp = AGPPruner(LevelPruner(model, WEIGHTS, evaluator), interval_steps=2, total_times=3)
    head = ReverseKDDistiller.from_compressor(agp, LOGITS, guide={"name": "self", "since": "2it"}, **RUNS_A_NETWORK)
    head.compress(max_steps=STEPS, max_epochs=None)
    assert int(agp.get_masks()["4"]["weight"].sum()) == 432 - int(432 * 0.7)


class Looping(nn.Module):
    """Single-step layers, called once a time step."""

    def __init__(self):
        super().__init__()
        self.net = conv_net()
        for module in self.net:
            module.step_mode = "s"

    def forward(self, x):
        return torch.stack([self.net(each) for each in x])


def test_a_network_that_loops_over_time_is_taught_at_every_step_not_at_the_last_only():
    losses = []
    for model, name in ((conv_net(), "7"), (Looping(), "net.7")):
        teacher = conv_net(5)

        def watched(batch, model, before=None):
            reset_(model)
            return cross_entropy(model(batch[0]), batch[1])

        evaluator = evaluator_of(model, watched)
        config = [{"op_names": [name], "link": "7", "per_step": True}]
        distiller = ReverseKDDistiller(model, config, evaluator, teacher, RUNS_A_NETWORK["teacher_predict"])
        distiller.compress(max_steps=3, max_epochs=None)
        distiller.unwrap_model()
        losses.append([p.detach().clone() for p in model.parameters()])
    for one, other in zip(*losses, strict=True):
        torch.testing.assert_close(one, other)


def test_a_validation_between_two_steps_leaves_no_trace():
    results = []
    for evaluate in (None, lambda model: validate(model)):
        model = conv_net()
        ReverseKDDistiller(model, LOGITS, evaluator_of(model, evaluate=evaluate), guide="virtual").compress(4, None)
        results.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def validate(model):
    model.eval()
    with torch.no_grad():
        for step in range(3):
            reset_(model)
            model(batch(100 + step)[0])
    reset_(model)
    model.train()


def test_the_teacher_is_reset_in_eval_mode_and_frozen():
    teacher = conv_net(5)
    teacher.train()
    before = copy.deepcopy(teacher.state_dict())
    answers = []

    def predict(batch, network):
        assert not network.training
        assert not torch.is_grad_enabled()
        answers.append(network(batch[0]))

    model = conv_net()
    distiller = ReverseKDDistiller(model, LOGITS, evaluator_of(model, lr=0.0), teacher, predict)
    distiller.compress(max_steps=2, max_epochs=None)
    distiller.unwrap_model()
    reset_(teacher)
    torch.testing.assert_close(answers[1], teacher.eval()(batch(1)[0]))
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in before.items())


def test_hidden_outputs_are_matched_by_squared_distance():
    model, teacher = conv_net(), conv_net(5)
    losses = []

    def training_step(batch, model):
        reset_(model)
        return model(batch[0]).sum() * 0

    def train(model, optimizer, training_step, *_):
        losses.append(float(training_step(batch(0), model).detach()))
        optimizer.step()

    evaluator = TorchEvaluator(train, nni.trace(torch.optim.SGD)(model.parameters(), lr=0.1), training_step)
    config = [{"op_names": ["5"], "apply_method": "mse", "lambda": 2.0}]
    student, other = copy.deepcopy(model), copy.deepcopy(teacher)
    ReverseKDDistiller(model, config, evaluator, teacher, RUNS_A_NETWORK["teacher_predict"]).compress(1, None)
    mine, theirs = student.train()[:6](batch(0)[0]), other.eval()[:6](batch(0)[0])
    assert losses == [pytest.approx(2.0 * float(F.mse_loss(mine.mean(0), theirs.mean(0)).detach()), rel=1e-5)]


@pytest.mark.parametrize(
    ("error", "words", "options"),
    [
        (BadOption, "nobody to teach", {}),
        (UnknownName, "did you mean 'virtual'", {"guide": "virtua"}),
        (BadOption, "give it as teacher_model", {"guide": "sparse"}),
        (BadOption, "has no second network", {"guide": "virtual", "teacher_model": True}),
        (BadOption, "give teacher_predict", {"teacher_model": True}),
        (BadOption, "give teacher_predict", {"guide": "self"}),
        (BadOption, "the model itself", {"teacher_model": "itself"} | RUNS_A_NETWORK),
        (BadOption, "has no option 'corect'", {"guide": {"name": "virtual", "corect": 0.9}}),
        (BadOption, "needs a teacher_model", {"guide": "virtual", "config": {"apply_method": "mse"}}),
        (BadOption, "temperature=0", {"guide": "virtual", "config": {"temperature": 0}}),
        (BadOption, "per_step=1", {"guide": "virtual", "config": {"per_step": 1}}),
        (BadOption, "did you mean 'reverse_kl'", {"guide": "virtual", "config": {"divergence": "revers_kl"}}),
        (BadOption, "lambda=-0.3", {"guide": "virtual", "config": {"lambda": -0.3}}),
        (BadOption, "lambda=nan", {"guide": "virtual", "config": {"lambda": float("nan")}}),
        (BadOption, "there is no teacher", {"guide": "virtual", "config": {"link": "4"}}),
        (BadOption, "is no target here", {"guide": "virtual", "config": {"target_names": ["_input_"]}}),
        (BadOption, "labels=3 is no function", {"guide": "virtual", "labels": 3}),
        (BadOption, "origin_loss_lambda='a'", {"guide": "virtual", "origin_loss_lambda": "a"}),
        (BadOption, "Wrong key 'temperatur'", {"guide": "virtual", "config": {"temperatur": 2.0}}),
        (NothingMatched, "'fc' matches no module", {"guide": "virtual", "config": {"op_names": ["fc"]}}),
    ],
)
def test_what_cannot_be_taught_is_said_in_one_sentence(error, words, options):
    options = dict(options)
    config = [LOGITS[0] | options.pop("config", {})]
    model = conv_net()
    if options.get("teacher_model"):
        options["teacher_model"] = model if options["teacher_model"] == "itself" else conv_net(5)
    with pytest.raises(error) as caught:
        ReverseKDDistiller(model, config, evaluator_of(model), **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_whole_numbers_are_factors_too():
    model = conv_net()
    ReverseKDDistiller(model, [LOGITS[0] | {"lambda": 1}], evaluator_of(model), guide="virtual").compress(2, None)


def test_a_refused_distiller_leaves_both_networks_as_they_were():
    model, teacher = conv_net(), conv_net(5)
    config = [LOGITS[0] | {"link": ["7", "4"]}]
    with pytest.raises(BadOption, match="link one"):
        ReverseKDDistiller(model, config, evaluator_of(model), teacher, RUNS_A_NETWORK["teacher_predict"])
    for network in (model, teacher):
        assert not any(hasattr(module, "_nni_wrapper") for module in network.modules())


def test_one_teacher_teaches_several_learners_one_after_the_other():
    teacher = conv_net(5)
    for _ in range(2):
        model = conv_net()
        distiller = ReverseKDDistiller(model, LOGITS, evaluator_of(model), teacher, RUNS_A_NETWORK["teacher_predict"])
        with pytest.raises(BadOption, match="teacher_model is wrapped by NNI already"):
            ReverseKDDistiller(conv_net(), LOGITS, None, teacher, RUNS_A_NETWORK["teacher_predict"])
        distiller.compress(2, None)
        distiller.unwrap_model()
    assert not any(hasattr(module, "_nni_wrapper") for module in teacher.modules())


def test_a_teacher_of_other_classes_is_refused():
    model = conv_net()
    teacher = conv_net(5)
    teacher[7] = nn.Linear(32, 7)
    distiller = ReverseKDDistiller(model, LOGITS, evaluator_of(model), teacher, RUNS_A_NETWORK["teacher_predict"])
    with pytest.raises(BadOption, match="7 classes and the learner with 5"):
        distiller.compress(1, None)


def test_after_an_error_the_evaluator_is_free_and_no_hook_is_left():
    model = conv_net()
    evaluator = evaluator_of(model)
    distiller = ReverseKDDistiller(model, LOGITS, evaluator, guide="virtual", labels=lambda batch: None)
    with pytest.raises(BadOption):
        distiller.compress(max_steps=1, max_epochs=None)
    assert evaluator.model is None
    assert "train" not in vars(evaluator)
    assert all(not module._forward_pre_hooks for module in model.modules())


def test_pruned_first_and_then_taught_it_keeps_its_masks():
    model = conv_net()
    pruner = SpikingDynamicPruner(model, WEIGHTS, evaluator_of(model), interval_steps=2, total_times=3)
    _, masks = pruner.compress(max_steps=STEPS, max_epochs=None)
    distiller = ReverseKDDistiller.from_compressor(pruner, LOGITS, guide="virtual")
    distiller.compress(max_steps=STEPS, max_epochs=None)
    distiller.unwrap_model()
    for name in masks:
        kept = masks[name]["weight"].bool()
        assert not model.get_submodule(name).weight.detach()[~kept].any()
        assert torch.equal(pruner.get_masks()[name]["weight"].bool(), kept)


def test_a_batch_that_hides_its_labels_is_refused_where_the_guide_needs_them():
    model = conv_net()
    evaluator = evaluator_of(model)
    distiller = ReverseKDDistiller(model, LOGITS, evaluator, guide="virtual", labels=lambda batch: None)
    with pytest.raises(BadOption, match="pass labels="):
        distiller.compress(max_steps=1, max_epochs=None)


def test_a_module_that_the_step_never_calls_is_named():
    model = conv_net()

    def training_step(batch, model):
        reset_(model)
        return model[:4](batch[0]).sum()

    distiller = ReverseKDDistiller(model, LOGITS, evaluator_of(model, training_step), guide="virtual")
    with pytest.raises(MissingStatistic, match="'7' gave no output"):
        distiller.compress(max_steps=1, max_epochs=None)


def test_hidden_outputs_are_no_logits():
    model = conv_net()
    config = [{"op_names": ["5"]}]
    distiller = ReverseKDDistiller(model, config, evaluator_of(model), guide="virtual")
    with pytest.raises(BadOption, match="no logits"):
        distiller.compress(max_steps=1, max_epochs=None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((1, 2), None),
        ({"x": 1}, None),
        ({"labels": torch.tensor([3])}, torch.tensor([3])),
        ([0, torch.tensor([1])], torch.tensor([1])),
        (torch.zeros(3), None),
    ],
)
def test_labels_are_found_where_loaders_put_them(given, expected):
    found = labels_of(given)
    assert (found is None) if expected is None else torch.equal(found, expected)


class Space:
    """Stands for a target whose module gave these outputs."""

    def __init__(self, *outputs):
        self.hidden_states = list(outputs)
        self._wrapper = type("Wrapper", (), {"name": "fc"})


@pytest.mark.parametrize(
    ("shapes", "multi_step", "count", "expected"),
    [
        ([(8, 5)] * 3, False, 8, (3, 8, 5)),
        ([(3, 8, 5)], True, 8, (3, 8, 5)),
        ([(24, 5)], True, 8, (3, 8, 5)),  # inside a SeqToANNContainer
        ([(8, 5)], True, 8, (1, 8, 5)),
        ([(8, 5)], False, None, (1, 8, 5)),
        ([(8, 8, 5)], True, 8, (8, 8, 5)),
        ([(24, 6, 4, 4)], True, 8, (3, 8, 6, 4, 4)),
        ([(3, 8, 6, 4, 4)], True, None, (3, 8, 6, 4, 4)),
    ],
)
def test_the_time_axis_comes_first_however_a_module_is_called(shapes, multi_step, count, expected):
    network = conv_net() if multi_step else Looping()
    assert recorded(Space(*map(torch.zeros, shapes)), network, count).shape == expected
