import pytest
import torch
from networks import batch, conv_net

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.training.distiller import ReverseDistiller
from snnsl_plugin.training.guides.sparse import sparse


def test_a_network_guide_never_remembers_the_last_batch_and_never_trains() -> None:
    network = conv_net(3)
    distiller = ReverseDistiller(sparse(network), weight=1.0)
    x, y = batch()
    learner = conv_net()
    first = distiller.loss(learner(x), y, x=x)
    reset_(learner)
    assert torch.equal(distiller.loss(learner(x), y, x=x), first)
    first.backward()
    assert not network.training
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert any(p.grad is not None and p.grad.any() for p in learner.parameters())


def test_a_learner_that_answers_like_its_guide_has_nothing_to_learn() -> None:
    network = conv_net(3).eval()
    x, y = batch()
    own = network(x).detach()
    reset_(network)
    assert float(ReverseDistiller(sparse(network), weight=1.0).loss(own, y, x=x)) == pytest.approx(0.0, abs=1e-6)
