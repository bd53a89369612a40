import copy
import io
import itertools
import logging

import nni
import pytest
import torch
from networks import batch, conv_net
from nni.compression import TorchEvaluator
from nni.compression.pruning import AGPPruner, LevelPruner
from torch import nn

from snnsl_plugin import registry
from snnsl_plugin.anatomy import reset_, weight_layers
from snnsl_plugin.core import schedules
from snnsl_plugin.errors import BadOption, NothingMatched, SnnslError, UnknownName
from snnsl_plugin.for_nni import SpikingDynamicPruner, export_masks
from snnsl_plugin.for_nni.wrapper import LightWrapper
from snnsl_plugin.training.losses import cross_entropy
from snnsl_plugin.training.pruner import DynamicPruner

ALL = [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.8}]
DENSE = schedules.constant(value=1.0)
SIZES = {"0": 54, "4": 432, "7": 160}


def training_step(batch, model):
    reset_(model)
    return cross_entropy(model(batch[0]), batch[1])


def train(model, optimizer, training_step, scheduler, max_steps, max_epochs):
    for step in range(max_steps or 10 * max_epochs):
        optimizer.zero_grad()
        training_step(batch(step), model).backward()
        optimizer.step()


def evaluator_of(model, training=train, optimizer=torch.optim.Adam):
    return TorchEvaluator(training, nni.trace(optimizer)(model.parameters(), lr=1e-2), training_step)


def pruner_of(model, config=ALL, training=train, **options):
    options = {"interval_steps": 3, "total_times": 4} | options
    return SpikingDynamicPruner(model, config, evaluator_of(model, training), **options)


def kept(masks):
    return {name: int(targets["weight"].sum()) for name, targets in masks.items()}


