"""NNI's machinery inside a loop of one's own: it begins, ends and leaves when it is told to."""

import pytest
import torch
from spikingjelly.activation_based.functional import reset_net
from torch.nn import functional as F

from snnsl_plugin.anatomy import weight_layers
from snnsl_plugin.errors import BadOption, UnknownName
from snnsl_plugin.for_nni.builtin import BUILTIN, Course, builtin, kept, repeated
from snnsl_plugin.for_nni.driven_builtin import DrivenBuiltin
from snnsl_plugin.for_nni.driven_dynamic import DrivenDynamic
from snnsl_plugin.for_nni.driver import DrivenPruner
from snnsl_plugin.models.spiking_cnn import spiking_cnn
from snnsl_plugin.training.distiller import ReverseDistiller
from snnsl_plugin.training.guides.virtual import virtual
from snnsl_plugin.training.timetable import Timetable

STEPS = 12
SGD = (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9})
OPTIONS = {"slim": {"regular_scale": 0.5}}
TRAINED = [name for name, kind in BUILTIN.items() if not kind.one_shot]


def network(hidden: int = 9) -> torch.nn.Module:
    torch.manual_seed(0)
    return spiking_cnn((1, 8, 8), 4, channels=(5, 7), hidden=hidden, v_threshold=0.3)


def data() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.rand(2, 8, 1, 8, 8, generator=generator), torch.randint(4, (8,), generator=generator)) for _ in range(4)
    ]


def driven(name: str, *, start: int = 2, until: int = 8, every: int = 3, **options: object) -> DrivenPruner:
    when = Timetable(start, until, every)
    common = {"density": 0.4, "when": when, "total_steps": STEPS}
    if name == "spiking_dynamic":
        return DrivenDynamic(network(), *SGD, "drop_grow", **common, **options)
    common["example"] = data()[0][0]
    return DrivenBuiltin(network(), *SGD, name, **common, **OPTIONS.get(name, {}), **options)


def train(pruner: DrivenPruner, steps: int = STEPS, distiller: ReverseDistiller | None = None) -> list[float]:
    """Somebody's loop around the model; the loss of each step."""
    model, loss_of, losses = pruner._model, pruner.patched(distiller), []
    for step in range(steps):
        x, target = data()[step % 4]
        model.train()
        reset_net(model)
        loss = loss_of.loss(model(x), target, x=x)
        loss.backward()
        pruner.optimizer.step()
        pruner.step()
        pruner.optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    model.eval()
    reset_net(model)
    out = model(torch.cat([x for x, _ in data()], dim=1))
    reset_net(model)
    return out


@pytest.mark.parametrize("name", [*BUILTIN, "spiking_dynamic"])
def test_the_unwrapped_model_does_what_the_wrapped_one_did(name):
    pruner = driven(name)
    train(pruner)
    wrapped, masks = logits(pruner._model), {key: mask.clone() for key, mask in pruner.masks.items()}
    assert wrapped.std() > 0
    pruner.finish()
    model = pruner._model
    assert not any(hasattr(module, "_nni_wrapper") for module in model.modules())
    assert torch.allclose(logits(model), wrapped, atol=1e-6)
    assert {name for name, _ in network().named_parameters()} == {name for name, _ in model.named_parameters()}
    for key, mask in masks.items():
        assert not model.get_parameter(key)[~mask].any()


def test_slim_folds_its_factor_and_zeroes_what_a_scale_of_zero_silences():
    pruner = driven("slim")
    train(pruner)
    wrapper = pruner._model.norm1._nni_wrapper
    factor, kept_scales = wrapper.weight_slim_factor.detach().clone(), wrapper.weight_mask.bool()
    scale = wrapper.weight.detach().clone()
    assert (factor < 1).all()
    pruner.finish()
    assert torch.equal(pruner._model.norm1.weight[kept_scales], (scale * factor)[kept_scales])
    assert torch.equal(pruner._model.conv1.weight.flatten(1).any(1), kept_scales)
    assert int(kept_scales.sum()) == 5 - int(5 * 0.6)


def test_what_nni_adds_to_the_loss_is_in_it_from_start_to_until():
    pruner, plain = driven("slim"), driven("level", start=STEPS)
    with_penalty, without = train(pruner, 9), train(plain, 9)
    assert with_penalty[:2] == without[:2]
    # Three norms of 5, 7 and 9 channels, whose factors all begin at 1; NNI divides by the number of norms.
    assert with_penalty[2] == pytest.approx(without[2] + 0.5 * (5 + 7 + 9) / 3)
    assert all(loss > other + 2 for loss, other in zip(with_penalty[3:8], without[3:8], strict=True))
    assert with_penalty[8] < without[8] + 2


