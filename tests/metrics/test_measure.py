"""Measures: worked by hand, equal to NeuroBench on masked networks, then properties."""

import math
import warnings

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from snnsl_plugin.errors import BadOption, Diverged, NothingMatched
from snnsl_plugin.metrics.definitions import DEFINITIONS
from snnsl_plugin.metrics.energy import energy_pj
from snnsl_plugin.metrics.latency import latency
from snnsl_plugin.metrics.measure import Measurement, measure
from snnsl_plugin.metrics.memory import peak_memory_mib
from snnsl_plugin.metrics.synops import SynapseCounter, synapses_per_input
from snnsl_plugin.models.spiking_cnn import spiking_cnn
from snnsl_plugin.testing import slow_driven_synapses


def multi_step(net: nn.Module) -> nn.Module:
    functional.set_step_mode(net, "m")
    return net


# --- by hand ----------------------------------------


def hand_worked() -> nn.Module:
    """Two inputs, two integrate-and-fire neurons, two logits; all numbers below follow from these weights."""
    net = multi_step(nn.Sequential(layer.Linear(2, 2, bias=False), neuron.IFNode(), layer.Linear(2, 2, bias=False)))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.5]]))
        net[2].weight.copy_(torch.tensor([[1.0, 0.0], [3.0, 1.0]]))
    return net


def test_a_network_of_four_synapses_worked_by_hand():
    # T = 2, two samples. Sample 0 shows (1, 0) twice: neuron 0 fires twice. Sample 1 shows (0, 1) twice: neuron 1
    # needs two steps of 0.5 and fires once.
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).repeat(2, 1, 1)
    m = measure(hand_worked(), [(x, torch.tensor([1, 0]))])
    # First layer: 2 + 2 spikes with one synapse each. Last layer: 2 spikes of neuron 0 with 2 synapses, 1 of neuron 1
    # with 1. Nine accumulates for two samples.
    assert m.synops_per_sample == 4.5
    assert m.macs_per_sample == 0
    assert m.firing_rate == {"1": 3 / 8}
    assert m.silent == {"1": 0.0}
    assert m.input_rate == {"0": 1 / 2, "2": 3 / 8}
    assert m.samples == 2
    # Time-mean logits: (1, 3) and (0, 1/2); labels 1 and 0.
    assert m.accuracy == 0.5
    assert m.loss == pytest.approx((math.log1p(math.exp(-2)) + math.log1p(math.exp(0.5))) / 2)
    assert m.energy_pj_per_sample == pytest.approx(
        {"input_once": 0, "input_times_T": 0, "mac": 0, "ac": 4.5 * 0.9, "neuron": 4 * 5.5, "total": 4.05 + 22}
    )


def test_a_real_valued_input_costs_multiply_accumulates_once_or_t_times():
    x = torch.tensor([[[1.5, 0.0]]]).repeat(4, 1, 1)
    m = measure(hand_worked(), [(x, torch.tensor([1]))])
    assert m.macs_per_sample == 4
    assert m.energy_pj_per_sample["input_times_T"] == pytest.approx(4 * 4.6)
    assert m.energy_pj_per_sample["input_once"] == pytest.approx(4.6)
    # Neuron 0 gets 1.5 in each of 4 steps and fires in all; neuron 1 never does.
    assert m.firing_rate == {"1": 0.5}
    assert m.silent == {"1": 0.5}
    assert m.synops_per_sample == 8


def test_zero_weights_and_masked_weights_do_nothing():
    x = torch.tensor([[[1.0, 1.0]]])
    masks = {"0.weight": torch.tensor([[True, True], [False, False]])}
    m = measure(hand_worked(), [(x, torch.tensor([1]))], masks=masks)
    assert m.synops_per_sample == 1 + 2  # one synapse into neuron 0, which fires into two


def test_a_corner_pixel_drives_fewer_synapses_than_the_centre():
    conv = nn.Conv2d(1, 2, 3, padding=1)
    fan = synapses_per_input(conv, torch.ones(2, 1, 3, 3).bool(), torch.Size([1, 3, 3]))
    assert fan.tolist() == [[[8, 12, 8], [12, 18, 12], [8, 12, 8]]]


