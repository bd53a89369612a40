import torch

from snnsl_plugin.core.growth.momentum import momentum
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.training.newborn import momentum as of_optimizer


def test_is_the_mean_gradient_and_not_the_mean_absolute_gradient() -> None:
    weight = torch.nn.Parameter(torch.zeros(1, 2))
    optimizer = torch.optim.SGD([weight], lr=0.0, momentum=0.5)
    for grad in ([4.0, 3.0], [-4.0, 3.0]):
        weight.grad = torch.tensor([grad])
        optimizer.step()
    layer = Layer("fc", weight, {"mask": weight == 0}, momentum=of_optimizer(optimizer, weight))
    assert momentum(layer).tolist() == [[2.0, 4.5]]  # |0.5 * 4 - 4| and |0.5 * 3 + 3|
