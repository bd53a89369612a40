"""Live connections: worked by hand, against an explicit search over sites, then properties."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.model.sew_resnet import BasicBlock, SEWResNet
from torch import nn
from torch.nn.utils import parametrize

from snnsl_plugin.errors import BadOption, NothingMatched
from snnsl_plugin.metrics.paths import live_paths
from snnsl_plugin.models.sew_resnet import sew_resnet
from snnsl_plugin.models.spiking_cnn import spiking_cnn


def masks_of(net: nn.Module, density: float, seed: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    layers = {n: m for n, m in net.named_modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)}
    return {f"{n}.weight": torch.rand(m.weight.shape, generator=g) < density for n, m in layers.items()}


# --- by hand ----------------------------------------


def test_a_chain_of_three_layers_worked_by_hand():
    net = nn.Sequential(*(nn.Linear(a, b) for a, b in ((2, 3), (3, 2), (2, 1))))
    masks = {
        # unit 0 is fed by input 0, unit 1 by nothing, unit 2 by input 1
        "0.weight": torch.tensor([[1, 0], [0, 0], [0, 1]]).bool(),
        # unit 0 listens to 0 and to the dead 1; unit 1 listens to 2 but nobody listens to it
        "1.weight": torch.tensor([[1, 1, 0], [0, 0, 1]]).bool(),
        "2.weight": torch.tensor([[1, 0]]).bool(),
    }
    paths = live_paths(net, torch.zeros(1, 2), masks)
    assert paths.live["0.weight"].int().tolist() == [[1, 0], [0, 0], [0, 0]]
    assert paths.live["1.weight"].int().tolist() == [[1, 0, 0], [0, 0, 0]]
    assert paths.live["2.weight"].int().tolist() == [[1, 0]]
    assert paths.forward["0.weight"].int().tolist() == [[1, 0], [0, 0], [0, 1]]
    assert paths.forward["1.weight"].int().tolist() == [[1, 0, 0], [0, 0, 1]]
    assert paths.dead_rows["0.weight"].tolist() == [False, True, False]
    assert paths.useless_rows["0.weight"].tolist() == [False, False, True]
    assert paths.useless_rows["1.weight"].tolist() == [False, True]
    assert (paths.connections, paths.forward_connections) == (3, 5)


def test_a_weight_that_only_ever_meets_padding_is_dead():
    # 1x1 pictures: of a padded 3x3 kernel only the centre sees a pixel.
    net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Flatten(), nn.Linear(1, 1))
    live = live_paths(net, torch.zeros(1, 1, 1, 1)).live["0.weight"]
    assert live.int().flatten().tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_a_site_that_the_next_layer_drops_carries_no_path():
    # The linear layer listens to the left column only; a kernel of width 1 that looks one pixel left never feeds it.
    net = nn.Sequential(nn.Conv2d(1, 1, (1, 3), padding=(0, 1)), nn.Flatten(), nn.Linear(2, 1))
    masks = {"2.weight": torch.tensor([[True, False]])}
    assert live_paths(net, torch.zeros(1, 1, 1, 2), masks).live["0.weight"].flatten().tolist() == [False, True, True]


def test_a_just_grown_connection_of_weight_zero_is_a_connection():
    net = nn.Linear(2, 1)
    with torch.no_grad():
        net.weight.zero_()
    assert live_paths(net, torch.zeros(1, 2)).connections == 0
    assert live_paths(net, torch.zeros(1, 2), {"weight": torch.tensor([[True, False]])}).connections == 1


def test_a_bias_starts_no_path():
    net = nn.Sequential(nn.Linear(1, 1), layer.BatchNorm1d(1), neuron.LIFNode(), nn.Linear(1, 1))
    paths = live_paths(net, torch.zeros(1, 1), {"0.weight": torch.tensor([[False]])})
    assert paths.connections == 0
    assert paths.dead_rows["0.weight"].tolist() == [True]
    assert paths.useless_rows["0.weight"].tolist() == [False]


# --- the oracle: a search over every site of an explicit graph ----------------------------------------


def sites(shape):
    return list(itertools.product(*map(range, shape)))


def edges_of_conv(mask, in_shape, stride, padding, groups):
    out_c, per_group = mask.shape[:2]
    kernel = mask.shape[2:]
    out_sites = [(n + 2 * padding - k) // stride + 1 for n, k in zip(in_shape[1:], kernel, strict=True)]
    edges = []
    for index in sites(mask.shape):
        if not mask[index]:
            continue
        o, i, *k = index
        c = i + (o // (out_c // groups)) * per_group
        for site in sites(out_sites):
            at = tuple(s * stride - padding + d for s, d in zip(site, k, strict=True))
            if all(0 <= a < n for a, n in zip(at, in_shape[1:], strict=True)):
                edges.append(((c, *at), (o, *site), index))
    return edges, (out_c, *out_sites)


def search(stages, in_shape):
    """Live weights of a chain: forward over all edges, then backward; each edge is (from, to, weight index)."""
    levels, shape, all_edges, masks = [set(sites(in_shape))], in_shape, [], []
    for kind, *options in stages:
        if kind == "conv":
            edges, shape = edges_of_conv(options[0], shape, *options[1:])
            masks.append(options[0])
        elif kind == "pool":
            out = (shape[0], *(n // 2 for n in shape[1:]))
            edges = [((c, *(2 * s + d for s, d in zip(at, by, strict=True))), (c, *at), None)
                     for c, *at in sites(out) for by in sites([2] * len(at))]  # fmt: skip
            shape = out
        elif kind == "flatten":
            order = sites(shape)
            edges = [(site, (number,), None) for number, site in enumerate(order)]
            shape = (len(order),)
        else:
            mask = options[0]
            edges = [((i,), (o,), (o, i)) for o, i in sites(mask.shape) if mask[o, i]]
            shape = (mask.shape[0],)
            masks.append(mask)
        all_edges.append(edges)
        levels.append({to for source, to, _ in edges if source in levels[-1]})
    useful, live = set(sites(shape)), []
    for edges, reached in zip(reversed(all_edges), reversed(levels[:-1]), strict=True):
        hits = {w for source, to, w in edges if source in reached and to in useful}
        if any(w is not None for _, _, w in edges) or not edges:
            live.append(hits)
        useful = {source for source, to, _ in edges if to in useful}
    return list(reversed(live))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mode", ["s", "m"])
def test_conv_pool_flatten_linear_equals_an_explicit_search(seed, mode):
    net = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1, stride=1, bias=True),
        layer.BatchNorm2d(4),
        neuron.LIFNode(),
        layer.MaxPool2d(2),
        layer.Conv2d(4, 6, 3, padding=1, stride=2, groups=2),
        neuron.ParametricLIFNode(),
        layer.Flatten(),
        layer.Linear(6 * 4, 5),
        neuron.IFNode(),
        layer.Linear(5, 3),
    )
    functional.set_step_mode(net, mode)
    masks = masks_of(net, [0.05, 0.1, 0.2][seed % 3], seed)
    x = torch.zeros(1, 2, 7, 7) if mode == "s" else torch.zeros(1, 1, 2, 7, 7)
    paths = live_paths(net, x, masks)
    names = ["0.weight", "4.weight", "7.weight", "9.weight"]
    first, second, third, last = (masks[name] for name in names)
    stages = [("conv", first, 1, 1, 1), ("pool",), ("conv", second, 2, 1, 2), ("flatten",),
              ("linear", third), ("linear", last)]  # fmt: skip
    for name, expected in zip(names, search(stages, (2, 7, 7)), strict=True):
        assert {tuple(index) for index in paths.live[name].nonzero().tolist()} == expected, name


def function_of(net, masks, x):
    """The network with generic positive weights and identity neurons: what it computes shows what is connected."""
    generic = {n: m.double() * torch.rand(m.shape, generator=torch.Generator().manual_seed(9)).add(0.5).double()
               for n, m in masks.items()}  # fmt: skip
    return torch.func.functional_call(net, generic, (x,))


class Residual(nn.Module):
    """Two convolutions around a skip connection, joined by a sum, a product or IAND."""

    def __init__(self, join: str) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, 3, 1, bias=False)
        self.body = nn.Conv1d(3, 3, 3, padding=1, bias=False)
        self.head = nn.Linear(6, 2, bias=False)
        self.join = join

    def forward(self, x):
        x = self.stem(x)
        y = self.body(x)
        joined = {"ADD": x + y, "AND": x * y, "IAND": x * (1 - y)}[self.join]
        return self.head(joined.flatten(1))


@pytest.mark.parametrize("join", ["ADD", "AND", "IAND"])
@pytest.mark.parametrize("seed", range(5))
def test_a_residual_block_equals_removing_weights_one_by_one(join, seed):
    net = Residual(join).double()
    masks = masks_of(net, 0.5, seed)
    x = torch.rand(3, 1, 2, generator=torch.Generator().manual_seed(seed)).double() / 10 + 0.1
    paths = live_paths(net, x[:1], masks)
    # A weight is live if and only if changing it changes the output.
    before = function_of(net, masks, x)
    for name, mask in masks.items():
        for index in map(tuple, mask.nonzero().tolist()):
            without = {n: m.clone() for n, m in masks.items()}
            without[name][index] = False
            changed = not torch.equal(function_of(net, without, x), before)
            assert bool(paths.live[name][index]) == changed, (name, index)


def shallow_sew(connect):
    net = SEWResNet(BasicBlock, [1, 1, 1, 1], num_classes=4, cnf=connect, spiking_neuron=neuron.LIFNode)
    net.conv1, net.maxpool = layer.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    functional.set_step_mode(net, "m")
    return net


@pytest.mark.parametrize(
    "make", [lambda: sew_resnet((3, 4, 4), 4), lambda: shallow_sew("IAND")], ids=["18 layers ADD", "10 layers IAND"]
)
def test_sew_resnet_equals_a_gradient_in_double_precision(make):
    net = make()
    masks = masks_of(net, 0.02, 3)
    paths = live_paths(net, torch.zeros(1, 1, 3, 4, 4), masks)
    # The oracle: the same network with identity neurons and batch norms and positive weights, small enough that 1 - y
    # stays positive, in float64, plainly differentiated.
    twin = copy.deepcopy(net).double()
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) or type(child).__module__.startswith(
                "spikingjelly.activation_based.n"
            ):
                setattr(parent, name, nn.Identity())
    g = torch.Generator().manual_seed(5)
    for name, parameter in twin.named_parameters():
        weight = torch.rand(parameter.shape, generator=g).double() + 0.5
        parameter.data = weight * masks[name] * 0.25 if name in masks else torch.zeros_like(parameter).double()
    out = twin(torch.rand(1, 1, 3, 4, 4, generator=g).double())
    (out * torch.rand(out.shape, generator=g).double()).sum().backward()
    for name, mask in masks.items():
        expected = mask & (twin.get_parameter(name).grad != 0)
        assert torch.equal(paths.live[name], expected), name
    assert 0 < paths.connections < paths.forward_connections <= sum(int(m.sum()) for m in masks.values())


# --- properties ----------------------------------------


@pytest.fixture
def net():
    return spiking_cnn((1, 8, 8), 10, channels=[4, 8], hidden=16)


X = torch.zeros(1, 1, 1, 8, 8)


def test_a_dense_network_is_all_live(net):
    paths = live_paths(net, X)
    assert all(bool(mask.all()) for mask in paths.live.values())
    assert not any(bool(rows.any()) for rows in (*paths.dead_rows.values(), *paths.useless_rows.values()))


def test_live_is_a_part_of_forward_is_a_part_of_the_mask_and_pruning_the_rest_changes_nothing(net):
    masks = masks_of(net, 0.05, 0)
    paths = live_paths(net, X, masks)
    for name, mask in masks.items():
        assert not bool((paths.live[name] & ~paths.forward[name]).any())
        assert not bool((paths.forward[name] & ~mask).any())
    again = live_paths(net, X, paths.live)
    assert all(torch.equal(again.live[name], paths.live[name]) for name in masks)
    assert again.connections == again.forward_connections == paths.connections


def test_a_layer_that_is_cut_kills_everything(net):
    masks = masks_of(net, 0.5, 0)
    masks["fc1.weight"].zero_()
    paths = live_paths(net, X, masks)
    assert paths.connections == 0
    assert bool(paths.dead_rows["fc1.weight"].all())
    assert bool(paths.useless_rows["conv2.weight"].all())


def test_permuting_channels_permutes_live_connections():
    chain = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    masks = masks_of(chain, 0.2, 1)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(2))
    live = live_paths(chain, torch.zeros(1, 6), masks).live
    permuted = {"0.weight": masks["0.weight"][order], "1.weight": masks["1.weight"][:, order]}
    moved = live_paths(chain, torch.zeros(1, 6), permuted).live
    assert torch.equal(moved["0.weight"], live["0.weight"][order])
    assert torch.equal(moved["1.weight"], live["1.weight"][:, order])


def test_more_samples_and_steps_change_nothing(net):
    masks = masks_of(net, 0.05, 4)
    one, many = live_paths(net, X, masks), live_paths(net, torch.zeros(3, 2, 1, 8, 8), masks)
    assert all(torch.equal(one.live[name], many.live[name]) for name in masks)


def test_recurrent_connections_need_a_second_step():
    net = layer.LinearRecurrentContainer(neuron.LIFNode(), 2, 2, step_mode="m")
    assert live_paths(net, torch.zeros(1, 1, 2)).live["rc.weight"].any(0).tolist() == [True, True, False, False]
    assert bool(live_paths(net, torch.zeros(2, 1, 2)).live["rc.weight"].all())


def test_pooling_written_as_a_function_is_seen_through():
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 2, 2), nn.Linear(2, 1)

        def forward(self, x):
            return self.head(F.adaptive_max_pool2d(F.max_pool2d(F.relu(self.conv(x)), 3, 2), 1).flatten(1))

    assert live_paths(Pooled(), torch.zeros(1, 1, 9, 9)).connections == 8 + 2


def test_neurons_with_parameters_per_step_are_passed_over():
    net = nn.Sequential(layer.Linear(3, 3), neuron.PSN(T=4), layer.Linear(3, 1))
    functional.set_step_mode(net, "m")
    assert live_paths(net, torch.zeros(1, 1, 3)).connections == 12


def test_parametrized_weights_keep_their_name():
    class Halved(nn.Module):
        def forward(self, weight):
            return weight * torch.tensor([[1.0, 0.0]])

    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    parametrize.register_parametrization(net[0], "weight", Halved())
    live = live_paths(net, torch.zeros(1, 2)).live
    assert live["0.weight"].tolist() == [[True, False], [True, False]]
    assert set(live) == {"0.weight", "1.weight"}


# --- the model is left alone ----------------------------------------


def snapshot(net):
    return [
        (m.training, dict(m.__dict__), [dict(getattr(m, h)) for h in ("_forward_hooks", "_forward_pre_hooks")],
         [value.clone() if torch.is_tensor(value) else value for value in getattr(m, "_memories", {}).values()])
        for m in net.modules()
    ]  # fmt: skip


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_of_the_model_is_changed_also_when_the_probe_raises(net, fails):
    net.train()
    net[1].eval()
    net(torch.rand(4, 3, 1, 8, 8)).sum().backward()
    calls = []
    for module in net.modules():
        module.register_forward_hook(lambda *_: calls.append("forward"))
        module.register_forward_pre_hook(lambda *_: calls.append("before"))
        module.register_full_backward_hook(lambda *_: calls.append("backward"))
    weights = {n: p.clone() for n, p in net.state_dict().items()}
    gradients = {n: p.grad.clone() for n, p in net.named_parameters()}
    before = snapshot(net)
    if fails:
        with pytest.raises(RuntimeError):
            live_paths(net, torch.zeros(1, 1, 1, 9, 40))
    else:
        live_paths(net, X)
    assert not calls
    for (mode, attributes, hooks, states), (mode_2, attributes_2, hooks_2, states_2) in zip(
        before, snapshot(net), strict=True
    ):
        assert mode == mode_2
        assert attributes.keys() == attributes_2.keys()
        assert all(attributes[k] is attributes_2[k] for k in attributes if k not in ("training", "_backward_hooks"))
        assert hooks == hooks_2
        for a, b in zip(states, states_2, strict=True):
            assert torch.equal(a, b) if torch.is_tensor(a) else a == b
    assert all(torch.equal(weights[n], p) for n, p in net.state_dict().items())
    assert all(torch.equal(gradients[n], p.grad) for n, p in net.named_parameters())


def test_it_works_where_gradients_are_off(net):
    with torch.no_grad():
        a = live_paths(net, X).connections
    with torch.inference_mode():
        b = live_paths(net, X).connections
    assert a == b > 0


def test_bad_calls_say_what_is_wrong(net):
    with pytest.raises(NothingMatched, match="no Conv1d"):
        live_paths(nn.ReLU(), torch.zeros(1))
    with pytest.raises(NothingMatched, match=r"'conv9.weight' belongs to no"):
        live_paths(net, X, {"conv9.weight": torch.ones(1).bool()})
    with pytest.raises(BadOption, match=r"mask of conv1.weight is \(2, 2\)"):
        live_paths(net, X, {"conv1.weight": torch.ones(2, 2).bool()})
    with pytest.raises(BadOption, match="dilation"):
        live_paths(nn.Sequential(nn.Conv2d(1, 1, 1), nn.MaxPool2d(2, dilation=2)), torch.zeros(1, 1, 5, 5))
