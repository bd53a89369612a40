"""What every model owes, found by name: multi-step in, logits per step out, one state per batch, all weights learn."""

import inspect
import sys

import pytest
import torch
from spikingjelly.activation_based import base, functional
from torch import nn

from snnsl_plugin import registry
from snnsl_plugin.anatomy import neurons
from snnsl_plugin.errors import BadOption, MissingExtra
from snnsl_plugin.models._permission import permit

TARGET = "snnsl_plugin.models.spiking_cnn:spiking_cnn"  # what `imported` imports here
OPTIONS = {
    "dvs_gesture_net": {"channels": 16},  # narrower than its default, so that this file is quick
    "vggsnn": {"channels": [8, 16, 16, 16, 32, 32, 32, 32]},
    "imported": {"target": TARGET},  # which network, it must be told
}
MODELS = registry.names("models")
OWN_NEURONS = [name for name in MODELS if name != "imported"]  # all but the one whose neurons are the user's
ZOO = ["dvs_gesture_net", "sew_resnet", "spiking_vgg"]


@pytest.fixture(autouse=True, scope="module")
def permission():
    permit(TARGET)


def build(name, shape=(2, 32, 32), classes=5, **options):
    torch.manual_seed(0)
    return registry.get("models", name)(shape, classes, **{**OPTIONS.get(name, {}), **options})


def test_the_names_are_those_of_the_issue():
    assert {"spiking_cnn", "vgg9", *ZOO} <= set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_steps_go_in_logits_per_step_come_out_and_every_weight_has_a_gradient(name):
    net = build(name)
    out = net(torch.rand(3, 2, 2, 32, 32))
    assert out.shape == (3, 2, 5)
    assert out.dtype == torch.float32
    out.pow(2).sum().backward()
    assert all(weight.grad is not None for weight in net.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_multi_step_equals_step_by_step_so_no_step_sees_the_future(name):
    net = build(name).eval()
    x = 3 * torch.rand(3, 2, 2, 32, 32)
    with torch.no_grad():
        together = net(x)
        functional.reset_net(net)
        functional.set_step_mode(net, "s")
        apart = torch.stack([net(step) for step in x])
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("name", MODELS)
def test_a_reset_gives_the_same_answer_again_and_the_model_does_not_reset_itself(name):
    net = build(name).eval()
    x = 5 * torch.rand(2, 1, 2, 32, 32)
    with torch.no_grad():
        first = net(x)
        neurons = [m for m in net.modules() if isinstance(m, base.MemoryModule) and "v" in m._memories]
        assert any(torch.is_tensor(m.v) and m.v.abs().sum() > 0 for m in neurons)
        functional.reset_net(net)
        assert torch.equal(net(x), first)


@pytest.mark.parametrize("name", MODELS)
def test_the_seed_alone_decides_the_first_weights(name):
    first, again = build(name), build(name)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("name", OWN_NEURONS)
def test_neuron_options_reach_every_neuron(name):
    net = build(name, neuron="plif", surrogate="sigmoid", surrogate_alpha=3.0, detach_reset=False, v_threshold=0.7)
    neurons = [m for m in net.modules() if type(m).__name__ == "ParametricLIFNode"]
    assert neurons
    for neuron in neurons:
        assert type(neuron.surrogate_function).__name__ == "Sigmoid"
        assert (neuron.surrogate_function.alpha, neuron.detach_reset, neuron.v_threshold) == (3.0, False, 0.7)
    assert len({id(neuron.w) for neuron in neurons}) == len(neurons)
    assert not [m for m in net.modules() if type(m).__name__ in ("LIFNode", "IFNode")]


@pytest.mark.parametrize("name", OWN_NEURONS)
@pytest.mark.parametrize(
    "option",
    [{"neuron": "alif"}, {"tau": 1.0}, {"surrogate": "tanh"}, {"surrogate_alpha": 0.0}, {"v_threshold": -1.0}],
)
def test_neuron_options_outside_their_range_are_refused_by_name(name, option):
    with pytest.raises(BadOption, match=f"{next(iter(option))} is"):
        build(name, **option)


@pytest.mark.parametrize("name", MODELS)
def test_impossible_inputs_are_refused(name):
    with pytest.raises(BadOption, match="input shape"):
        build(name, shape=(32, 32))
    with pytest.raises(BadOption, match="1 classes"):
        build(name, classes=1)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("sew_resnet", "fully_connected")])
def test_an_input_too_small_for_the_pools_is_refused_with_the_size_it_needs(name):
    with pytest.raises(BadOption, match=r"too small for \d poolings; it needs at least"):
        build(name, shape=(2, 3, 32))


@pytest.mark.parametrize("name", MODELS)
def test_all_options_are_keyword_only_typed_and_described(name):
    function = registry.get("models", name)
    kinds = [(p.name, p.kind) for p in inspect.signature(function).parameters.values()]
    assert [word for word, kind in kinds if kind is not inspect.Parameter.KEYWORD_ONLY] == ["input_shape", "classes"]
    for option, parameter in registry.options("models", name).items():
        assert parameter.annotation is not parameter.empty
        assert f"{option}: " in inspect.getdoc(function)


@pytest.mark.parametrize("name", ZOO)
def test_a_zoo_that_cannot_be_imported_is_named_with_the_way_out(name, monkeypatch):
    for module in ("spiking_vgg", "sew_resnet", "parametric_lif_net"):
        monkeypatch.setitem(sys.modules, f"spikingjelly.activation_based.model.{module}", None)
    with pytest.raises(MissingExtra, match="install torchvision"):
        build(name)


def test_if_neurons_have_no_leak_and_lif_neurons_forget():
    from snnsl_plugin.models._neurons import neuron_factory

    potentials = {}
    for kind in ("if", "lif"):
        neuron = neuron_factory(
            kind, tau=2.0, surrogate="atan", surrogate_alpha=2.0, detach_reset=True, v_threshold=1.0
        )()
        assert isinstance(neuron, nn.Module)
        neuron(torch.tensor([[0.4], [0.0]]))  # one input, then silence
        potentials[kind] = float(neuron.v)
    # by hand: IF keeps 0.4; LIF is at 0.4 / 2 = 0.2 after the first step and 0.2 - 0.2 / 2 = 0.1 after the second
    assert potentials == pytest.approx({"if": 0.4, "lif": 0.1})


@pytest.mark.parametrize("name", ["spiking_cnn", "vgg9"])
def test_without_neurons_it_is_an_ann_that_says_the_same_of_one_picture_at_every_step(name):
    net = build(name, neuron="relu").eval()
    assert not neurons(net)
    with torch.no_grad():
        out = net(torch.rand(1, 2, 2, 32, 32).repeat(3, 1, 1, 1, 1))
    torch.testing.assert_close(out, out[:1].expand_as(out))
    spiking = build(name).state_dict()
    assert all(torch.equal(value, spiking[key]) for key, value in net.state_dict().items())  # the same layers
