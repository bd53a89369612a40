import copy
from functools import partial

import pytest
import torch
from networks import batch, conv_net
from torch import nn

from snnsl_plugin import registry
from snnsl_plugin.anatomy import reset_, weight_layers
from snnsl_plugin.core import criteria, distributions, schedules
from snnsl_plugin.errors import BadCheckpoint, BadOption, Disconnected, MissingStatistic, NothingMatched, UnknownName
from snnsl_plugin.training.events import MaskUpdate
from snnsl_plugin.training.losses import cross_entropy
from snnsl_plugin.training.pruner import DynamicPruner
from snnsl_plugin.training.statistics import BEHIND, needed

DENSITY = schedules.cubic(first=1.0, last=0.2)
SWAP = schedules.cosine(first=0.5, last=0.0)
HALF = schedules.cubic(first=1.0, last=0.5)


def trained(steps: int, *, model: nn.Module | None = None, optimizer=None, pruner=None, **options):
    """A model trained for some steps of 20, with a pruner of these options."""
    model = model or conv_net()
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=1e-2)
    pruner = pruner or DynamicPruner(
        model, optimizer, **({"every": "5it", "total_steps": 20, "density": DENSITY} | options)
    )
    events = []
    for _ in range(steps):
        x, y = batch(pruner.step_number)
        reset_(model)
        cross_entropy(model(x), y).backward()
        optimizer.step()
        event = pruner.step()
        optimizer.zero_grad()
        if event:
            events.append(event)
    return model, optimizer, pruner, events


def test_updates_come_at_the_steps_asked_for_and_the_last_one_always() -> None:
    *_, events = trained(20, every="5it", start="3it", until="80%")
    assert [event.step for event in events] == [3, 8, 13, 16]
    assert events[0].progress == 0.0
    assert events[-1].progress == 1.0
    assert events[-1].density == round(0.2 * 646) / 646


def test_density_is_exact_at_every_update_and_dead_weights_are_exactly_zero() -> None:
    model, optimizer, pruner, _ = trained(0, swap=SWAP)
    total = sum(layer.weight.numel() for layer in weight_layers(model).values())
    for _ in range(16):
        *_, events = trained(1, model=model, optimizer=optimizer, pruner=pruner)
        for name, layer in weight_layers(model).items():
            assert not layer.weight.detach()[~pruner.masks[f"{name}.weight"]].any()
        if events:
            assert sum(int(m.sum()) for m in pruner.masks.values()) == round(DENSITY(events[0].progress) * total)
    assert pruner.density == round(0.2 * total) / total


def test_regrowth_is_real_and_counted() -> None:
    model, optimizer, pruner, _ = trained(5, swap=SWAP)
    before = {name: mask.clone() for name, mask in pruner.masks.items()}
    *_, events = trained(5, model=model, optimizer=optimizer, pruner=pruner)
    born = sum(int((mask & ~before[name]).sum()) for name, mask in pruner.masks.items())
    assert born == sum(events[0].born.values()) > 0
    assert pruner.born == born


def test_newborns_start_at_zero_with_a_forgotten_past_while_survivors_keep_theirs() -> None:
    model, optimizer, pruner, _ = trained(5, swap=SWAP)
    before = {name: mask.clone() for name, mask in pruner.masks.items()}
    trained(5, model=model, optimizer=optimizer, pruner=pruner)
    seen = 0
    for name, layer in weight_layers(model).items():
        born = pruner.masks[f"{name}.weight"] & ~before[f"{name}.weight"]
        seen += int(born.sum())
        for key in ("exp_avg", "exp_avg_sq"):
            assert not optimizer.state[layer.weight][key][born].any()
            assert optimizer.state[layer.weight][key][~born].any()
        assert not layer.weight.detach()[born].any()
    assert seen


def test_moments_of_dead_weights_keep_running_on_the_dense_gradient() -> None:
    model, optimizer, pruner, _ = trained(10)
    layer, mask = model[4], pruner.masks["4.weight"]
    was = optimizer.state[layer.weight]["exp_avg"][~mask].clone()
    trained(1, model=model, optimizer=optimizer, pruner=pruner)
    assert not torch.equal(optimizer.state[layer.weight]["exp_avg"][~mask], was)