def test_energy_adds_up():
    parts = energy_pj(input_macs=40, input_macs_once=10, other_macs=2, acs=100, neuron_updates=3)
    assert parts == pytest.approx(
        {"input_once": 46, "input_times_T": 184, "mac": 9.2, "ac": 90, "neuron": 16.5, "total": 299.7}
    )


# --- second implementations ----------------------------------------


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.Linear(7, 5), (3, 7)),
        (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), (3, 4, 9)),
        (lambda: nn.Conv2d(4, 8, (3, 2), stride=(1, 2), padding=(1, 0), groups=4), (3, 4, 6, 7)),
        (lambda: nn.Conv2d(2, 3, 3, padding="same"), (3, 2, 5, 5)),
        (lambda: nn.Conv3d(2, 3, 2, stride=2, padding=1), (3, 2, 4, 5, 4)),
    ],
)
def test_the_counter_equals_the_core_formula_and_a_convolution_of_ones(make, shape):
    g = torch.Generator().manual_seed(0)
    one, kept = make(), None
    kept = torch.rand(one.weight.shape, generator=g) < 0.4
    x = (torch.rand(shape, generator=g) < 0.3).float()
    counter = SynapseCounter(one, kept)
    assert counter.add(x) == (counter.acs, 0)
    options = (
        {} if isinstance(one, nn.Linear) else {k: getattr(one, k) for k in ("stride", "padding", "dilation", "groups")}
    )
    assert counter.acs == slow_driven_synapses(x, kept, **options).sum()
    with torch.no_grad():
        one.weight.copy_(kept)
        one.bias.zero_()
        assert counter.acs == one(x).double().sum().round()
    assert counter.add(x * 2)[1] == counter.acs == counter.macs


