"""Programs and graphs that other runtimes load: both compute what the cut network computes, at any batch size."""

import subprocess
import sys

import pytest
import torch
import torch_pruning as tp
from compaction.families import FAMILIES, Gap
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.compaction.export import FromRest, export_program
from snnsl_plugin.compaction.fusing import fused
from snnsl_plugin.compaction.nir_graph import export_nir
from snnsl_plugin.compaction.plain_neurons import plain_
from snnsl_plugin.compaction.silence import copied
from snnsl_plugin.errors import BadOption, MissingExtra
from snnsl_plugin.for_torch_pruning import SpikingPruner

pytestmark = [
    pytest.mark.filterwarnings("ignore:Unwrapped parameters detected:UserWarning"),
    pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
SIZES = (1, 7)


def cut(name: str, mode: str) -> tuple[nn.Module, torch.Tensor]:
    family = FAMILIES[name]
    net, x = family.model(mode), family.example(mode)
    SpikingPruner(
        net,
        x,
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=[net.get_submodule(each) for each in family.keep],
        neuron_types=family.neuron_types,
    ).step()
    return net, x


def from_rest(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    reset_(net)
    with torch.no_grad():
        out = net(x)
    reset_(net)
    return out


class Counts(nn.Module):
    """Decides by values, which no traced program can."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if float(x.sum()) > 3 else x


@pytest.mark.parametrize(("name", "mode"), [("conv_gap", "s"), ("conv_flatten", "m"), ("plif", "m")])
def test_a_program_is_loaded_and_computes_the_same_at_other_batch_sizes(name, mode, tmp_path):
    net, x = cut(name, mode)
    net(x)  # whatever the neurons remember is not exported
    returned = export_program(tmp_path / "net.pt2", net, x).module()
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    for size in SIZES:
        other = FAMILIES[name].example(mode, samples=size, seed=size)
        expected = from_rest(net, other)
        assert expected.std() > 0
        for program in (loaded, returned):
            for _ in range(2):  # the second call starts from rest as well
                torch.testing.assert_close(program(other), expected, rtol=0, atol=1e-6)


def test_every_call_starts_from_rest_whatever_was_remembered():
    net, x = FAMILIES["conv_gap"].model("m"), FAMILIES["conv_gap"].example("m")
    expected = from_rest(net, x)
    with torch.no_grad():
        net(x)
        assert not torch.equal(net(x), expected)
        torch.testing.assert_close(FromRest(net)(x), expected, rtol=0, atol=0)
    assert net.spikes1.v == 0.0


@pytest.mark.parametrize("mode", ["m", "s"])
@pytest.mark.parametrize("v_reset", [0.0, 0.25, None])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (neuron.IFNode, {}),
        (neuron.LIFNode, {"tau": 3.0}),
        (neuron.LIFNode, {"tau": 3.0, "decay_input": False}),
        (neuron.ParametricLIFNode, {"init_tau": 3.0}),
        (neuron.ParametricLIFNode, {"init_tau": 3.0, "decay_input": False}),
    ],
)
def test_plain_neurons_fire_and_remember_as_spikingjellys_do(kind, options, v_reset, mode):
    own = kind(v_threshold=0.6, v_reset=v_reset, **options)
    own.step_mode = mode
    plain = plain_(copied(own))
    assert type(plain) is not kind
    x = torch.randint(0, 9, (6, 5, 7), generator=torch.Generator().manual_seed(0)) / 8  # sums meet the threshold
    for _ in range(2):  # the second time from where the first ended
        with torch.no_grad():
            spikes, expected = (
                each(x) if mode == "m" else torch.stack([each(now) for now in x]) for each in (plain, own)
            )
        assert 0 < expected.mean() < 1
        assert torch.equal(spikes, expected)
        assert torch.equal(plain.v, own.v)


def test_a_program_is_loaded_where_spikingjelly_was_never_imported(tmp_path):
    net, x = cut("conv_gap", "m")
    export_program(tmp_path / "net.pt2", net, x)
    torch.save({"x": x, "expected": from_rest(net, x)}, tmp_path / "seen.pt")
    code = (
        "import sys, torch; seen = torch.load('seen.pt', weights_only=True)\n"
        "out = torch.export.load('net.pt2').module()(seen['x'])\n"
        "torch.testing.assert_close(out, seen['expected'], rtol=0, atol=1e-6)\n"
        "assert 'spikingjelly' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_example_of_one_sample_makes_a_program_for_any_number(tmp_path):
    net, x = cut("conv_gap", "m")
    program = export_program(tmp_path / "net.pt2", net, x[:, :1]).module()
    torch.testing.assert_close(program(x), from_rest(net, x), rtol=0, atol=1e-6)


def test_what_cannot_be_exported_is_named_and_the_file_that_was_there_stays(tmp_path):
    net = nn.Sequential(layer.Linear(4, 3), nn.Sequential(neuron.IFNode(), Counts()), layer.Linear(3, 2))
    functional.set_step_mode(net, "m")
    (tmp_path / "net.pt2").write_bytes(b"old")
    with pytest.raises(BadOption, match=r"^'1\.1' \(Counts\) cannot be exported by torch.export"):
        export_program(tmp_path / "net.pt2", net, torch.rand(3, 2, 4))
    assert (tmp_path / "net.pt2").read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["net.pt2"]


def test_exporting_leaves_the_model_as_it_was(tmp_path):
    net, x = cut("conv_gap", "m")
    net.train()
    before = {name: (id(tensor), tensor.clone()) for name, tensor in net.state_dict(keep_vars=True).items()}
    export_program(tmp_path / "net.pt2", net, x)
    assert net.training
    assert net.spikes1.step_mode == "m"
    for name, tensor in net.state_dict(keep_vars=True).items():
        assert id(tensor) == before[name][0]
        assert torch.equal(tensor, before[name][1])


def test_a_program_that_computes_something_else_is_not_kept(tmp_path, monkeypatch):
    net, x = cut("conv_gap", "m")
    other = cut("conv_gap", "m")[0]
    other.fc.bias.data += 1e-3
    export_program(tmp_path / "other.pt2", other, x)
    wrong = torch.export.load(tmp_path / "other.pt2")
    monkeypatch.setattr(torch.export, "load", lambda _: wrong)
    with pytest.raises(BadOption, match="differs from the model by 0.001 at batch size 1"):
        export_program(tmp_path / "net.pt2", net, x)
    assert not (tmp_path / "net.pt2").exists()


def test_endings_and_examples_are_checked(tmp_path):
    net, x = cut("conv_gap", "m")
    with pytest.raises(BadOption, match=r"torch.export writes .pt2 files"):
        export_program(tmp_path / "net.onnx", net, x)
    with pytest.raises(BadOption, match="the example is list"):
        export_program(tmp_path / "net.pt2", net, [x])
    with pytest.raises(BadOption, match="is written to a .nir file"):
        export_nir(tmp_path / "net.h5", net, x)


def test_norms_behind_linear_layers_are_folded_by_hand():
    net = nn.Sequential(layer.Linear(1, 1, bias=False), layer.BatchNorm1d(1), nn.Dropout(0.5), nn.Identity()).double()
    net[0].weight.data.fill_(3.0)
    net[1].weight.data.fill_(2.0)
    net[1].bias.data.fill_(0.5)
    net[1].running_mean.fill_(1.0)
    net[1].running_var.fill_(4.0 - 1e-5)
    graph = fused(net.eval(), torch.ones(1, 1, dtype=torch.float64))
    assert [type(module) for name, module in graph.named_modules() if name] == [layer.Linear]
    # (3 x - 1) / 2 * 2 + 0.5 = 3 x - 0.5
    torch.testing.assert_close(graph.get_submodule("0").weight.item(), 3.0, rtol=1e-12, atol=0)
    torch.testing.assert_close(graph.get_submodule("0").bias.item(), -0.5, rtol=1e-12, atol=0)


def test_a_missing_library_is_an_error_that_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nir", None)
    net, x = cut("conv_gap", "m")
    with pytest.raises(MissingExtra, match="pip install nir nirtorch"):
        export_nir(tmp_path / "net.nir", net, x)


@pytest.mark.parametrize(("name", "mode"), [("conv_gap", "m"), ("conv_gap", "s"), ("plif", "m"), ("linear_only", "m")])
def test_a_nir_graph_is_loaded_and_computes_the_same_at_other_batch_sizes(name, mode, tmp_path):
    pytest.importorskip("nirtorch")
    from spikingjelly.activation_based import nir_exchange

    net, x = cut(name, mode)
    export_nir(tmp_path / "net.nir", net, x)
    loaded = nir_exchange.import_from_nir(tmp_path / "net.nir")
    functional.set_step_mode(net, "s")
    steps = 5  # more than the example has: a graph of one step knows no number of steps
    for size in SIZES:
        other = torch.rand(steps, size, *FAMILIES[name].shape, generator=torch.Generator().manual_seed(size)) * 2
        state, outputs = None, []
        for now in other:
            out, state = loaded(now, state)
            outputs.append(out.detach())
        reset_(net)
        with torch.no_grad():
            expected = torch.stack([net(now) for now in other])
        reset_(net)
        assert expected.std() > 0
        torch.testing.assert_close(torch.stack(outputs), expected, rtol=1e-4, atol=1e-5)


def unwilling(kind: str) -> nn.Module:
    if kind == "max pool":
        return FAMILIES["conv_flatten"].model("m")
    if kind == "groups":
        return FAMILIES["grouped"].model("m")
    if kind == "soft reset":
        net = Gap(lambda _: neuron.IFNode(v_reset=None))
    elif kind == "norm":
        net = Gap(norm=lambda c: layer.ThresholdDependentBatchNorm2d(1.0, 0.5, c))
    else:
        net = Gap(lambda _: neuron.KLIFNode())
    functional.set_step_mode(net, "m")
    return net


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("max pool", r"'2' \(MaxPool2d\) cannot be exported: NIR has no such node: use average pooling"),
        ("groups", r"'conv2' \(Conv2d\) cannot be exported: NIR has ungrouped convolutions"),
        ("soft reset", r"'spikes1' \(IFNode\) cannot be exported: NIR has no soft reset"),
        ("norm", r"'norm1' \(ThresholdDependentBatchNorm2d\) does not run in single steps"),
        ("neuron", r"'spikes1' \(KLIFNode\) cannot be exported: NIR has no such node"),
    ],
)
def test_what_nir_has_no_words_for_is_named(kind, told, tmp_path):
    pytest.importorskip("nirtorch")
    with pytest.raises(BadOption, match=told):
        export_nir(tmp_path / "net.nir", unwilling(kind), torch.rand(3, 2, 3, 8, 8))
    assert not list(tmp_path.iterdir())
