import pytest
import torch
from networks import batch, conv_net

from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.distiller import ReverseDistiller
from snnsl_plugin.training.guides.self import self as self_guide
from snnsl_plugin.training.losses import cross_entropy


def test_the_snapshot_is_taken_at_its_step_and_stays() -> None:
    model = conv_net()
    distiller = ReverseDistiller(self_guide(10, None, since="30%"), weight=0.5)
    x, y = batch()
    z = model(x).detach()
    plain = cross_entropy(z, y)
    for step in (0, 1, 2):
        distiller.observe(model, step)
    assert torch.equal(distiller.loss(z, y, x=x), plain)  # no guide yet
    distiller.observe(model, 3)
    taught = distiller.loss(z, y, x=x)
    assert not torch.equal(taught, plain)
    with torch.no_grad():
        model[0].weight.add_(1.0)
    distiller.observe(model, 4)
    assert torch.equal(distiller.loss(z, y, x=x), taught)


def test_an_average_follows_by_hand() -> None:
    model = conv_net()
    guide = self_guide(10, None, since="0it", ema=0.9)
    guide.observe(model, 0)
    start = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight.add_(1.0)
    guide.observe(model, 1)
    assert torch.allclose(guide.state_dict()["network"]["0.weight"], start + 0.1)


def test_the_snapshot_survives_a_checkpoint_and_holds_no_hook(tmp_path) -> None:
    from snnsl_plugin.training import checkpoint
    from snnsl_plugin.training.recorder import SpikeRecorder

    model = conv_net()
    one = ReverseDistiller(self_guide(10, None, since="0it"))
    with SpikeRecorder(model):
        one.observe(model, 0)
        assert model[0]._forward_pre_hooks
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in one.guide._guide.network.modules())
    checkpoint.save(tmp_path / "c.safetensors", {"d": one.state_dict()})
    two = ReverseDistiller(self_guide(10, None, since="0it"))
    two.load_state_dict(checkpoint.load(tmp_path / "c.safetensors")["d"], conv_net(9))
    x, y = batch()
    z = model(x).detach()
    assert torch.equal(one.loss(z, y, x=x), two.loss(z, y, x=x))


def test_self_options_are_checked() -> None:
    with pytest.raises(BadOption, match="ema=1.0"):
        self_guide(10, ema=1.0)
    with pytest.raises(BadOption, match="pass total_steps"):
        self_guide(since="30%")