class Sew(nn.Module):
    """A SEW block: its sums of spikes are 0, 1 or 2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.sn1 = (
            layer.Conv2d(2, 6, 3, padding=1, bias=False),
            layer.BatchNorm2d(6),
            neuron.LIFNode(),
        )
        self.conv2, self.bn2, self.sn2 = (
            layer.Conv2d(6, 6, 3, padding=1, bias=False),
            layer.BatchNorm2d(6),
            neuron.LIFNode(),
        )
        self.conv3, self.sn3 = layer.Conv2d(6, 4, 3, stride=2), neuron.LIFNode()
        self.flatten, self.fc = layer.Flatten(), layer.Linear(4 * 3 * 3, 5)

    def forward(self, x):
        x = self.sn1(self.bn1(self.conv1(x)))
        x = x + self.sn2(self.bn2(self.conv2(x)))
        return self.fc(self.flatten(self.sn3(self.conv3(x))))


NETS = {
    "conv, batch norm, LIF, pool": lambda: spiking_cnn((2, 8, 8), 5, channels=[6, 8], hidden=16),
    "linear": lambda: multi_step(
        nn.Sequential(layer.Flatten(), layer.Linear(128, 32), neuron.LIFNode(), layer.Linear(32, 5))
    ),
    "SEW ADD": lambda: multi_step(Sew()),
    "average pool": lambda: multi_step(
        nn.Sequential(layer.Conv2d(2, 4, 3), neuron.IFNode(), layer.AvgPool2d(2), layer.Flatten(), layer.Linear(36, 5))
    ),
}


def lively(net: nn.Module, density: float) -> dict[str, torch.Tensor]:
    """Makes the network fire (untrained ones are silent) and puts random masks on it; returns the masks."""
    g = torch.Generator().manual_seed(3)
    masks = {}
    with torch.no_grad():
        for name, module in net.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                masks[f"{name}.weight"] = torch.rand(module.weight.shape, generator=g) < density
                module.weight.copy_(torch.randn(module.weight.shape, generator=g) * masks[f"{name}.weight"])
            elif isinstance(module, nn.BatchNorm2d):
                module.running_var.fill_(0.2)
    return masks


def neurobench_operations(net: nn.Module, batches) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # snnTorch, which NeuroBench imports, is not ours to mend
        from neurobench.metrics.workload import SynapticOperations
        from neurobench.models import TorchModel

    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x):
            functional.reset_net(self.net)
            return self.net(x.transpose(0, 1)).mean(0)

    model = TorchModel(TimeFirst())
    model.add_activation_module(neuron.BaseNode)
    model.register_hooks()
    metric, result = SynapticOperations(), {}
    with torch.no_grad():
        for x, y in batches:
            result = metric(model, model(x.transpose(0, 1)), (x.transpose(0, 1), y))
            model.reset_hooks()
    model.cleanup_hooks()
    functional.reset_net(net)
    return result


@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_operations_equal_neurobench(name, binary, density):
    net = NETS[name]()
    masks = lively(net, density)
    g = torch.Generator().manual_seed(4)
    x = torch.rand(2, 4, 3, 2, 8, 8, generator=g)
    x = (x < 0.4).float() if binary else x.sub(0.5).relu()
    batches = [(part, torch.tensor([0, 1, 2])) for part in x]
    ours = measure(net, batches, masks=masks)
    theirs = neurobench_operations(net, batches)
    assert ours.synops_per_sample == theirs["Effective_ACs"]
    assert ours.macs_per_sample == theirs["Effective_MACs"]
    assert ours.synops_per_sample > 0 or (name == "average pool" and not binary)
    assert ours.macs_per_sample > 0 or (name not in ("SEW ADD", "average pool") and binary)


@pytest.mark.parametrize("name", NETS)
def test_firing_rates_and_silence_equal_plain_sums_over_recorded_outputs(name):
    net = NETS[name]()
    lively(net, 0.3)
    outputs: dict[str, list[torch.Tensor]] = {}
    x = (torch.rand(3, 6, 2, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    batches = [(x[:, :4], torch.zeros(4).long()), (x[:, 4:], torch.ones(2).long())]
    m = measure(net, batches)
    handles = [
        module.register_forward_hook(lambda _, __, out, n=n: outputs.setdefault(n, []).append(out))
        for n, module in net.named_modules()
        if isinstance(module, neuron.BaseNode)
    ]
    net.eval()
    functional.reset_net(net)
    with torch.no_grad():
        logits = net(x).mean(0)
    for handle in handles:
        handle.remove()
    assert m.firing_rate == pytest.approx({n: float(out[0].double().mean()) for n, out in outputs.items()})
    assert m.silent == pytest.approx(
        {n: float((out[0].sum((0, 1)) == 0).double().mean()) for n, out in outputs.items()}
    )
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    assert m.loss == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    assert m.accuracy == float((logits.argmax(1) == labels).double().mean())


# --- properties ----------------------------------------


def spikes(samples: int, generator_seed: int = 0) -> torch.Tensor:
    return (torch.rand(4, samples, 2, 8, 8, generator=torch.Generator().manual_seed(generator_seed)) < 0.3).float()


def test_batch_size_does_not_matter_for_spikes():
    net = NETS["conv, batch norm, LIF, pool"]()
    lively(net, 0.5)
    x, y = spikes(6), torch.arange(6) % 5
    whole = measure(net, [(x, y)])
    parts = measure(net, [(x[:, i : i + 2], y[i : i + 2]) for i in (0, 2, 4)])
    assert whole.synops_per_sample == parts.synops_per_sample
    assert whole.firing_rate == parts.firing_rate
    assert whole.silent == parts.silent
    assert whole.accuracy == parts.accuracy


def test_a_single_step_network_in_a_loop_measures_the_same():
    class Looped(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x):
            return torch.stack([self.net(step) for step in x])

    net = NETS["conv, batch norm, LIF, pool"]()
    masks = lively(net, 0.5)
    x, y = spikes(4), torch.arange(4)
    many = measure(net, [(x, y)], masks=masks)
    functional.set_step_mode(net, "s")
    looped = measure(Looped(net), [(x, y)], masks={f"net.{name}": mask for name, mask in masks.items()})
    assert looped.synops_per_sample == many.synops_per_sample
    assert looped.silent == {f"net.{name}": share for name, share in many.silent.items()}
    assert looped.energy_pj_per_sample == pytest.approx(many.energy_pj_per_sample)
    assert looped.loss == pytest.approx(many.loss, rel=1e-5)


def test_without_synops_only_accuracy_loss_and_firing_are_measured():
    net = NETS["linear"]()
    lively(net, 0.5)
    batches = [(spikes(4), torch.arange(4))]
    full, short = measure(net, batches), measure(net, batches, synops=False)
    assert short == Measurement(
        full.accuracy, full.loss, 4, None, None, {}, full.firing_rate, full.silent, input_rate={}
    )


def test_a_silent_network_does_no_operations_behind_its_input():
    net = NETS["linear"]()
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.zero_()
    m = measure(net, [(spikes(2), torch.arange(2))])
    assert m.synops_per_sample == 0
    assert m.silent == {"2": 1.0}
    assert m.energy_pj_per_sample["total"] == m.energy_pj_per_sample["neuron"] == pytest.approx(4 * 32 * 5.5)


def test_a_membrane_read_out_is_no_firing_neuron():
    class ReadOut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.membrane = layer.Linear(128, 5), neuron.NonSpikingIFNode(decode="max-mem")

        def forward(self, x):
            return self.membrane(self.fc(x.flatten(2)))[None]

    assert measure(multi_step(ReadOut()), [(spikes(2), torch.arange(2))]).firing_rate == {}


@pytest.mark.parametrize("fails", [False, True])
def test_training_flags_hooks_and_states_are_left_as_they_were(fails):
    net = NETS["conv, batch norm, LIF, pool"]()
    lively(net, 0.5)
    net.train()
    net[1].eval()
    modes = [module.training for module in net.modules()]
    y = torch.arange(3) if fails else torch.arange(4)
    try:
        measure(net, [(spikes(4), y)])
    except BadOption:
        assert fails
    assert [module.training for module in net.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert all(module.v == 0.0 for module in net.modules() if isinstance(module, neuron.LIFNode))
    assert all(parameter.grad is None for parameter in net.parameters())


def test_bad_calls_say_what_is_wrong():
    net = NETS["linear"]()
    with pytest.raises(BadOption, match="no samples"):
        measure(net, [])
    with pytest.raises(BadOption, match=r"\(4, 2, 5\) for 3 samples"):
        measure(net, [(spikes(2), torch.arange(3))])
    with pytest.raises(NothingMatched, match=r"'fc\.weight' belongs to no"):
        measure(net, [(spikes(2), torch.arange(2))], masks={"fc.weight": torch.ones(1).bool()})
    with torch.no_grad():
        net[3].bias[0] = float("nan")
    with pytest.raises(Diverged, match="NaN"):
        measure(net, [(spikes(2), torch.arange(2))])
    with pytest.raises(BadOption, match="repeats is 0"):
        latency(net, spikes(1), repeats=0)
    with pytest.raises(BadOption, match="at least one sample"):
        latency(net, spikes(0))


def test_latency_is_positive_and_uses_one_sample_with_fresh_states():
    seen = []
    net = NETS["linear"]()
    handle = net[1].register_forward_pre_hook(lambda module, x: seen.append((x[0].shape[1], net[2].v)))
    assert latency(net, spikes(5), repeats=3, warm_up=1) > 0
    handle.remove()
    assert seen == [(1, 0.0)] * 4
    assert net[2].v == 0.0


def test_peak_memory_is_at_least_what_is_held():
    held = torch.ones(64 * 2**20 // 4)
    assert peak_memory_mib() > held.numel() * 4 / 2**20


def test_every_number_of_a_result_has_a_definition():
    assert {"accuracy", "density", "connections", "synops_per_sample", "macs_per_sample", "energy_pj_per_sample",
            "firing_rate", "silent", "parameters", "peak_memory_mib", "wall_s"} <= DEFINITIONS.keys()  # fmt: skip
    assert "not a measurement" in DEFINITIONS["energy_pj_per_sample"]
    assert all(sentence.endswith(".") for sentence in DEFINITIONS.values())


@pytest.mark.parametrize(
    "options",
    [{"padding": 1}, {"stride": 2}, {"padding": 2, "dilation": 2}, {"groups": 2}, {"padding": 1, "stride": 3}],
)
def test_the_synapses_of_an_input_are_what_a_loop_over_inputs_counts(options):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, bias=False, **options)
    kept = torch.rand_like(conv.weight) < 0.4
    with torch.no_grad():
        conv.weight.copy_(kept)
        counted = torch.zeros(4, 7, 6, dtype=torch.float64)
        for index in torch.cartesian_prod(torch.arange(4), torch.arange(7), torch.arange(6)):
            x = torch.zeros(1, 4, 7, 6)
            x[0, *index] = 1.0
            counted[*index] = conv(x).sum()
    assert torch.equal(synapses_per_input(conv, kept, torch.Size((4, 7, 6))), counted)
