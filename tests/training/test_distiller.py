import pytest
import torch
import torch.nn.functional as F
from networks import batch, conv_net

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.errors import BadOption, UnknownName
from snnsl_plugin.training.distiller import ReverseDistiller, cross_entropy
from snnsl_plugin.training.guides.self import self as self_guide
from snnsl_plugin.training.guides.sparse import sparse
from snnsl_plugin.training.guides.virtual import virtual

T, N, K = 3, 4, 5


def logits(seed: int = 0) -> torch.Tensor:
    return torch.randn(T, N, K, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


TARGET = torch.tensor([0, 4, 2, 2])


@pytest.mark.parametrize("per_step", [False, True])
def test_the_loss_is_the_formula_term_by_term(per_step: bool) -> None:
    tau, a = 3.0, 0.4
    guide_logits = logits(1)

    class Fixed:
        def __call__(self, x, target, classes, soften):
            from snnsl_plugin.training.guides._lesson import Lesson

            return Lesson(soften(guide_logits))

    got = ReverseDistiller(Fixed(), temperature=tau, weight=a, per_step=per_step).loss(logits(), TARGET, x=logits())
    z, z_guide = logits(), guide_logits
    want, steps = 0.0, range(T) if per_step else [slice(None)]
    for t in steps:
        for n in range(N):
            answer = z[t, n] if per_step else z[:, n].mean(0)
            guide = z_guide[t, n] if per_step else z_guide[:, n].mean(0)
            p, q = (guide / tau).softmax(0), (answer / tau).softmax(0)
            kl = sum(float(p[k] * (p[k] / q[k]).log()) for k in range(K))
            want += (1 - a) * float(-answer.log_softmax(0)[TARGET[n]]) + a * tau**2 * kl
    assert float(got) == pytest.approx(want / (N * len(steps)))


def test_a_weight_of_zero_is_plain_cross_entropy_and_one_is_the_guide_alone() -> None:
    plain = F.cross_entropy(logits().mean(0), TARGET)
    assert torch.equal(ReverseDistiller(virtual(), weight=0.0).loss(logits(), TARGET, x=logits()), plain)
    changed = ReverseDistiller(virtual(), weight=1.0).loss(logits(), TARGET, x=logits(), label_smoothing=0.0)
    assert not torch.equal(changed, plain)


def test_a_logit_scale_scales_both_sides() -> None:
    small = ReverseDistiller(virtual(), logit_scale=10.0).loss(logits() / 10, TARGET, x=logits())
    assert float(small) == pytest.approx(float(ReverseDistiller(virtual()).loss(logits(), TARGET, x=logits())))


def test_the_direction_of_the_divergence_is_an_option_of_its_own() -> None:
    losses = {
        d: ReverseDistiller(virtual(), divergence=d).loss(logits(), TARGET, x=logits()) for d in ("kl", "reverse_kl")
    }
    assert losses["kl"] != losses["reverse_kl"]


def test_options_out_of_range_are_sentences() -> None:
    with pytest.raises(BadOption, match="weight=1.5"):
        ReverseDistiller(virtual(), weight=1.5)
    with pytest.raises(BadOption, match="temperature=0"):
        ReverseDistiller(virtual(), temperature=0)
    with pytest.raises(UnknownName, match="did you mean 'reverse_kl'"):
        ReverseDistiller(virtual(), divergence="revers_kl")


# ---------------------------------------------------------------------------------------------------- virtual


@pytest.mark.parametrize("a", [0.1, 0.5])
@pytest.mark.parametrize("correct", [0.99, 0.8])
def test_the_virtual_guide_at_temperature_one_is_label_smoothing(a: float, correct: float) -> None:
    epsilon = (1 - correct) * a * K / (K - 1)
    ours, theirs = logits().requires_grad_(), logits().requires_grad_()
    ReverseDistiller(virtual(correct=correct), temperature=1.0, weight=a).loss(ours, TARGET, x=ours).backward()
    F.cross_entropy(theirs.mean(0), TARGET, label_smoothing=epsilon).backward()
    # The losses differ by the guide's entropy, a constant; the gradients are the same.
    assert torch.allclose(ours.grad, theirs.grad)


def test_the_virtual_guide_is_softened_by_a_power() -> None:
    from snnsl_plugin.training.guides._lesson import Softening

    answer = virtual()(logits(), TARGET, 100, Softening(4.0, False, 1.0)).answer.exp()
    raw = torch.full((100,), 0.01 / 99)
    raw[0] = 0.99
    assert torch.allclose(answer[0], (raw**0.25) / (raw**0.25).sum())
    assert float(answer[0, 0]) == pytest.approx(0.0913, abs=1e-4)


def test_compat_is_the_authors_loss_as_coded() -> None:
    a, tau, multiplier = 0.1, 20.0, 100.0
    z = logits().mean(0)
    soft = torch.full((N, K), 0.01 / (K - 1), dtype=z.dtype)
    soft[torch.arange(N), TARGET] = 0.99
    regularisation = torch.nn.KLDivLoss()  # its default averages over N K elements, as the authors' does
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = regularisation(F.log_softmax(z, 1), F.softmax(soft / tau, 1)) * multiplier
    want = (1 - a) * F.cross_entropy(z, TARGET) + a * theirs
    guide = virtual(compat="tfkd", multiplier=multiplier)
    got = ReverseDistiller(guide, temperature=tau, weight=a).loss(logits(), TARGET, x=logits())
    assert float(got) == pytest.approx(float(want), rel=1e-5)


def test_virtual_options_are_checked() -> None:
    with pytest.raises(BadOption, match="correct=1.0"):
        virtual(correct=1.0)
    with pytest.raises(BadOption, match="belongs to compat='tfkd'"):
        virtual(multiplier=2.0)
    with pytest.raises(BadOption, match="compat='kd'"):
        virtual(compat="kd")


# ---------------------------------------------------------------------------------------------------- sparse


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


# ---------------------------------------------------------------------------------------------------- self


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
