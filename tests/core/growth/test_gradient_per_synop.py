import pytest
import torch
from networks import batch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from snnsl_plugin.anatomy import weight_layers
from snnsl_plugin.core.growth.gradient_per_synop import gradient_per_synop
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.errors import MissingStatistic
from snnsl_plugin.testing import tied_layer
from snnsl_plugin.training.operations import Operations


def test_by_hand() -> None:
    weight, zero = torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.float64)
    known = Layer("fc", weight, {"mask": weight != 0}, grad=torch.tensor([[-3.0, 1.0, 5.0]]),
                  synops=torch.tensor([[2.0, 0.5, 0.0]], dtype=torch.float64), macs=zero)  # fmt: skip
    assert gradient_per_synop(known).tolist() == [[1.5, 2.0, 0.0]]


@pytest.mark.parametrize("seed", range(3))
def test_equals_a_loop_over_tied_weights(seed: int) -> None:
    drawn = tied_layer(seed)
    pairs = zip(drawn.grad.flatten().tolist(), drawn.synops.flatten().tolist(), strict=True)
    assert gradient_per_synop(drawn).flatten().tolist() == [0.0 if c == 0 else abs(g) / c for g, c in pairs]


def test_a_weight_that_multiplies_nothing_has_no_gradient() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        layer.Conv2d(1, 6, 3, padding=1), neuron.LIFNode(v_threshold=0.6), layer.MaxPool2d(2),
        layer.Conv2d(6, 8, 3, padding=1), neuron.LIFNode(v_threshold=0.2), layer.Flatten(), layer.Linear(32, 5),
    )  # fmt: skip
    functional.set_step_mode(model, "m")
    with torch.no_grad():
        model[0].weight[:2] = -1.0
    with Operations(model, weight_layers(model)) as operations:
        model(batch()[0]).square().mean().backward()
    found = operations.fields()["3"]
    none = (found["synops"] + found["macs"]) == 0
    assert 0 < int(none.sum()) < none.numel()
    assert not model[3].weight.grad[none].any()
    assert model[3].weight.grad[~none].any()


def test_says_what_was_not_counted() -> None:
    weight = torch.zeros(1, 1)
    with pytest.raises(MissingStatistic, match="'fc' has no synops"):
        gradient_per_synop(Layer("fc", weight, {"mask": weight == 0}, grad=weight))
