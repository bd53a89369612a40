import torch

from snnsl_plugin.core.criteria.lamp import lamp as score
from snnsl_plugin.core.distributions.lamp import lamp
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.core.masks import keep_top


def layer(name: str, weight: list[float]) -> Layer:
    values = torch.tensor([weight], dtype=torch.float32)
    return Layer(name, values, {"mask": values != 0})


def test_by_hand() -> None:
    # a: 16/16, 1/18, 1/18, dead; b, a hundred times as large: 1/2 each
    layers = [layer("a", [4, 1, 1, 0]), layer("b", [100, 100])]
    assert [round(float(s), 3) for s in score(layers[0]).flatten()] == [1.0, 0.056, 0.056, 0.0]
    assert score(layers[1]).flatten().tolist() == [0.5, 0.5]
    assert lamp(layers, {}, 3) == {"a": 1, "b": 2}


def test_scale_of_a_layer_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(5, 8, generator=generator) for _ in range(3)]
    plain = [Layer(str(i), w, {"mask": w != 0}) for i, w in enumerate(weights)]
    scaled = [Layer(str(i), w * 2.0 ** (4 * i), {"mask": w != 0}) for i, w in enumerate(weights)]
    assert lamp(plain, {}, 40) == lamp(scaled, {}, 40)


def test_equals_one_ranking_of_lamps_scores() -> None:
    generator = torch.Generator().manual_seed(2)
    layers = []
    for name, scale in zip("abc", (0.1, 1.0, 5.0), strict=True):
        weight = torch.randn(4, 9, generator=generator) * scale
        layers.append(Layer(name, weight, {"mask": torch.ones_like(weight, dtype=torch.bool)}))
    kept = keep_top(torch.cat([score(each).flatten() for each in layers]), 30).split(36)
    assert list(lamp(layers, {}, 30).values()) == [int(part.sum()) for part in kept]


def test_no_layer_loses_its_largest_weight_before_the_others() -> None:
    layers = [layer("a", [9, 8, 7, 6]), layer("b", [0.5, 0.4]), layer("c", [2, 1, 1, 1])]
    assert lamp(layers, {}, 3) == {"a": 1, "b": 1, "c": 1}
