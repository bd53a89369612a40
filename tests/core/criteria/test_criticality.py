import pytest
import torch

from snnsl_plugin.core.criteria.criticality import criticality
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.errors import MissingStatistic
from snnsl_plugin.testing import tied_layer


def test_by_hand() -> None:
    weight = torch.tensor([[2.0, -3.0], [4.0, 1.0]])
    known = Layer("fc", weight, {"mask": weight != 0}, surrogate=torch.tensor([0.5, 0.25]).double())
    assert criticality(known).tolist() == [[1.0, 1.5], [1.0, 0.25]]


@pytest.mark.parametrize("seed", range(3))
def test_equals_a_loop_over_tied_weights(seed: int) -> None:
    drawn, scores = tied_layer(seed), criticality(tied_layer(seed))
    for row in range(drawn.weight.shape[0]):
        slope = float(drawn.surrogate[row])
        assert scores[row].flatten().tolist() == [abs(w) * slope for w in drawn.weight[row].flatten().tolist()]


def test_a_layer_that_drives_no_neuron_is_named() -> None:
    weight = torch.ones(2, 2)
    with pytest.raises(MissingStatistic, match="'fc' has no surrogate: no neuron with a surrogate_function follows it"):
        criticality(Layer("fc", weight, {"mask": weight.bool()}))
    with pytest.raises(MissingStatistic, match="has 2 output channels but the neuron that it drives has 3"):
        criticality(Layer("fc", weight, {"mask": weight.bool()}, surrogate=torch.ones(3)))
