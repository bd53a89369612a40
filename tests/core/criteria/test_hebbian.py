import pytest
import torch

from snnsl_plugin.core.criteria.hebbian import hebbian
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.errors import MissingStatistic
from snnsl_plugin.testing import tied_layer


def test_by_hand() -> None:
    weight = torch.tensor([[2.0, -3.0], [4.0, 0.0]])
    known = Layer("fc", weight, {"mask": weight != 0}, correlation=torch.tensor([[0.5, 1.0], [-0.5, 1.0]]).double())
    assert hebbian(known).tolist() == [[1.0, 3.0], [0.0, 0.0]]


@pytest.mark.parametrize("seed", range(3))
def test_equals_a_loop_over_tied_weights(seed: int) -> None:
    drawn = tied_layer(seed)
    pairs = zip(drawn.weight.flatten().tolist(), drawn.correlation.flatten().tolist(), strict=True)
    assert hebbian(drawn).flatten().tolist() == [abs(w) * max(0.0, c) for w, c in pairs]
    assert not hebbian(drawn)[:, 0].any()  # the silent input channel


def test_a_layer_that_drives_no_neuron_is_named() -> None:
    with pytest.raises(MissingStatistic, match="'fc' has no correlation: no spiking neuron follows it"):
        hebbian(Layer("fc", torch.ones(1, 1), {"mask": torch.ones(1, 1).bool()}))
