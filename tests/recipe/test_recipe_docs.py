"""docs/recipes.md says what is true."""

import re
from pathlib import Path

import pytest

from snnsl_plugin import registry
from snnsl_plugin.recipe import schema
from snnsl_plugin.recipe.load import load

TEXT = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")


def test_the_example_is_a_valid_recipe(tmp_path):
    example = re.search(r"```yaml\n(extends.*?)```", TEXT, re.DOTALL)[1]
    path = tmp_path / "my.yaml"
    path.write_text(example)
    recipe = load(path, ["pruning.density.last=0.02", "train.epochs=20"])
    assert (recipe.seed, recipe.pruning.criterion.name, recipe.pruning.density.last) == (1, "spike_saliency", 0.02)


def test_the_overrides_shown_are_valid():
    load("digits", ["train.epochs=3", "pruning.criterion=fisher", 'pruning.exclude=["conv1"]', "distillation=null"])


@pytest.mark.parametrize("block", ["Recipe", "Train", "Pruning", "Distillation", "Tracking"])
def test_every_key_is_explained(block):
    fields = getattr(schema, block).model_fields
    for name, field in fields.items():
        assert f"`{field.alias or name}`" in TEXT, name


@pytest.mark.parametrize("kind", ["datasets", "encoders", "models", "rules", "schedules", "divergences", "guides"])
def test_every_name_is_mentioned(kind):
    for name in registry.names(kind):
        assert re.search(rf"\b{name}\b", TEXT), name
