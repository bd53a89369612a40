import pytest
import torch
from networks import batch, conv_net
from spikingjelly.activation_based import functional
from torch import Tensor

from snnsl_plugin.core import schedules
from snnsl_plugin.core.growth.coincidence import coincidence
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.errors import MissingStatistic
from snnsl_plugin.testing import slow_keep_top, tied_layer
from snnsl_plugin.training.pruner import DynamicPruner


def test_is_the_covariance_whatever_the_weight_is() -> None:
    known = torch.tensor([[0.25, -0.125]], dtype=torch.float64)
    layer = Layer("fc", torch.tensor([[0.0, 9.0]]), {"mask": known > 0}, coincidence=known)
    assert coincidence(layer).tolist() == [[0.25, -0.125]]
    assert torch.equal(coincidence(tied_layer()).double(), tied_layer().coincidence)


def test_a_layer_that_drives_no_neuron_is_named() -> None:
    with pytest.raises(MissingStatistic, match="'fc' has no coincidence: no spiking neuron follows it"):
        coincidence(Layer("fc", torch.ones(1, 1), {"mask": torch.ones(1, 1).bool()}))


@pytest.mark.parametrize("sample_every", [1, 3])
def test_a_pruner_grows_where_a_slow_table_of_slots_says_so(sample_every: int) -> None:
    model = conv_net()
    pruner = DynamicPruner(
        model, torch.optim.SGD(model.parameters(), lr=0.0), growth="coincidence", distribution="uniform",
        density=schedules.constant(value=0.5), swap=schedules.constant(value=0.5), every="6it", until="6it",
        total_steps=6, sample_every=sample_every, exclude=["7"], paths=False,
    )  # fmt: skip
    before = pruner.masks["4.weight"].clone()
    weight = model[4].weight.detach().clone()  # after the first step, dead weights are zero
    seen: dict[str, Tensor] = {}
    model[4].register_forward_hook(lambda module, args, output: seen.update(given=args[0].detach()))
    model[5].register_forward_hook(lambda module, args, output: seen.update(fired=output.detach()))
    given, fired = [], []
    for step in range(1, 7):
        functional.reset_net(model)
        model(batch(step)[0]).mean().backward()
        if step % sample_every == 0:
            given.append(seen["given"].flatten(0, 1))
            fired.append(seen["fired"].flatten(0, 1))
        pruner.step()
    read = torch.nn.functional.unfold((torch.cat(given) != 0).double(), 3, padding=1)  # (rows, in 9, sites)
    read, post = read.movedim(1, 0).flatten(1), torch.cat(fired).double().flatten(2).movedim(1, 0).flatten(1)
    covariance = post @ read.T / read.shape[1] - post.mean(1, keepdim=True) * read.mean(1)
    survive = slow_keep_top((weight * before).abs(), int(before.sum()) - int(before.sum()) // 2, before)
    grown = slow_keep_top(covariance.float().view_as(weight), int(before.sum()) // 2, ~survive)
    assert covariance.any()
    assert torch.equal(pruner.masks["4.weight"], survive | grown)