@pytest.mark.parametrize("make", [
    lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=1e-2),
    lambda p: torch.optim.RMSprop(p, lr=1e-3),
    lambda p: torch.optim.Adagrad(p, lr=1e-2),
])  # fmt: skip
def test_any_optimizer_ends_at_the_density_asked_for(make) -> None:
    model = conv_net()
    *_, pruner, _ = trained(20, model=model, optimizer=make(model.parameters()), swap=SWAP)
    assert pruner.density == round(0.2 * 646) / 646


@pytest.mark.parametrize("kind", ["criteria", "growth", "distributions"])
def test_every_registered_function_works_by_name(kind: str) -> None:
    option = {"criteria": "criterion", "growth": "growth", "distributions": "distribution"}[kind]
    for name in registry.names(kind):
        # The readout drives no neuron, so there is no rate and no potential behind it.
        needs = set() if kind == "distributions" else needed([registry.get(kind, name)])
        exclude = ["7"] if needs & BEHIND else []
        density = schedules.constant(value=0.4)
        *_, pruner, events = trained(16, swap=SWAP, density=density, exclude=exclude, **{option: name})
        assert pruner.density == round(0.4 * 646) / 646, name
        assert sum(sum(event.born.values()) for event in events), name


@pytest.mark.parametrize("options", [
    {"criterion": "spike_saliency", "growth": "random", "swap": SWAP},
    {"criterion": "fisher", "growth": "momentum", "swap": SWAP, "distribution": "uniform"},
    {"criterion": "synop_value", "growth": "coincidence", "swap": SWAP, "exclude": ["7"], "density": HALF},
    {"criterion": "criticality", "growth": "gradient_per_synop", "swap": SWAP, "exclude": ["7"], "density": HALF},
    {"criterion": "hebbian", "distribution": "global", "exclude": ["7"], "density": HALF},
    {"rule": "stds", "threshold": schedules.sine(last=0.1)},
    {"rule": "sca", "exclude": ["7"], "density": schedules.cubic(first=1.0, last=0.6), "swap": SWAP, "sample_every": 2},
])  # fmt: skip
def test_resumed_from_plain_state_it_goes_on_bit_for_bit(tmp_path, options: dict) -> None:
    from snnsl_plugin.training import checkpoint

    def fresh():
        return _stds() if "threshold" in options else trained(0, **options)

    def _stds():
        model = conv_net()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        rest = {k: v for k, v in options.items() if k != "rule"}
        return model, optimizer, DynamicPruner(model, optimizer, "stds", total_steps=20, **rest), []

    whole = fresh()
    trained(18, model=whole[0], optimizer=whole[1], pruner=whole[2])
    half = fresh()
    trained(7, model=half[0], optimizer=half[1], pruner=half[2])
    state = {"model": half[0].state_dict(), "optimizer": half[1].state_dict(), "pruner": half[2].state_dict()}
    checkpoint.save(tmp_path / "c.safetensors", state)
    saved = checkpoint.load(tmp_path / "c.safetensors")
    again = fresh()
    again[0].load_state_dict(saved["model"])
    again[1].load_state_dict(saved["optimizer"])
    again[2].load_state_dict(saved["pruner"])
    trained(11, model=again[0], optimizer=again[1], pruner=again[2])
    for name, mask in whole[2].masks.items():
        assert torch.equal(mask, again[2].masks[name])
    for name, value in whole[0].state_dict().items():
        assert torch.equal(value, again[0].state_dict()[name]), name
    assert whole[2].born == again[2].born


def test_stds_mounts_on_the_weight_and_leaves_plain_zeros() -> None:
    model = conv_net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    pruner = DynamicPruner(model, optimizer, "stds", total_steps=20, until="100%", threshold=schedules.sine(last=0.15))
    *_, events = trained(20, model=model, optimizer=optimizer, pruner=pruner)
    assert [event.step for event in events] == [
        10,
        20,
    ]  # the threshold moves at every step, and is looked at at every 10th
    assert events[0].density > events[-1].density
    masks = {name: mask.clone() for name, mask in pruner.masks.items()}
    x, _ = batch()
    reset_(model)
    before = model.eval()(x)
    pruner.finish()
    reset_(model)
    assert torch.equal(model(x), before)
    assert set(model.state_dict()) == set(conv_net().state_dict())
    for name, layer in weight_layers(model).items():
        assert torch.equal(layer.weight.detach() != 0, masks[f"{name}.weight"])


