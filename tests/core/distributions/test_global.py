import torch

from snnsl_plugin.core.distributions.global_ import global_
from snnsl_plugin.core.layer import Layer


def layer(name: str, weight: list[float], mask: list[bool]) -> Layer:
    return Layer(name, torch.tensor([weight]), {"mask": torch.tensor([mask])})


def test_ranks_live_weights_of_all_layers_together() -> None:
    layers = [layer("a", [5, 1, 2], [True, True, True]), layer("b", [9, 4, 3], [False, True, True])]
    scores = {each.name: each.weight for each in layers}
    assert global_(layers, scores, 3) == {"a": 1, "b": 2}  # 5, 4, 3; the 9 is dead and does not rank


def test_ties_go_to_the_first_layer() -> None:
    layers = [layer("a", [1, 1], [True, True]), layer("b", [1, 1], [True, True])]
    assert global_(layers, {each.name: each.weight for each in layers}, 3) == {"a": 2, "b": 1}


def test_a_budget_above_the_live_weights_is_shared_by_room() -> None:
    layers = [layer("a", [5, 0, 0], [True, False, False]), layer("b", [4, 3, 0], [True, True, False])]
    assert global_(layers, {each.name: each.weight for each in layers}, 5) == {"a": 2, "b": 3}  # shares 1.33 and 0.67


def test_equals_one_sort_over_everything() -> None:
    generator = torch.Generator().manual_seed(3)
    layers = []
    for name in "abc":
        weight = torch.randn(4, 9, generator=generator).abs()
        mask = torch.rand(4, 9, generator=generator) < 0.7
        layers.append(Layer(name, weight, {"mask": mask}))
    everything = sorted(((float(w), i) for i, each in enumerate(layers) for w in each.weight[each.mask]), reverse=True)
    counts = global_(layers, {each.name: each.weight for each in layers}, 40)
    assert list(counts.values()) == [sum(1 for _, i in everything[:40] if i == layer) for layer in range(3)]