@pytest.mark.parametrize("ratio", [0.0, 0.37, 0.8, 0.953])
def test_without_a_distribution_every_layer_keeps_exactly_what_level_pruner_keeps(ratio):
    config = [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": ratio}]
    _, masks = pruner_of(conv_net(), config, distribution=None).compress(max_steps=15, max_epochs=None)
    model = conv_net()
    agp = AGPPruner(LevelPruner(model, config, evaluator_of(model)), interval_steps=3, total_times=4)
    _, level = agp.compress(max_steps=15, max_epochs=None)
    assert kept(masks) == {name: size - int(size * ratio) for name, size in SIZES.items()} == kept(level)


@pytest.mark.parametrize("distribution", registry.names("distributions"))
@pytest.mark.parametrize("ratio", [0.37, 0.8, 0.91])
def test_every_layer_ends_with_exactly_what_its_distribution_asks_for(ratio, distribution):
    config = [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": ratio}]
    pruner = pruner_of(conv_net(), config, distribution=distribution)
    _, masks = pruner.compress(max_steps=15, max_epochs=None)
    assert kept(masks) == pruner.dynamic.requested
    assert sum(kept(masks).values()) == round((1 - ratio) * sum(SIZES.values()))


def test_connections_that_were_dead_live_again():
    alive = []

    def watching(model, optimizer, training_step, *rest):
        for step in range(15):
            optimizer.zero_grad()
            training_step(batch(step), model).backward()
            optimizer.step()
            alive.append(export_masks(pruner)["4"]["weight"].bool())

    pruner = pruner_of(conv_net(), training=watching, swap={"name": "constant", "value": 0.5})
    pruner.compress(max_steps=15, max_epochs=None)
    regrown = sum(int((now & ~before).sum()) for before, now in itertools.pairwise(alive))
    assert regrown > 0
    assert pruner.dynamic.born >= regrown


def test_connections_move_unless_one_says_otherwise():
    moving, still = pruner_of(conv_net()), pruner_of(conv_net(), swap=None)
    for pruner in (moving, still):
        pruner.compress(max_steps=15, max_epochs=None)
    assert moving.dynamic.born > 0 == still.dynamic.born


def test_weights_are_sparse_after_unwrapping_and_those_of_nni_are_not():
    model = conv_net()
    pruner = pruner_of(model)
    _, masks = pruner.compress(max_steps=15, max_epochs=None)
    pruner.unwrap_model()
    for name, layer in weight_layers(model).items():
        assert torch.equal(layer.weight.detach() != 0, masks[name]["weight"].bool())
    other = conv_net()
    agp = AGPPruner(LevelPruner(other, ALL, evaluator_of(other)), interval_steps=3, total_times=4)
    agp.compress(max_steps=15, max_epochs=None)
    agp.unwrap_model()
    assert int((other[7].weight != 0).sum()) > SIZES["7"] - int(0.8 * SIZES["7"])


@pytest.mark.parametrize("place", ["habit", "option", "entry"])
def test_the_layers_of_an_entry_share_its_budget(place):
    config = [{"op_types": ["Conv2d"], "sparse_ratio": 0.8}, {"op_types": ["Linear"], "sparse_ratio": 0.5}]
    options = {"distribution": "erk"} if place == "option" else {}
    if place == "entry":
        config[0]["distribution"] = "erk"
        options["distribution"] = None
    _, masks = pruner_of(conv_net(), config, **options).compress(max_steps=15, max_epochs=None)
    found = kept(masks)
    assert found["7"] == 80
    assert found["0"] + found["4"] == round(0.2 * 54 + 0.2 * 432)
    assert found["0"] / 54 > 0.5 > found["4"] / 432


def test_a_global_group_id_ranks_its_layers_together_as_nni_does():
    config = [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.8, "global_group_id": 0}]
    _, masks = pruner_of(conv_net(), config).compress(max_steps=15, max_epochs=None)
    found = kept(masks)
    assert sum(found.values()) == round(0.2 * sum(SIZES.values()))
    uniform = pruner_of(conv_net(), config, distribution=None).compress(max_steps=15, max_epochs=None)[1]
    assert kept(uniform) == found  # the group is the config's own word
    assert any(found[name] != round(0.2 * size) for name, size in SIZES.items())


def test_an_entry_chooses_criterion_and_growth_for_its_layers():
    asked = {"criterion": [], "growth": []}

    def spying(key):
        def score(layer):
            asked[key].append(layer.name)
            return layer.weight.abs()

        return score

    config = [
        {"op_names": ["4"], "sparse_ratio": 0.8, "criterion": spying("criterion")},
        {"op_names": ["0"], "sparse_ratio": 0.5, "growth": spying("growth")},
        {"op_names": ["7"], "sparse_ratio": 0.5, "growth": {"name": "random"}},
    ]
    pruner = pruner_of(conv_net(), config, swap=schedules.constant(value=0.3), criterion="spike_saliency")
    pruner.compress(max_steps=15, max_epochs=None)
    assert set(asked["criterion"]) == {"asked", "4"}
    assert set(asked["growth"]) == {"asked", "0"}


def test_layers_outside_the_config_stay_dense_and_their_masks_are_not_there():
    model = conv_net()
    _, masks = pruner_of(model, [{"op_names": ["4"], "sparse_ratio": 0.9}]).compress(15, None)
    assert masks.keys() == {"4"}
    assert int(model[7].weight.count_nonzero()) == SIZES["7"]


def test_a_wrapped_model_can_be_copied_after_a_training_pass_and_the_copy_lives_its_own_life():
    model = conv_net()
    pruner = pruner_of(model)
    pruner.compress(max_steps=15, max_epochs=None)
    training_step(batch(0), model).backward()
    reset_(model)
    twin = copy.deepcopy(model)
    x = batch(1)[0]
    expected = model.eval()(x)
    reset_(model)
    assert torch.equal(twin.eval()(x), expected)
    with torch.no_grad():
        twin[7]._nni_wrapper.weight.zero_()
    reset_(twin)
    assert not torch.equal(twin(x), expected)
    assert torch.equal(model(x), expected)


def test_a_wrapped_model_keeps_its_masks_through_a_state_dict_and_a_file():
    model = conv_net()
    pruner = pruner_of(model)
    _, masks = pruner.compress(max_steps=15, max_epochs=None)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = conv_net(3)
    again = pruner_of(other)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert all(torch.equal(mask["weight"], again.get_masks()[name]["weight"]) for name, mask in masks.items())


@pytest.mark.parametrize("rule", ["drop_grow", "stds"])
def test_nothing_of_ours_is_left_behind_when_it_is_over(rule):
    model = conv_net()
    options = {"threshold": schedules.sine(last=0.05)} if rule == "stds" else {"criterion": "spike_saliency"}
    config = [{"op_types": ["Conv2d", "Linear"]} | ({"sparse_ratio": 0.8} if rule == "drop_grow" else {})]
    before = set(model.state_dict())
    pruner = pruner_of(model, config, rule=rule, auto_reset="forward", **options)
    pruner.compress(max_steps=15, max_epochs=None)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    pruner.unwrap_model()
    assert set(model.state_dict()) == before
    assert not any("nni" in name for name, _ in model.named_modules())
    reset_(model)
    assert torch.isfinite(model.eval()(batch(0)[0])).all()


def test_the_effective_weights_of_stds_become_the_weights():
    model = conv_net()
    config = [{"op_types": ["Conv2d", "Linear"]}]
    pruner = pruner_of(
        model, config, rule="stds", total_times=12, interval_steps=1, threshold={"name": "sine", "last": 0.1}
    )
    _, masks = pruner.compress(max_steps=15, max_epochs=None)
    x = batch(0)[0]
    reset_(model)
    wrapped = model.eval()(x)
    reset_(model)
    pruner.unwrap_model()
    assert torch.equal(model(x), wrapped)
    for name, layer in weight_layers(model).items():
        assert torch.equal(layer.weight.detach() != 0, masks[name]["weight"].bool())
    assert 0 < kept(masks)["4"] < 432


def test_the_bias_of_a_channel_that_no_input_reaches_is_masked_and_zero():
    model = conv_net()
    config = [{"op_names": ["4"], "sparse_ratio": 0.985}]
    pruner = pruner_of(model, config, schedule="linear")
    _, masks = pruner.compress(max_steps=15, max_epochs=None)
    empty = masks["4"]["weight"].flatten(1).sum(1) == 0
    assert bool(empty.any())
    assert not masks["4"]["bias"][empty].any()
    pruner.unwrap_model()
    assert not model[4].bias.detach()[empty].any()


def test_an_optimizer_of_ones_own_is_noticed():
    model = conv_net()
    own = torch.optim.SGD(model.parameters(), lr=0.1)

    def with_own(model, optimizer, training_step, *rest):
        for step in range(15):
            own.zero_grad()
            training_step(batch(step), model).backward()
            own.step()

    with pytest.raises(BadOption, match="never stepped the optimizer that NNI hands it"):
        pruner_of(model, training=with_own).compress(max_steps=15, max_epochs=None)


def test_an_optimizer_without_parameters_is_refused_before_training():
    model = conv_net()
    traced = nni.trace(torch.optim.SGD)(model.named_parameters(), lr=0.1)
    evaluator = TorchEvaluator(train, traced, training_step)
    pruner = SpikingDynamicPruner(model, ALL, evaluator, interval_steps=3, total_times=4)
    with pytest.raises(BadOption, match="does not hold the weight of layer '0'"):
        pruner.compress(max_steps=15, max_epochs=None)


def test_a_training_that_ends_too_early_says_what_is_missing(caplog):
    with pytest.raises(BadOption, match="last update of the masks at step 12"):
        pruner_of(conv_net()).compress(max_steps=11, max_epochs=None)
    with pytest.raises(BadOption, match="max_steps or max_epochs"):
        pruner_of(conv_net()).compress(None, None)
    with caplog.at_level(logging.WARNING):
        pruner_of(conv_net(), total_times=5).compress(max_steps=None, max_epochs=1)
    assert "training ended at step 10, before the last update of the masks at step 15" in caplog.text


@pytest.mark.parametrize("rule", ["drop_grow", "stds"])
def test_who_trains_on_after_it_is_over_keeps_the_zeros(rule):
    model = conv_net()
    options = {"threshold": schedules.sine(last=0.1)} if rule == "stds" else {}
    entry = {"op_types": ["Conv2d", "Linear"]} | ({"sparse_ratio": 0.8} if rule == "drop_grow" else {})
    pruner = pruner_of(model, [entry], rule=rule, **options)
    _, masks = pruner.compress(max_steps=15, max_epochs=None)
    own = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    train(model, own, training_step, None, 5, None)
    _, again = pruner.compress(max_steps=5, max_epochs=None)
    pruner.unwrap_model()
    for name, layer in weight_layers(model).items():
        assert torch.equal(masks[name]["weight"], again[name]["weight"])
        assert not layer.weight.detach()[masks[name]["weight"] == 0].any()


def test_a_run_that_ended_too_early_can_be_run_again():
    pruner = pruner_of(conv_net(), total_times=5)
    pruner.compress(max_steps=None, max_epochs=1)
    assert pruner.dynamic.density > 0.2
    _, masks = pruner.compress(max_steps=15, max_epochs=None)
    assert sum(kept(masks).values()) == round(0.2 * sum(SIZES.values()))


def test_what_was_trained_while_unwrapped_is_not_forgotten():
    model = conv_net()
    pruner = pruner_of(model)
    pruner.compress(max_steps=15, max_epochs=None)
    pruner.unwrap_model()
    with torch.no_grad():
        model[7].weight.add_(1.0)
    changed = model[7].weight.detach().clone()
    pruner.wrap_model()
    assert torch.equal(model[7]._nni_wrapper.weight, changed)


def test_a_refused_pruner_leaves_the_model_as_it_was():
    model = conv_net()
    before = set(model.state_dict())
    with pytest.raises(UnknownName):
        pruner_of(model, criterion="magnitud")
    assert set(model.state_dict()) == before
    pruner_of(model).compress(max_steps=15, max_epochs=None)


def test_a_step_that_a_loss_scaler_skips_inside_a_fused_optimizer_teaches_no_growth():
    model = conv_net()

    def scaled(model, optimizer, training_step, *rest):
        for step in range(15):
            optimizer.zero_grad()
            training_step(batch(step), model).backward()
            if step == 5:  # an update of the masks is due
                model[7]._nni_wrapper.weight.grad.fill_(float("inf"))
                optimizer.found_inf = torch.tensor(1.0)
                optimizer.step()
                del optimizer.found_inf
            else:
                optimizer.step()

    class Skipping(torch.optim.SGD):
        def step(self, closure=None):
            if not getattr(self, "found_inf", 0):
                super().step(closure)

    traced = nni.trace(Skipping)(model.parameters(), lr=0.1, momentum=0.9)
    evaluator = TorchEvaluator(scaled, traced, training_step)
    pruner = SpikingDynamicPruner(model, ALL, evaluator, interval_steps=3, total_times=4, growth="gradient")
    _, masks = pruner.compress(max_steps=15, max_epochs=None)
    assert sum(kept(masks).values()) == round(0.2 * sum(SIZES.values()))


def test_an_exclude_entry_of_the_old_format_excludes():
    config = [{"op_types": ["Conv2d", "Linear"], "sparsity_per_layer": 0.8}, {"exclude": True, "op_names": ["7"]}]
    _, masks = pruner_of(conv_net(), config).compress(max_steps=15, max_epochs=None)
    assert masks.keys() == {"0", "4"}


def test_two_names_of_one_module_or_one_weight_are_refused():
    class Twice(nn.Module):
        def __init__(self, tied):
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = nn.Linear(4, 4) if tied else self.a
            if tied:
                self.b.weight = self.a.weight

    for tied, words in ((False, "are one module"), (True, "share one weight")):
        model = Twice(tied)
        with pytest.raises(BadOption, match=words):
            SpikingDynamicPruner(model, [{"op_types": ["Linear"], "sparse_ratio": 0.5}])


def test_a_weight_put_together_from_several_parameters_is_refused():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
    with pytest.raises(BadOption, match="remove that parametrization"):
        DynamicPruner(model, torch.optim.SGD(model.parameters(), lr=0.1), density=DENSE, total_steps=10)


def test_a_module_of_another_pruner_is_not_taken_over_in_silence():
    model = conv_net()
    level = LevelPruner(model, [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}], evaluator_of(model))
    with pytest.raises(BadOption, match="belongs to the pruner that this one is made from"):
        SpikingDynamicPruner.from_compressor(level, ALL)


