"""`~key.path` on the command line: what the recipe says there is gone, so a block can be replaced whole."""

import pytest

from snnsl_plugin.errors import BadRecipe
from snnsl_plugin.recipe.load import load, resolve

RECIPE = """\
data: {name: image_folder, root: pictures, size: 64, grayscale: true}
model: spiking_cnn
train: {epochs: 2, batch_size: 4, clip: 1.0, optimizer: {name: sgd, lr: 0.1}}
pruning: dense
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(RECIPE)
    return path


def test_a_dropped_block_that_is_written_anew_keeps_nothing_of_the_old_one(recipe):
    new = ["data.name=image_folder", "data.root=other", "data.size=32"]
    assert resolve(recipe, new).data["data"]["grayscale"] is True  # one of the same name is merged
    for overrides in (["~data", *new], [*new, "~data"], ["~data", "data={name: image_folder, root: other, size: 32}"]):
        assert resolve(recipe, overrides).data["data"] == {"name": "image_folder", "root": "other", "size": 32}


def test_a_dropped_key_is_at_its_default_again(recipe):
    assert load(recipe, ["~train.clip"]).train.clip is None
    assert load(recipe, ["~data.grayscale"]).data.grayscale is False


def test_a_block_that_the_recipe_has_not_may_be_dropped_where_it_is_written_anew(recipe):
    assert load(recipe, ["~tracking", "tracking.mlflow=false"]).tracking.mlflow is False


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("~trian", "command line: ~trian: trian: the recipe does not say this, so there is nothing to drop"),
        ("~train.amp", "command line: ~train.amp: train.amp: the recipe does not say this"),
        ("~train.clip.deeper", "train.clip.deeper: the recipe does not say this"),
        ("~train.clip=3", "what drops a key is written ~key.path"),
        ("~", "what drops a key is written ~key.path"),
    ],
)
def test_dropping_what_is_not_there_is_an_error(recipe, override, says):
    with pytest.raises(BadRecipe) as refused:
        load(recipe, [override])
    assert says in str(refused.value)


def test_what_is_required_cannot_be_dropped(recipe):
    with pytest.raises(BadRecipe, match="model"):
        load(recipe, ["~model"])
