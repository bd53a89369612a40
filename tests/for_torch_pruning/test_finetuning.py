import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from networks import batch, conv_net
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.compaction.optimizer_state import following
from snnsl_plugin.datasets._loader import Loader
from snnsl_plugin.datasets.digits import digits
from snnsl_plugin.datasets.encoders.direct import direct
from snnsl_plugin.errors import BadOption, Diverged
from snnsl_plugin.for_torch_pruning import SpikingDynamicPruner, SpikingPruner, reverse_kd_finetune
from snnsl_plugin.metrics.measure import measure
from snnsl_plugin.models.spiking_cnn import spiking_cnn
from snnsl_plugin.training.guides.virtual import virtual

pytestmark = pytest.mark.filterwarnings("ignore:Unwrapped parameters detected:UserWarning")


def sgd(net: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=lr)


class Readout(nn.Module):
    """Logits that are the same whatever comes in."""

    def __init__(self, start: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(start))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(*x.shape[:2], -1)


def test_one_step_is_the_mix_of_labels_and_guide_worked_by_hand() -> None:
    learner, guide = Readout([0.0, 0.0]), Readout([2 * math.log(3.0), 0.0])
    [epoch] = reverse_kd_finetune(
        learner,
        guide,
        [(torch.zeros(1, 1, 1), torch.tensor([1]))],
        optimizer=sgd(learner, lr=1.0),
        lr_schedule="constant",
        temperature=2.0,
        weight=0.25,
    )
    # Softened at tau = 2 the guide says (3/4, 1/4), the learner (1/2, 1/2); the label says (0, 1).
    # loss = 3/4 ln 2 + 1/4 tau^2 KL; d/dz = 3/4 ((1/2, 1/2) - (0, 1)) + 1/4 tau ((1/2, 1/2) - (3/4, 1/4))
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert epoch.loss == pytest.approx(0.75 * math.log(2) + 0.25 * 4 * divergence, rel=1e-6)
    assert learner.logits.tolist() == pytest.approx([-(0.375 - 0.125), 0.375 - 0.125], rel=1e-6)
    assert (epoch.epoch, epoch.epochs, epoch.validation_accuracy) == (1, 1, 1.0)


def test_each_batch_starts_from_rest_and_is_as_a_loop_of_ones_own() -> None:
    ours, theirs, batches = conv_net(), conv_net(), [batch(seed) for seed in range(3)]
    reverse_kd_finetune(
        ours, virtual(), batches, epochs=2, optimizer=sgd(ours), lr_schedule="constant", temperature=1.0, weight=0.5
    )
    optimizer = sgd(theirs)
    for _ in range(2):
        for x, y in batches:
            reset_(theirs)
            answer = F.log_softmax(theirs(x).mean(0), -1)
            soft = torch.full_like(answer, 0.01 / 4).scatter_(1, y[:, None], 0.99)
            loss = 0.5 * F.nll_loss(answer, y) + 0.5 * F.kl_div(answer, soft, reduction="batchmean")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_guide_network_is_left_as_it_was_and_taught_nothing() -> None:
    learner, guide = conv_net(), conv_net(seed=1)
    learner.eval()
    guide[0].weight.requires_grad_(False)
    guide.train()
    guide[1].eval()
    before = copy.deepcopy(guide.state_dict())
    flags = [module.training for module in guide.modules()], [p.requires_grad for p in guide.parameters()]
    own = [module.training for module in learner.modules()]
    reverse_kd_finetune(learner, guide, [batch()], epochs=2, weight=1.0)
    assert flags == ([module.training for module in guide.modules()], [p.requires_grad for p in guide.parameters()])
    assert own == [module.training for module in learner.modules()]
    assert all(torch.equal(before[name], value) for name, value in guide.state_dict().items())
    assert isinstance(guide[2].v, float)
    assert isinstance(learner[2].v, float)


def test_equal_seeds_give_equal_networks_and_the_callers_random_numbers_are_left_alone() -> None:
    x, y = torch.rand(12, 1, 4, 4), torch.arange(12) % 5
    loader = DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True)

    def trained(seed: int, caller: int) -> Tensor:
        learner = conv_net()
        torch.manual_seed(caller)
        before = torch.get_rng_state()
        reverse_kd_finetune(learner, "virtual", loader, encode=direct(T=3), epochs=2, lr=0.05, seed=seed)
        assert torch.equal(before, torch.get_rng_state())
        return learner[0].weight.detach()

    assert torch.equal(trained(0, 1), trained(0, 2))
    assert not torch.equal(trained(0, 1), trained(1, 1))


def test_the_network_may_teach_itself_from_an_earlier_day() -> None:
    history = reverse_kd_finetune(conv_net(), "self", [batch(0), batch(1)], [batch(2)], epochs=3)
    assert [epoch.step for epoch in history] == [2, 4, 6]


