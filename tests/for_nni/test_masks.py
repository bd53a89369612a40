import nni
import pytest
import torch
from networks import batch, conv_net
from nni.compression import TorchEvaluator
from nni.compression.pruning import AGPPruner, LevelPruner

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.errors import BadOption, NothingMatched
from snnsl_plugin.for_nni import apply_masks_, export_masks
from snnsl_plugin.training.losses import cross_entropy

CONFIG = [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.5}]


def step_(model, optimizer):
    x, y = batch(0)
    reset_(model)
    optimizer.zero_grad()
    cross_entropy(model(x), y).backward()
    optimizer.step()


def pruned():
    """A model that NNI's own pruner has wrapped, and that pruner."""
    model = conv_net()

    def train(model, optimizer, training_step, scheduler, max_steps, max_epochs):
        for _ in range(max_steps):
            optimizer.zero_grad()
            training_step(batch(0), model).backward()
            optimizer.step()

    def training_step(batch, model):
        reset_(model)
        return cross_entropy(model(batch[0]), batch[1])

    evaluator = TorchEvaluator(train, nni.trace(torch.optim.Adam)(model.parameters(), lr=0.01), training_step)
    pruner = AGPPruner(LevelPruner(model, CONFIG, evaluator), interval_steps=1, total_times=2)
    pruner.compress(max_steps=4, max_epochs=None)
    return model, pruner


def test_exported_masks_are_plain_and_load_with_weights_only(tmp_path):
    _, pruner = pruned()
    masks = export_masks(pruner)
    assert type(masks) is dict
    assert all(type(targets) is dict for targets in masks.values())
    assert masks["0"].keys() == {"weight"}  # it has no bias
    torch.save(masks, tmp_path / "masks.pt")
    again = torch.load(tmp_path / "masks.pt", weights_only=True)
    assert all(torch.equal(again[name]["weight"], mask["weight"]) for name, mask in masks.items())
    assert export_masks(pruner.get_masks()).keys() == masks.keys()


def test_an_exported_mask_is_a_copy_and_nni_takes_it_back():
    _, pruner = pruned()
    masks = export_masks(pruner)
    masks["7"]["weight"].zero_()
    assert pruner.get_masks()["7"]["weight"].any()
    pruner.update_masks(masks)
    assert not pruner.get_masks()["7"]["weight"].any()


@pytest.mark.parametrize("wrapped", [True, False])
def test_masked_weights_become_exactly_zero_and_others_stay(wrapped):
    model, pruner = pruned()
    masks = export_masks(pruner)
    if not wrapped:
        pruner.unwrap_model()
    assert apply_masks_(model, masks) is None
    if wrapped:
        pruner.unwrap_model()
    weight, mask = model[4].weight.detach(), masks["4"]["weight"].bool()
    assert not weight[~mask].any()
    assert weight[mask].all()


def test_zeros_stay_zeros_while_an_optimizer_trains_on_until_it_is_told_to_stop():
    model, pruner = pruned()
    masks = export_masks(pruner)
    pruner.unwrap_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    handle = apply_masks_(model, masks, optimizer)
    for _ in range(3):
        step_(model, optimizer)
        assert not model[4].weight.detach()[~masks["4"]["weight"].bool()].any()
    handle.remove()
    step_(model, optimizer)
    assert model[4].weight.detach()[~masks["4"]["weight"].bool()].any()


def test_masks_may_be_bool():
    model = conv_net()
    apply_masks_(model, {"7": {"weight": torch.zeros(5, 32, dtype=torch.bool), "bias": None}})
    assert not model[7].weight.any()
    assert model[7].bias.any()


@pytest.mark.parametrize(
    ("error", "words", "masks"),
    [
        (NothingMatched, "'fc'", {"fc": {"weight": torch.ones(1)}}),
        (NothingMatched, "no parameter '_output_0'", {"7": {"_output_0": torch.ones(1)}}),
        (BadOption, "masks of another model", {"7": {"weight": torch.ones(2, 2)}}),
    ],
)
def test_masks_of_another_model_are_refused_and_nothing_is_changed(error, words, masks):
    model = conv_net()
    before = model[7].weight.detach().clone()
    with pytest.raises(error, match=words):
        apply_masks_(model, masks)
    assert torch.equal(model[7].weight, before)


def test_an_optimizer_of_the_wrapped_model_is_refused():
    model, pruner = pruned()
    old = torch.optim.SGD(model.parameters(), lr=0.1)
    masks = export_masks(pruner)
    pruner.unwrap_model()
    with pytest.raises(BadOption, match="holds none of the masked parameters"):
        apply_masks_(model, masks, old)
