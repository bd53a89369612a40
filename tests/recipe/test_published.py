"""Recipes of published systems and paper tasks: what they say, that they train, and that their quick variants run."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from snnsl_plugin.datasets._superclasses import SUPERCLASSES
from snnsl_plugin.recipe import assemble, catalog, runner
from snnsl_plugin.recipe.load import load
from snnsl_plugin.training.events import MaskUpdate, Step
from snnsl_plugin.training.loop import fit

ROOT = Path(__file__).parents[2] / "recipes"
#: Tasks of papers on pictures; those on events are tested with their data.
TASKS = ["cifar10_6conv2fc", "cifar100", "cifar100_resnet18", "cifar100_vgg"]
SYSTEMS = [name for name in catalog.names() if name.startswith("published/") and not name.endswith("_quick")]
QUICK = [f"{name}_quick" for name in [*TASKS, *SYSTEMS] if name != "cifar100"]
CLASSES = {
    "cifar10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "cifar100": sorted(name for members in SUPERCLASSES.values() for name in members),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """CIFAR's trees with a few random pictures of each class, so that no data need be there."""
    root, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for data, count in (("cifar10", 150), ("cifar100", 12)):
        for part, name in [(part, name) for part in ("train", "test") for name in CLASSES[data]]:
            (root / data / part / name).mkdir(parents=True)
            for number in range(count if part == "train" else 1):
                pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / data / part / name / f"{number}.png")
    return root


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_published_system_names_its_source_its_number_and_what_differs(name):
    comment = (ROOT / f"{name}.yaml").read_text("utf-8").split("\nextends:")[0]
    assert all(line.startswith("#") for line in comment.splitlines())
    for word in ("Source: ", "Published", "What differs: "):
        assert f"\n# {word}" in comment, word


@pytest.mark.parametrize("name", QUICK)
def test_a_quick_variant_says_that_it_is_one_and_changes_no_method(name):
    text = (ROOT / f"{name}.yaml").read_text("utf-8")
    comment, body = text.split("\nextends: ")
    assert "nothing about the full recipe" in comment.replace("\n# ", " ")
    full = name.removesuffix("_quick").split("/")[-1]
    assert body.splitlines()[0] == f"{full}.yaml"
    quick, whole = load(name), load(name.removesuffix("_quick"))
    assert quick.pruning.type == whole.pruning.type
    assert type(quick.model) is type(whole.model)
    assert type(quick.data) is type(whole.data)
    for chosen in ("criterion", "growth", "distribution"):
        assert getattr(quick.pruning, chosen, None) == getattr(whole.pruning, chosen, None)
    assert quick.distillation == whole.distillation


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TASKS, *SYSTEMS])
def test_a_full_recipe_trains_for_20_steps_and_updates_its_masks(name, pictures, monkeypatch):
    monkeypatch.setenv("SNNSL_DATA", str(pictures))
    # As it stands, but for what a processor without a GPU would need hours for: the batch, half precision, and the wait
    # for the first updates.
    early = ["pruning.start=2it", "pruning.every=5it"]
    recipe = load(name, ["train.batch_size=1", "train.device=cpu", "train.amp=false", *early])
    made = assemble.assemble(recipe, assemble.data(recipe))
    first = {key: value.clone() for key, value in made.model.state_dict().items()}
    training = fit(
        made.model, made.data.train, made.data.validation, made.optimizer, made.how,
        pruner=made.pruner, distiller=made.distiller, scaler=made.scaler, health=made.health,
    )  # fmt: skip
    events = []
    for event in training:
        events.append(event)
        if isinstance(event, Step) and event.step == 20:
            break
    steps = [event for event in events if isinstance(event, Step)]
    assert [step.step for step in steps] == list(range(1, 21))
    assert any(isinstance(event, MaskUpdate) for event in events)
    assert all(torch.isfinite(step.loss) for step in steps)
    moved = [key for key, value in made.model.state_dict().items() if not torch.equal(value, first[key])]
    assert any(key.endswith("weight") for key in moved)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_quick_variant_runs_to_its_end(name, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("SNNSL_DATA", str(pictures))
    shorter = [f"data.{key}={value}" for key, value in (("per_class", 8), ("validation_per_class", 2))]
    epochs = 4 if "6conv" in name or name.split("/")[-1] in ("gradr_quick", "stds_quick", "upr_quick") else 2
    recipe = load(name, [*shorter, f"train.epochs={epochs}", "tracking.mlflow=false", "train.batch_size=16"])
    result = runner.run(recipe, run_dir=tmp_path / "run", name=name)
    assert result["status"] == "finished"
    assert 0.0 < result["density"]["weights"]["achieved"] <= 1.0


@pytest.mark.skipif("SNNSL_DATA" not in os.environ, reason="no SNNSL_DATA")
def test_the_trees_of_these_tests_have_the_classes_of_the_real_ones():
    real = Path(os.environ["SNNSL_DATA"]) / "cifar100" / "train"
    if not real.is_dir():
        pytest.skip(f"no {real}")
    assert sorted(path.name for path in real.iterdir()) == CLASSES["cifar100"]