def test_a_density_below_one_at_step_zero_starts_from_random_masks() -> None:
    def start(seed: int) -> DynamicPruner:
        return trained(0, density=schedules.constant(value=0.3), seed=seed)[2]

    one, same, other = start(1), start(1), start(2)
    assert one.density == round(0.3 * 646) / 646
    assert all(torch.equal(m, same.masks[n]) for n, m in one.masks.items())
    assert any(not torch.equal(m, other.masks[n]) for n, m in one.masks.items())


def test_excluded_layers_stay_dense_and_count() -> None:
    *_, pruner, _ = trained(16, exclude=["0", "7"], density=schedules.cubic(first=1.0, last=0.6))
    assert bool(pruner.masks["0.weight"].all())
    assert bool(pruner.masks["7.weight"].all())
    kept = round(0.6 * pruner_total(pruner))
    assert int(pruner.masks["4.weight"].sum()) == kept - 54 - 160


def pruner_total(pruner: DynamicPruner) -> int:
    return sum(mask.numel() for mask in pruner.masks.values())


def test_spike_statistics_equal_a_count_by_hand_over_the_sampled_steps() -> None:
    seen: list[torch.Tensor] = []
    asked: list[tuple[torch.Tensor, float]] = []

    def spy(layer):
        if layer.name == "4":
            asked.append((layer.need("pre_spikes").clone(), layer.pre_slots))
        return criteria.spike_saliency(layer)

    model, optimizer, pruner, _ = trained(0, criterion=spy, sample_every=2)
    model[4].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()) if module.training else None)
    trained(5, model=model, optimizer=optimizer, pruner=pruner)
    counted = [seen[i] for i in (1, 3, 4)]  # steps 2 and 4 by sampling, and the step of the update itself
    assert asked[0][0].tolist() == sum((x != 0).sum((0, 1, 3, 4)) for x in counted).tolist()
    assert asked[0][1] == 3 * 3 * 8 * 4


def test_only_what_is_asked_for_is_recorded() -> None:
    model, *_ = trained(1)
    assert not model[0]._forward_pre_hooks
    model, *_, pruner, _ = trained(1, criterion="spike_saliency")
    assert model[0]._forward_pre_hooks
    pruner.finish()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_choice_does_not_depend_on_what_pythons_hash_says() -> None:
    import subprocess
    import sys

    code = "from snnsl_plugin.training.seeds import derived; print(derived(3, 'mask', 'features.0'))"
    seeds = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                       env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(seeds) == 1


def test_a_channel_without_input_falls_silent_and_wakes_as_new() -> None:
    model = conv_net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    alive = {"row": False}

    def fixed(layer):
        scores = torch.ones_like(layer.weight)
        if layer.name == "0":
            scores[0] = 2.0 if alive["row"] else 0.0  # the first row is the first to go
        return scores

    pruner = DynamicPruner(
        model,
        optimizer,
        criterion=fixed,
        growth=fixed,
        distribution=distributions.uniform,
        density=lambda done: 0.5 if done < 0.9 else 0.6,
        every="1it",
        start="1it",
        until="3it",
    )
    trained(1, model=model, optimizer=optimizer, pruner=pruner)
    assert not pruner.masks["0.weight"][0].any()
    norm = model[1]
    assert norm.weight[0] == norm.bias[0] == 0
    reset_(model)
    assert not model[:3].eval()(batch()[0])[:, :, 0].any()  # it fires nothing, whatever its shift would have been
    model.train()
    live = trained(1, model=model, optimizer=optimizer, pruner=pruner)[3][0].connections
    assert live < sum(int(mask.sum()) for mask in pruner.masks.values())  # its outgoing connections do not count
    alive["row"] = True
    trained(1, model=model, optimizer=optimizer, pruner=pruner)
    assert pruner.masks["0.weight"][0].any()
    assert (norm.weight[0].item(), norm.bias[0].item()) == (1.0, 0.0)
    assert optimizer.state[norm.weight]["exp_avg"][0] == 0


