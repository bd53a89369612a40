import copy

import pytest
import torch
import torch.nn.functional as F
from networks import batch, conv_net
from torch import nn

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.errors import BadOption, MissingStatistic, NothingMatched
from snnsl_plugin.testing import check_guide
from snnsl_plugin.training.distiller import ReverseDistiller
from snnsl_plugin.training.guides._features import Tap
from snnsl_plugin.training.guides.ann import Pictures, ann
from snnsl_plugin.training.losses import cross_entropy


def plain_net(width: int = 10, seed: int = 1) -> nn.Sequential:
    """An ANN of pictures; its layer 0 gives maps of the size of those of `conv_net`'s layer 0."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(width * 16, 5))


def asked(guide, model, *, weight=0.5, seed=0):
    x, y = batch(seed)
    reset_(model)
    return ReverseDistiller(guide, temperature=2.0, weight=weight).loss(model(x), y, x=x)


def test_the_distance_of_features_is_the_one_worked_by_hand() -> None:
    learner, network = nn.Sequential(nn.Linear(2, 2, bias=False)), nn.Sequential(nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        learner[0].weight.copy_(torch.eye(2))
        network[0].weight.copy_(2 * torch.eye(2))
    x = torch.tensor([[[1.0, 0.0]], [[0.0, 3.0]]])  # two steps of one sample: means (1/2, 3/2) and (1, 3)
    guide = ann(Pictures(network), learner, x, features="0", feature_weight=4.0)
    lesson = ReverseDistiller(guide, weight=0.0).lesson(learner(x), torch.tensor([0]), x=x)
    assert lesson.matched.item() == pytest.approx(4.0 * (0.5**2 + 1.5**2) / 2)


def test_answers_are_those_to_the_mean_picture_at_every_step() -> None:
    network, model = plain_net(), conv_net()
    x, y = batch()
    for per_step in (False, True):
        distiller = ReverseDistiller(ann(Pictures(copy.deepcopy(network))), weight=1.0, per_step=per_step)
        reset_(model)
        logits = model(x).detach()
        want = (network(x.mean(0)).detach() / 4.0).log_softmax(-1)
        own = (logits if per_step else logits.mean(0)) / 4.0
        slow = F.kl_div(own.log_softmax(-1), want.expand_as(own), log_target=True, reduction="none").sum(-1).mean()
        assert distiller.loss(logits, y, x=x).item() == pytest.approx(16.0 * slow.item(), rel=1e-5)
    check_guide(ann(Pictures(nn.Identity())))


@pytest.mark.parametrize("width", [6, 10])
def test_features_of_a_spiking_network_equal_the_loops(width) -> None:
    """An independent sum over samples, channels and sites, with and without a map between widths."""
    model, network = conv_net(), plain_net(width)
    x, _ = batch()
    guide = ann(Pictures(network), model, x, features="2", guide_features="1", feature_weight=3.0)
    assert bool(guide.trained()) == (width != 6)
    total = asked(guide, model) - asked(ann(Pictures(network)), model)
    reset_(model)
    mine, theirs = model[:3](x).mean(0).detach(), network[:2](x.mean(0)).detach()
    mapped = torch.zeros_like(theirs)
    for g in range(width):
        for c in range(6):
            factor = guide.trained()[0].detach()[g, c] if guide.trained() else float(g == c)
            mapped[:, g] += factor * mine[:, c]
    assert total.item() == pytest.approx(3.0 * float(((mapped - theirs) ** 2).sum()) / theirs.numel(), rel=1e-4)


def test_a_dense_spiking_network_can_be_matched_too() -> None:
    model, network = conv_net(), conv_net(3)
    x, _ = batch()
    guide = ann(network, model, x, features="5")
    asked(guide, model).backward()
    assert not guide.trained()
    assert model[4].weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_only_the_learner_and_the_map_learn_and_the_layers_below_are_reached() -> None:
    model, network = conv_net(), plain_net()
    x, _ = batch()
    guide = ann(Pictures(network), model, x, features="2", guide_features="1")
    before = [parameter.clone() for parameter in network.parameters()]
    asked(guide, model, weight=0.0).backward()
    with_features = model[0].weight.grad.clone()
    model.zero_grad()
    x, y = batch()
    reset_(model)
    cross_entropy(model(x), y).backward()
    assert not torch.allclose(with_features, model[0].weight.grad)
    assert guide.trained()[0].grad.abs().sum() > 0
    assert all(torch.equal(one, other) for one, other in zip(before, network.parameters(), strict=True))


def trained(steps, start=None):
    """A learner, its map and its optimizer after some steps; `start` is (model, distiller, optimizer) states."""
    model, x = conv_net(9 if start else 0), batch()[0]
    distiller = ReverseDistiller(ann(Pictures(plain_net()), model, x, features="2", guide_features="1"), weight=0.5)
    optimizer = torch.optim.Adam([*model.parameters(), *distiller.parameters()], lr=1e-2)
    first = 0
    if start:
        first = start[0]
        model.load_state_dict(start[1])
        optimizer.load_state_dict(start[2])
        distiller.load_state_dict(start[3], model)
    for step in range(first, steps):
        x, y = batch(step)
        reset_(model)
        distiller.loss(model(x), y, x=x).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer, distiller


def test_a_training_goes_on_bit_for_bit() -> None:
    model, _, distiller = trained(6)
    half, half_optimizer, half_distiller = trained(3)
    state = copy.deepcopy((3, half.state_dict(), half_optimizer.state_dict(), half_distiller.state_dict()))
    other, _, other_distiller = trained(6, state)
    assert torch.equal(distiller.parameters()[0], other_distiller.parameters()[0])
    assert not torch.equal(distiller.parameters()[0], half_distiller.parameters()[0])
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


def test_a_validation_and_a_copy_in_between_leave_no_trace_and_no_hook_stays() -> None:
    model, x = conv_net(), batch()[0]
    hooks = [len(module._forward_hooks) for module in model]
    distiller = ReverseDistiller(ann(Pictures(plain_net()), model, x, features="2", guide_features="1"))
    reset_(model)
    logits = model(x)
    plain = distiller.loss(logits, batch()[1], x=x)
    reset_(model)
    copied = copy.deepcopy(model)
    reset_(model)
    logits = model(x)
    copied(2 * x)
    with torch.no_grad():
        for layer in model[:3]:  # a pass that goes past the network
            layer(x) if layer is model[0] else None
    assert torch.equal(distiller.loss(logits, batch()[1], x=x), plain)
    distiller.finish()
    assert [len(module._forward_hooks) for module in model] == hooks
    assert not model._forward_pre_hooks


@pytest.mark.parametrize(
    ("error", "words", "options"),
    [
        (NothingMatched, "has no layer 'conv'", {"features": "conv"}),
        (NothingMatched, "has no layer 'network.9'", {"features": "2", "guide_features": "9"}),
        (BadOption, "differ in nothing but their channels", {"features": "3", "guide_features": "1"}),
        (BadOption, "feature_weight=0.0", {"features": "2", "feature_weight": 0.0}),
        (BadOption, "name its layer in features", {"guide_features": "1"}),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_sentence(error, words, options) -> None:
    with pytest.raises(error) as caught:
        ann(Pictures(plain_net()), conv_net(), batch()[0], **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_features_need_the_learner_and_a_pass_of_it() -> None:
    with pytest.raises(BadOption, match="give the learner and an example"):
        ann(Pictures(plain_net()), features="2")
    model, (x, y) = conv_net(), batch()
    distiller = ReverseDistiller(ann(Pictures(plain_net()), model, x, features="2", guide_features="1"))
    with pytest.raises(MissingStatistic, match="gave no output"):
        distiller.loss(torch.zeros(3, 8, 5), y, x=x)


def test_features_are_those_before_a_layer_that_works_in_place() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    tap = Tap(net, "0", timed=False)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    net(x)
    assert torch.equal(tap.mean(1, 5), net[0](x))
    tap.close()


def test_a_layer_that_runs_twice_in_a_pass_is_no_layer_with_two_steps() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.relu(self.relu(x) - 1)

    net = Twice()
    tap = Tap(net, "relu", timed=False)
    net(torch.ones(2, 3))
    with pytest.raises(BadOption, match="'relu' ran 2 times in one pass of a network without steps"):
        tap.mean(1, 2)
