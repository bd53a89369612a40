from snnsl_plugin.core.criteria.magnitude import magnitude
from snnsl_plugin.testing import tied_layer


def test_is_the_absolute_value() -> None:
    layer = tied_layer()
    assert magnitude(layer).flatten().tolist() == [abs(w) for w in layer.weight.flatten().tolist()]