def test_every_wrong_call_is_a_sentence() -> None:
    model = conv_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    make = partial(DynamicPruner, model, optimizer, total_steps=10, density=DENSITY)
    for options, error, words in [
        ({"rule": "drop_gro"}, UnknownName, "unknown rule 'drop_gro'; did you mean 'drop_grow'"),
        ({"criterion": "magnitud"}, UnknownName, "did you mean 'magnitude'"),
        ({"criterion": 3}, BadOption, "criterion=3 is neither a function nor the name of one of"),
        ({"densty": DENSITY}, BadOption, "rule 'drop_grow' has no option 'densty'; did you mean 'density'"),
        ({"every": "0it"}, BadOption, "must be at least one step"),
        ({"start": "9it", "until": "80%"}, BadOption, "must come after start"),
        ({"until": "2ep"}, BadOption, "pass steps_per_epoch"),
        ({"layers": ["conv*"]}, NothingMatched, r"layers: the pattern 'conv\*' matches no layer"),
        ({"exclude": ["9"]}, NothingMatched, "exclude: the pattern '9' matches no layer"),
        ({"exclude": ["*"]}, NothingMatched, "no layer is left to prune"),
        ({"newborn_v": "one"}, BadOption, "choose 'zero' or 'layer_mean'"),
        ({"until": "11it"}, BadOption, "after the end of the training at step 10"),
        ({"density": "cubic"}, BadOption, r"a schedule needs its options, as in cubic\(first=..., last=...\)"),
        ({"density": None}, BadOption, "needs the option 'density'"),
        ({"density": schedules.constant(value=1.5)}, BadOption, "density is 1.5: it must stay in"),
        ({"swap": schedules.constant(value=1.5)}, BadOption, "swap is 1.5 at progress 0"),
        ({"growth": "momentum"}, BadOption, "SGD has none here"),
        ({"density": schedules.cubic(first=1.0, last=0.001)}, BadOption, "would keep none of its"),
        ({"exclude": ["4"]}, BadOption, "the excluded layers alone hold 432"),
    ]:
        with pytest.raises(error, match=words):
            make(**options)
    with pytest.raises(BadOption, match="rule 'drop_grow' needs the option 'density'"):
        DynamicPruner(model, optimizer, total_steps=10)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())  # a failed call leaves nothing


def test_what_was_not_done_in_time_is_a_sentence() -> None:
    model = conv_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = DynamicPruner(model, optimizer, every="1it", until="3it", density=DENSITY, swap=SWAP)
    with pytest.raises(MissingStatistic, match=r"layer '\d' has no grad: call the pruner after loss.backward\(\)"):
        pruner.step()
    other = DynamicPruner(model, optimizer, every="1it", until="3it", density=DENSITY, exclude=["0"])
    with pytest.raises(
        BadCheckpoint, match=r"of another pruner \(prunable \['4', '7'\] instead of \['0', '4', '7'\]\)"
    ):
        pruner.load_state_dict(other.state_dict())


def test_a_network_cut_in_two_is_an_error_and_not_a_result() -> None:
    def only_the_first_input(layer):
        scores = torch.zeros_like(layer.weight)
        if layer.name == "4":
            scores[:, 0] = 1  # the second convolution reads channel 0 only ...
        if layer.name == "0":
            scores[1:] = 1  # ... which the first one no longer writes
        return scores

    with pytest.raises(Disconnected, match="no path leads from the input to the output"):
        trained(
            1,
            criterion=only_the_first_input,
            distribution="uniform",
            every="1it",
            density=lambda done: 0.125 if done else 1.0,
        )


def test_deepcopy_of_a_model_with_a_pruner_is_independent() -> None:
    model, *_ = trained(5)
    reset_(model)
    other = copy.deepcopy(model)
    assert torch.equal(other[0].weight, model[0].weight)


def test_an_event_is_plain_data() -> None:
    *_, events = trained(5, criterion="spike_saliency")
    assert isinstance(events[0], MaskUpdate)
    assert all(isinstance(v, float) for v in events[0].rates.values())
    assert set(events[0].layers) == {"0", "4", "7"}
