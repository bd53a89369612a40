from itertools import pairwise

import pytest
import torch

from snnsl_plugin.core.distributions.uniform import uniform
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.core.rules.lth import check, lth
from snnsl_plugin.core.schedules.constant import constant
from snnsl_plugin.core.schedules.geometric import geometric
from snnsl_plugin.errors import BadOption

#: Kim et al.: the share of pruned parameters after each of 14 prunings, in per cent, as their code names it
PUBLISHED = [25.04, 43.71, 57.76, 68.3, 76.2, 82.13, 86.58, 89.91, 92.41, 94.29, 95.69, 96.75, 97.54, 98.13]
#: channels of the convolutions of their VGG-16
VGG16 = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]


def layer(name: str, weight: torch.Tensor, mask: torch.Tensor | None = None) -> Layer:
    return Layer(name, weight, {"mask": torch.ones_like(weight, dtype=torch.bool) if mask is None else mask})


def test_two_prunings_by_hand() -> None:
    density = geometric(first=1.0, last=0.25)  # 8, 4 and 2 of 8
    first = [layer("a", torch.tensor([[0.5, -2.0, 0.1, 1.0]])), layer("b", torch.tensor([[-3.0, 0.5, 1.0, -0.2]]))]
    states = lth(first, 0.5, density=density)
    assert states["a"]["mask"].tolist() == [[False, True, False, True]]
    assert states["b"]["mask"].tolist() == [[True, False, True, False]]
    # Trained again the survivors are others; what is dead is not asked, however large it is.
    again = [
        layer("a", torch.tensor([[9.0, -0.1, 9.0, 0.3]]), states["a"]["mask"]),
        layer("b", torch.tensor([[0.3, 9.0, 0.2, 9.0]]), states["b"]["mask"]),
    ]
    states = lth(again, 1.0, density=density)
    assert states["a"]["mask"].tolist() == [[False, False, False, True]]
    assert states["b"]["mask"].tolist() == [[True, False, False, False]]


def slow(weights: list[list[float]], masks: list[list[bool]], n_keep: int) -> list[list[bool]]:
    """One ranking of the living of all layers, ties to the first."""
    living = [(-abs(w), i, j) for i, row in enumerate(weights) for j, w in enumerate(row) if masks[i][j]]
    kept = {(i, j) for _, i, j in sorted(living)[:n_keep]}
    return [[(i, j) in kept for j in range(len(row))] for i, row in enumerate(weights)]


def test_equals_a_slow_oracle_over_rounds_of_tied_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        masks = [torch.ones(1, n, dtype=torch.bool) for n in (17, 30, 13)]
        density = geometric(first=1.0, last=0.1)
        for number in range(1, 6):
            weights = [(torch.randn(mask.shape, generator=generator) * 3).round() / 2 for mask in masks]
            layers = [layer(str(i), w, m) for i, (w, m) in enumerate(zip(weights, masks, strict=True))]
            states = lth(layers, number / 5, density=density)
            n_keep = round(60 * 0.1 ** (number / 5))
            expected = slow([w[0].tolist() for w in weights], [m[0].tolist() for m in masks], n_keep)
            masks = [states[str(i)]["mask"] for i in range(3)]
            assert [mask[0].tolist() for mask in masks] == expected
            assert sum(int(mask.sum()) for mask in masks) == n_keep


@pytest.mark.slow
def test_the_published_sparsities_come_out_of_fifteen_rounds() -> None:
    # The list fits one count, and no share of prunable weights: zeros among ALL parameters of VGG-16 for ten classes.
    # Convolutions and the classifier are pruned; 4,224 biases of convolutions, as many scales and shifts of batch norms
    # and the 10 biases of the classifier are counted and never pruned. At the first entry the biases of convolutions
    # and the shifts are still the zeros that they start from, and count as pruned; later they are not zero any more.
    channels = sum(VGG16[1:])
    shapes = [(out, into, 3, 3) for into, out in pairwise(VGG16)] + [(10, 512)]
    torch.manual_seed(0)
    layers = [layer(str(i), torch.rand(shape)) for i, shape in enumerate(shapes)]
    prunable = sum(each.weight.numel() for each in layers)
    everything = prunable + 3 * channels + 10
    density, found = geometric(first=1.0, last=0.75**14), []
    for number in range(1, 15):
        states = lth(layers, number / 14, density=density)
        layers = [layer(each.name, each.weight, states[each.name]["mask"]) for each in layers]
        kept = sum(int(each.mask.count_nonzero()) for each in layers)
        assert kept == round(density(number / 14) * prunable)
        found.append(100 * (prunable - kept + (2 * channels if number == 1 else 0)) / everything)
    assert found == pytest.approx(PUBLISHED, abs=0.01)


def test_nothing_grows_where_a_budget_does_and_another_distribution_shares_it() -> None:
    torch.manual_seed(0)
    masks = {"a": torch.rand(4, 5) < 0.5, "b": torch.rand(4, 10) < 0.5}
    layers = [layer(name, torch.randn(mask.shape), mask) for name, mask in masks.items()]
    for budget in (0.9, 1.0):
        states = lth(layers, 0.5, density=constant(value=budget), distribution=uniform)
        assert all(torch.equal(states[name]["mask"], mask) for name, mask in masks.items())
    states = lth(layers, 0.5, density=constant(value=0.2), distribution=uniform)
    assert {name: int(state["mask"].sum()) for name, state in states.items()} == {"a": 4, "b": 8}


@pytest.mark.parametrize(("options", "words"), [
    ({"density": constant(value=0.0)}, "density is 0"),
    ({"early_time": 0.0}, "early_time=0"),
    ({"early_time": 1.5}, r"early_time=1\.5"),
    ({"early_time": float("nan")}, "early_time=nan"),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_training(options, words: str) -> None:
    with pytest.raises(BadOption, match=words):
        check(**({"density": constant(value=0.5), "early_time": None} | options))