def test_a_distillers_loss_passes_through_nni():
    distiller = ReverseDistiller(virtual(), temperature=2.0, weight=0.5)
    pruner = driven("slim", start=0)
    x, target = data()[0]
    reset_net(pruner._model)
    out = pruner._model(x).detach()
    loss = pruner.patched(distiller).loss(out, target, x=x, label_smoothing=0.1)
    assert float(loss.detach()) == pytest.approx(
        float(distiller.loss(out, target, x=x, label_smoothing=0.1)) + 0.5 * 21 / 3
    )
    loss = pruner.patched(None).loss(out, target, x=x, label_smoothing=0.1)
    assert float(loss.detach()) == pytest.approx(
        float(F.cross_entropy(out.mean(0), target, label_smoothing=0.1)) + 0.5 * 21 / 3
    )


@pytest.mark.parametrize("name", TRAINED)
def test_nni_leaves_optimizer_and_gradients_alone_when_it_has_ended(name):
    pruner = driven(name)
    untouched = type(pruner.optimizer).step
    train(pruner, 5)
    assert pruner.optimizer.step.__func__ is not untouched
    train(pruner, STEPS - 5)
    if name == "movement":  # ranks anew to the very end
        assert pruner.optimizer.step.__func__ is not untouched
        pruner.finish()
    assert pruner.optimizer.step.__func__ is untouched
    assert not any(layer.weight._backward_hooks for layer in weight_layers(pruner._model).values())


@pytest.mark.parametrize("name", BUILTIN)
def test_masks_change_when_the_course_says(name):
    pruner, changed = driven(name), []
    before = {key: mask.clone() for key, mask in pruner.masks.items()}
    for step in range(1, STEPS + 1):
        train(pruner, 1)
        if any(not torch.equal(mask, before[key]) for key, mask in pruner.masks.items()):
            changed.append(step)
        before = {key: mask.clone() for key, mask in pruner.masks.items()}
    if name == "movement":
        assert min(changed) > 2
        assert max(changed) > 8, "movement ranks anew after the density is reached"
    else:
        assert changed == ([2] if BUILTIN[name].one_shot else [8] if name in ("slim", "taylor") else [5, 8])
    assert pruner.until == (2 if BUILTIN[name].one_shot else 8)


def test_a_step_that_the_optimizer_skipped_moves_all_that_is_to_come():
    pruner = driven("agp_level")
    train(pruner, 4)
    assert pruner.step(applied=False) is None
    assert pruner.until == 9
    train(pruner, 3)
    assert pruner.density > pruner.target + 0.01
    train(pruner, 1)
    assert (pruner.step_number, pruner.density) == (9, pruner.planned_density(8))


def test_a_training_that_ends_too_early_says_so(caplog):
    pruner = driven("taylor")
    train(pruner, 7)
    pruner.finish()
    assert "training ended at step 7, before the masks were at their goal at step 8" in caplog.text


def test_dead_gradients_are_known_where_there_are_any():
    assert driven("agp_level").by_parameter() == {}
    pruner = driven("spiking_dynamic")
    assert {id(parameter) for parameter in pruner.by_parameter()} <= {
        id(parameter) for group in pruner.optimizer.param_groups for parameter in group["params"]
    }
    assert len(pruner.by_parameter()) == 4


def test_the_optimizer_is_the_one_that_trains_the_wrapped_weights():
    pruner = driven("level")
    held = {id(parameter) for group in pruner.optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in pruner._model.parameters()}
    assert pruner.optimizer.param_groups[0]["momentum"] == 0.9


def test_an_unknown_name_is_told_its_neighbour():
    with pytest.raises(UnknownName, match=r"unknown pruner of NNI 'agp_levl'; did you mean 'agp_level'\?"):
        builtin("agp_levl")


def test_as_many_intervals_as_fit():
    assert repeated(Timetable(5, 26, 10)) == Course(5, 25, 10)
    assert [step for step in range(40) if repeated(Timetable(5, 26, 10)).due(step)] == [15, 25]
    with pytest.raises(BadOption, match="every is 30 steps, but from start to until there are only 21"):
        repeated(Timetable(5, 26, 30))


@pytest.mark.parametrize(("ratio", "left"), [(0.0, 20), (0.5, 10), (0.6, 8), (0.99, 4)])
def test_nni_rounds_what_it_prunes_down(ratio, left):
    assert kept((5, 4), ratio, by_channel=True) == {0.0: 20, 0.5: 12, 0.6: 8, 0.99: 4}[ratio]
    assert kept((5, 4), ratio, by_channel=False) == {0.0: 20, 0.5: 10, 0.6: 8, 0.99: 1}[ratio]


def test_a_density_of_nine_tenths_prunes_one_tenth():
    assert int(280 * (1.0 - 0.9)) == 27, "so a naive ratio prunes one weight too few"
    when = Timetable(0, 0, 1)
    pruner = DrivenBuiltin(network(10), *SGD, "level", density=0.9, when=when, total_steps=1, example=data()[0][0])
    dropped = {key: int((~mask).sum()) for key, mask in pruner.masks.items()}
    assert dropped == {"conv1.weight": 4, "conv2.weight": 31, "fc1.weight": 28, "fc2.weight": 4}
