import torch

from snnsl_plugin.core.growth.gradient import gradient
from snnsl_plugin.core.layer import Layer


def test_is_the_absolute_dense_gradient() -> None:
    layer = Layer("fc", torch.ones(1, 2), {"mask": torch.tensor([[True, False]])}, grad=torch.tensor([[-0.5, -2.0]]))
    assert gradient(layer).tolist() == [[0.5, 2.0]]