def test_a_cut_network_stays_cut_and_an_optimizer_from_before_the_cut_is_refused() -> None:
    learner, (x, y) = conv_net(), batch()
    old = torch.optim.Adam(learner.parameters())
    SpikingPruner(
        learner, x, tp.importance.MagnitudeImportance(p=2), pruning_ratio=0.5, ignored_layers=[learner[7]]
    ).step()
    with pytest.raises(BadOption, match=r"made before the cut does: make a new one over learner.parameters\(\)"):
        reverse_kd_finetune(learner, conv_net(), [(x, y)], optimizer=old)
    shapes = [parameter.shape for parameter in learner.parameters()]
    before = learner[0].weight.detach().clone()
    reverse_kd_finetune(learner, conv_net(), [(x, y)], lr=0.01)
    assert [parameter.shape for parameter in learner.parameters()] == shapes
    assert learner[0].out_channels == 3
    assert not torch.equal(learner[0].weight, before)


def test_refusals_say_what_to_do() -> None:
    net, one = conv_net(), [batch()]
    x, y = one[0]
    said: list[tuple[Any, str]] = [
        (lambda: reverse_kd_finetune(net, net, one), "share weights.*copy.deepcopy"),
        (lambda: reverse_kd_finetune(net, nn.Sequential(net), one), "share weights"),
        (lambda: reverse_kd_finetune(net, "sparse", one), "needs network: pass that network itself"),
        (lambda: reverse_kd_finetune(net, "virtual", [(x.transpose(0, 1), y)]), r"must be \(T, N, ...\).*encode="),
        (lambda: reverse_kd_finetune(net, "virtual", iter(one)), "must have a length"),
        (lambda: reverse_kd_finetune(net, "virtual", []), "no batches"),
        (lambda: reverse_kd_finetune(net, "virtual", one, []), "no batches"),
        (lambda: reverse_kd_finetune(net, "virtual", one, epochs=0), "epochs=0"),
        (lambda: reverse_kd_finetune(net, "virtual", one, weight=1.5), "weight=1.5"),
        (lambda: reverse_kd_finetune(net, "virtual", one, optimizer=sgd(net), lr=0.1), "lr=0.1 belongs"),
        (lambda: reverse_kd_finetune(net.requires_grad_(False), "virtual", one), "no parameter of the learner"),
    ]
    for call, words in said:
        with pytest.raises(BadOption, match=words):
            call()


def test_a_loss_that_is_no_longer_finite_is_an_error_and_the_modes_are_still_as_before() -> None:
    net = Readout([math.nan, 0.0]).eval()
    with pytest.raises(Diverged):
        reverse_kd_finetune(net, "virtual", [(torch.zeros(1, 1, 1), torch.tensor([1]))])
    assert not any(module.training for module in net.modules())


def test_digits_are_learned_while_units_regrow_and_once_more_after_the_cut() -> None:
    torch.manual_seed(0)
    data = digits()
    train = Loader(data.train, 64, shuffle=True, encoder=direct(T=2))
    test = Loader(data.test, 256, encoder=direct(T=2))
    net: Any = spiking_cnn((1, 8, 8), 10, channels=[8, 16], hidden=32, v_threshold=0.5)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    pruner = SpikingDynamicPruner(
        net,
        torch.rand(2, 1, 1, 8, 8),
        tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        optimizer=optimizer,
        interval=5,
        iterative_steps=8,
        ignored_layers=[net.fc2],
    )
    while_regrown = reverse_kd_finetune(
        net, "virtual", train, test, optimizer=optimizer, lr_schedule="constant", epochs=3, pruner=pruner
    )
    assert pruner.regrown > 0
    assert pruner.ratio == 0.5
    assert while_regrown[-1].density == pruner.density < 0.35
    masked = measure(net, test, synops=False)
    with following(net, optimizer):
        pruner.finish()
    cut = measure(net, test, synops=False)
    assert cut.accuracy == masked.accuracy == while_regrown[-1].validation_accuracy
    guide = copy.deepcopy(net)
    history = reverse_kd_finetune(net, guide, train, test, optimizer=optimizer, epochs=2)
    assert history[-1].validation_accuracy > 0.85
    assert history[-1].loss < while_regrown[0].loss
    assert (net.conv1.out_channels, net.conv2.out_channels, net.fc1.out_features) == (4, 8, 16)


def test_neurons_are_at_rest_also_where_it_ends_in_an_error() -> None:
    net, (x, y) = conv_net(), batch()
    with pytest.raises(RuntimeError, match="channels"):
        reverse_kd_finetune(net, "virtual", [(x.repeat(1, 1, 2, 1, 1), y)])
    with pytest.raises(RuntimeError):
        reverse_kd_finetune(net, "virtual", [(x[..., :3], y)])  # fails in the last layer, behind two neurons
    assert isinstance(net[2].v, float)


def test_the_rate_in_the_optimizer_is_the_one_that_counts_and_stays():
    torch.manual_seed(0)
    learner = nn.Linear(4, 3)
    batches = [(torch.rand(2, 5, 4), torch.randint(0, 3, (5,)))] * 4
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    reverse_kd_finetune(learner, "virtual", batches, optimizer=optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.1
    optimizer.param_groups[0]["lr"] = 0.0
    before = learner.weight.clone()
    reverse_kd_finetune(learner, "virtual", batches, optimizer=optimizer, lr_schedule="constant")
    assert learner.weight.equal(before)
