"""Guides that a recipe names: an ANN with features, and the network of any run folder of the project."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torchvision import models

from snnsl_plugin.errors import BadCheckpoint, BadOption, BadRecipe, Stopped, UnknownName
from snnsl_plugin.recipe import assemble, runner
from snnsl_plugin.recipe.digest import digest
from snnsl_plugin.recipe.load import load
from snnsl_plugin.training import checkpoint
from snnsl_plugin.training.events import Epoch

NO_GUIDE = ("train.epochs=1", "~distillation")


@pytest.fixture(scope="module")
def ann_run(tiny, tmp_path_factory):
    """A run of the tiny network without neurons: an ANN of the registry."""
    run_dir = tmp_path_factory.mktemp("runs") / "ann"
    recipe = tiny("model.neuron=relu", "model.channels=[6, 8]", "~pruning", "pruning.type=dense", *NO_GUIDE)
    result = runner.run(recipe, run_dir=run_dir)
    assert result["firing_rate"] == {}
    return run_dir


def test_an_ann_of_the_registry_teaches_answers_and_features_and_an_interrupted_run_goes_on(
    ann_run, tiny, tmp_path, comparable
):
    guide = f"distillation.guide={{name: ann, run: {ann_run}, features: spike1, feature_weight: 2.0}}"
    recipe = tiny("train.epochs=3", guide)
    whole = runner.run(recipe, run_dir=tmp_path / "whole")

    def stop(phase, event):
        if isinstance(event, Epoch) and event.epoch == 2:
            tree = checkpoint.load(tmp_path / "halved" / "checkpoint.safetensors")
            assert tree["distiller"]["align"].shape == (6, 4)  # from 4 channels of the learner to 6 of the guide
            raise Stopped("enough")

    with pytest.raises(Stopped):
        runner.run(recipe, run_dir=tmp_path / "halved", on_event=stop)
    assert comparable(runner.run(recipe, run_dir=tmp_path / "halved", resume=True)) == comparable(whole)
    trees = [checkpoint.load(tmp_path / name / "checkpoint.safetensors")["model"] for name in ("whole", "halved")]
    assert all(torch.equal(value, trees[1][key]) for key, value in trees[0].items())


@pytest.fixture
def pictures(tmp_path):
    """A folder of two classes of noise, in colour."""
    from PIL import Image

    draws = torch.Generator().manual_seed(0)
    for part, label in product(("train", "test"), ("cat", "dog")):
        for number in range(12):
            path = tmp_path / "pictures" / part / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((torch.rand(8, 8, 3, generator=draws) * 255).byte().numpy()).save(path)
    return tmp_path / "pictures"


def of_torchvision(tiny_words, pictures, guide):
    words = tiny_words("train.epochs=1", "train.batch_size=8")
    data = f"data={{name: image_folder, root: {pictures}, size: 32, encoder: {{name: direct, T: 2}}}}"
    kept = [word for word in words if not word.startswith("data.")]
    return load("digits", [*kept, "~data", data, "~distillation.guide", f"distillation.guide={guide}"])


def test_a_network_of_torchvision_teaches_from_a_file_of_weights(tiny_words, pictures, tmp_path):
    torch.manual_seed(0)
    network = models.get_model("resnet18", num_classes=2)
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in network.state_dict().items()}}, tmp_path / "a.pt"
    )
    words = "{name: ann, architecture: resnet18, checkpoint: %s, features: pool1, guide_features: conv1}"
    recipe = of_torchvision(tiny_words, pictures, words % (tmp_path / "a.pt"))
    parts = assemble.data(recipe)
    made = assemble.assemble(recipe, parts)
    x = next(iter(parts.validation.epoch(torch.Generator())))[0]
    answer = made.distiller.guide.network(x)[0]
    torch.testing.assert_close(answer, network.eval()(x.mean(0)))
    assert made.distiller.parameters()[0].shape == (64, 4)
    result = runner.run(recipe, run_dir=tmp_path / "run")
    assert result["status"] == "finished"
    own = digest(recipe)
    with torch.no_grad():
        network.fc.bias.add_(1.0)
    torch.save(network.state_dict(), tmp_path / "a.pt")
    assert digest(recipe) != own  # another file is another guide


@pytest.mark.parametrize(
    ("error", "words", "guide"),
    [
        (BadOption, "guide.run is missing", "{name: ann}"),
        (BadOption, "guide.checkpoint is missing", "{name: ann, architecture: resnet18}"),
        (BadOption, "guide.architecture is missing", "{name: ann, checkpoint: a.pt}"),
        (BadOption, "keep one of the two", "{name: ann, run: a, checkpoint: a.pt}"),
        (UnknownName, "did you mean 'resnet18'", "{name: ann, architecture: resnet81, checkpoint: a.pt}"),
        (BadCheckpoint, "there is no file", "{name: ann, architecture: resnet18, checkpoint: nowhere.pt}"),
        (BadCheckpoint, "holds no resnet18 of 10 classes", "{name: ann, architecture: resnet18, checkpoint: FILE}"),
        (BadCheckpoint, "as plain weights", "{name: ann, architecture: resnet18, checkpoint: CODE}"),
        (BadOption, "does not take pictures of (1, 8, 8)", "{name: ann, architecture: resnet18, checkpoint: RIGHT}"),
    ],
)
def test_a_guide_that_is_not_there_or_does_not_fit_is_said_in_one_sentence(error, words, guide, tiny, tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "file.pt")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "code.pt")
    for word in ("FILE", "CODE", "RIGHT"):
        guide = guide.replace(word, str(tmp_path / f"{word.lower()}.pt"))
    if "right" in guide:
        torch.save(models.get_model("resnet18", num_classes=10).state_dict(), tmp_path / "right.pt")
    with pytest.raises(error) as caught:
        runner.run(tiny(f"distillation.guide={guide}"), run_dir=tmp_path / "run")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_features_of_a_network_that_is_cut_are_refused(tiny):
    with pytest.raises(BadRecipe, match="another form on the way"):
        tiny(
            "~pruning",
            "pruning={type: torch_pruning.base, channels: 0.5}",
            "distillation.guide={name: ann, run: a, features: b}",
        )


RUNS = {
    "dense": ["~pruning", "pruning.type=dense"],
    "drop_grow": [],
    "stds": ["~pruning", "pruning={type: snnsl.stds, threshold: {name: sine, first: 0.0, last: 0.1}}"],
    "dpf": ["~pruning", "pruning={type: snnsl.dpf, density: {name: cubic, first: 1.0, last: 0.3}}"],
    "grad_r": ["~pruning", "pruning={type: snnsl.grad_r}"],
    "nni": ["~pruning", "pruning={type: nni.agp_level, density: 0.3, every: 2it}"],
    "cut": ["~pruning", "pruning={type: torch_pruning.base, channels: 0.5}"],
    "torch": ["~pruning", "pruning={type: torch.l1, density: 0.3}"],
    "a budget": ["pruning.budget={name: connections, live: 500}"],
    "badly trained": ["train.optimizer.lr=1.0e-6"],
}


@pytest.mark.parametrize("kind", RUNS)
def test_any_run_folder_can_be_the_guide(kind, tiny, tmp_path):
    recipe = tiny(*NO_GUIDE, *RUNS[kind])
    result = runner.run(recipe, run_dir=tmp_path / "guide")
    learner = tiny(f"distillation.guide={{name: sparse, run: {tmp_path / 'guide'}}}", "train.epochs=1")
    parts = assemble.data(learner)
    network = assemble.assemble(learner, parts).distiller.guide.network
    right = sum(
        int((_answer(network, x).argmax(-1) == y).sum()) for x, y in parts.test.epoch(torch.Generator().manual_seed(0))
    )
    # It teaches what was measured when its run had ended.
    assert right / len(parts.splits.test) == pytest.approx(result["accuracy"]["test"])
    assert runner.run(learner, run_dir=tmp_path / "learner")["status"] == "finished"


@torch.no_grad()
def _answer(network, x):
    from snnsl_plugin.anatomy import reset_

    reset_(network)
    return network(x).mean(0)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.pt", b""), ("b.pt", b"nonsense"), ("c.safetensors", b"\xff" * 40), ("d.safetensors", b"")],
)
def test_a_damaged_file_of_weights_is_named_with_the_way_out(tiny_words, pictures, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    guide = f"{{name: ann, architecture: resnet18, checkpoint: {tmp_path / name}}}"
    with pytest.raises(
        BadCheckpoint, match=rf"{name} cannot be read as plain weights \(.+\): save the state dict alone"
    ):
        assemble_of(of_torchvision(tiny_words, pictures, guide))


def test_a_network_of_torchvision_for_pictures_of_another_size_is_refused(tiny_words, pictures, tmp_path):
    torch.save(models.get_model("vit_b_32", num_classes=2).state_dict(), tmp_path / "a.pt")
    guide = f"{{name: ann, architecture: vit_b_32, checkpoint: {tmp_path / 'a.pt'}}}"
    with pytest.raises(BadOption, match=r"'vit_b_32' does not take pictures of \(3, 32, 32\)"):
        assemble_of(of_torchvision(tiny_words, pictures, guide))


def test_a_run_that_has_not_finished_and_one_of_other_classes_are_refused(tiny, tiny_words, tmp_path, pictures):
    with pytest.raises(BadCheckpoint, match="holds no finished run"):
        runner.run(tiny(f"distillation.guide={{name: sparse, run: {tmp_path}}}"), run_dir=tmp_path / "learner")
    runner.run(tiny(*NO_GUIDE), run_dir=tmp_path / "guide")
    with pytest.raises(BadCheckpoint, match="does not fit this data"):
        assemble_of(of_torchvision(tiny_words, pictures, f"{{name: sparse, run: {tmp_path / 'guide'}}}"))


def assemble_of(recipe):
    return assemble.assemble(recipe, assemble.data(recipe))