def test_nni_s_wrappers_are_exchanged_and_foreign_ones_are_not():
    model = conv_net()
    pruner = pruner_of(model)
    assert {type(wrapper) for wrapper in pruner._module_wrappers.values()} == {LightWrapper}


class Named(nn.Module):
    """A module whose type NNI knows and which has no connections."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.norm(x))


@pytest.mark.parametrize(
    ("error", "words", "entry", "options"),
    [
        (BadOption, "has no sparse_ratio", {"sparse_ratio": None}, {}),
        (BadOption, "must lie in [0, 1)", {"sparse_ratio": 1.0}, {}),
        (BadOption, "sparse_ratio", {"sparse_ratio": 1}, {}),
        (BadOption, "Wrong key 'regrow'", {"regrow": 0.3}, {}),
        (BadOption, "rule='stds'", {"sparse_ratio": None, "sparse_threshold": 0.1}, {}),
        (BadOption, "max_sparse_ratio", {"max_sparse_ratio": 0.9}, {}),
        (BadOption, "granularity='out_channel'", {"granularity": "out_channel"}, {}),
        (BadOption, "apply_method='add'", {"apply_method": "add"}, {}),
        (BadOption, "did you mean 'magnitude'", {"criterion": "magnitud"}, {}),
        (BadOption, "has no option 'powr'", {"criterion": {"name": "spike_saliency", "powr": 1.0}}, {}),
        (BadOption, "did you mean 'erk'", {"distribution": "erkk"}, {}),
        (NothingMatched, "'fc' matches no module", {"op_types": None, "op_names": ["fc"]}, {}),
        (NothingMatched, "did you mean 'Linear'", {"op_types": ["Conv2d", "Linaer"]}, {}),
        (NothingMatched, "'8' matches no module", {"exclude_op_names": ["8"]}, {}),
        (NothingMatched, "'fcx.*' matches no module", {"op_types": None, "op_names_re": ["4", "fcx.*"]}, {}),
        (BadOption, "is no regular expression", {"op_types": None, "op_names_re": ["conv("]}, {}),
        (NothingMatched, "selects no module", {"op_names": ["2"], "op_types": ["Conv2d"]}, {}),
        (BadOption, "register_settings(LIFNode)", {"op_types": ["LIFNode"]}, {}),
        (BadOption, "'wieght' is no target here", {"target_names": ["wieght"]}, {}),
        (BadOption, "interval_steps='2'", {}, {"interval_steps": "2"}),
        (BadOption, "total_times=2.5", {}, {"total_times": 2.5}),
        (BadOption, "seed='a'", {}, {"seed": "a"}),
        (BadOption, "paths='no'", {}, {"paths": "no"}),
        (BadOption, "None is none", {}, {"criterion": None}),
        (BadOption, "None is none", {}, {"growth": None}),
        (
            BadOption,
            "rule 'stds' has none",
            {"sparse_ratio": None},
            {"rule": "stds", "threshold": {"name": "sine", "last": 1.0}, "schedule": "linear"},
        ),
        (
            BadOption,
            "shares no budget",
            {"sparse_ratio": None, "distribution": "erk"},
            {"rule": "stds", "threshold": {"name": "sine", "last": 1.0}},
        ),
        (BadOption, "no connections to prune", {"op_types": ["BatchNorm2d"]}, {}),
        (NothingMatched, "selects no weight", {"target_names": ["bias"]}, {}),
        (UnknownName, "unknown rule", {}, {"rule": "drop_grov"}),
        (UnknownName, "did you mean 'gradient'", {}, {"growth": "gradien"}),
        (UnknownName, "did you mean 'cubic'", {}, {"schedule": "cubi"}),
        (BadOption, "ends at 0.5", {}, {"schedule": {"name": "linear", "last": 0.5}}),
        (BadOption, "must stay in [0, 1]", {}, {"schedule": {"name": "linear", "first": -1.0}}),
        (BadOption, "needs the option 'first'", {}, {"swap": "cosine"}),
        (BadOption, "density is what the config's sparse_ratio says", {}, {"density": 0.1}),
        (BadOption, "has no option 'swop'", {}, {"swop": 0.1}),
        (BadOption, "is no schedule", {}, {"swap": 0.3}),
        (BadOption, "takes no sparse_ratio", {}, {"rule": "stds", "threshold": {"name": "sine", "last": 1.0}}),
        (BadOption, "auto_reset=True", {}, {"auto_reset": True}),
        (BadOption, "interval_steps=0", {}, {"interval_steps": 0}),
        (BadOption, "total_times=0", {}, {"total_times": 0}),
    ],
)
def test_what_cannot_be_pruned_is_said_in_one_sentence(error, words, entry, options):
    entry = {key: value for key, value in (ALL[0] | entry).items() if value is not None}
    with pytest.raises(error) as caught:
        pruner_of(conv_net(), [entry], **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, SnnslError)


@pytest.mark.parametrize("config", [None, [], {}, ["Conv2d"]])
def test_a_config_list_is_a_list_of_dicts(config):
    with pytest.raises(BadOption, match="give a list of dicts"):
        SpikingDynamicPruner(conv_net(), config)


def test_a_module_that_two_entries_select_is_refused():
    config = [ALL[0], {"op_names": ["4"], "sparse_ratio": 0.9}]
    with pytest.raises(BadOption, match="two entries of the config list select '4'"):
        SpikingDynamicPruner(conv_net(), config)


def test_a_wrapped_model_is_refused_and_an_unwrapped_one_cannot_be_compressed():
    model = conv_net()
    pruner = pruner_of(model)
    with pytest.raises(BadOption, match="is wrapped by NNI already"):
        pruner_of(model)
    pruner.unwrap_model()
    with pytest.raises(BadOption, match="call wrap_model"):
        pruner.compress(max_steps=15, max_epochs=None)


def test_an_unknown_distribution_for_all_is_said_too():
    with pytest.raises(UnknownName, match="did you mean 'uniform'"):
        pruner_of(conv_net(), distribution="unifrom")


def test_a_layer_that_would_keep_nothing_is_refused_before_training():
    config = [{"op_types": ["Conv2d"], "sparse_ratio": 0.999, "distribution": "uniform"}]
    with pytest.raises(BadOption, match="would keep none"):
        pruner_of(conv_net(), config).compress(max_steps=15, max_epochs=None)


def test_without_an_evaluator_it_cannot_train():
    with pytest.raises(BadOption, match="give it an evaluator"):
        SpikingDynamicPruner(conv_net(), ALL).compress(max_steps=300, max_epochs=None)
