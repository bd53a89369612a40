"""A space in NNI's format: by hand, and through the registered tuner and back."""

import json

import pytest
from pydantic import TypeAdapter

from snnsl_plugin.errors import BadOption
from snnsl_plugin.for_nni.tuner import OptunaTuner
from snnsl_plugin.recipe.load import load
from snnsl_plugin.recipe.space import changed
from snnsl_plugin.recipe.tune_types import AnyParameter
from snnsl_plugin.tuning.nni_format import from_nni, to_nni

SPACE = TypeAdapter(dict[str, AnyParameter]).validate_python(
    {
        "pruning.density.last": {"name": "float", "low": 0.02, "high": 0.2, "log": True},
        "pruning.swap.first": {"name": "float", "low": 0.0, "high": 0.5},
        "distillation.weight": {"name": "float", "low": 0.1, "high": 0.4, "step": 0.15},
        "train.epochs": {"name": "int", "low": 3, "high": 5},
        "train.batch_size": {"name": "int", "low": 16, "high": 64, "log": True},
        "model.hidden": {"name": "int", "low": 16, "high": 48, "step": 16},
        "pruning.until": ["40%", "80%"],
        "pruning.growth": ["random", {"name": "momentum"}],
        "pruning.criterion": ["magnitude", "spike_saliency"],
        "pruning.criterion.power": {
            "name": "float", "low": 0.2, "high": 1.0, "when": {"pruning.criterion": "spike_saliency"},
        },
    }
)  # fmt: skip


def test_each_kind_by_hand():
    assert to_nni(SPACE) == {
        "pruning.density.last": {"_type": "loguniform", "_value": [0.02, 0.2]},
        "pruning.swap.first": {"_type": "uniform", "_value": [0.0, 0.5]},
        "distillation.weight": {"_type": "choice", "_value": [0.1, 0.25, 0.4]},
        "train.epochs": {"_type": "randint", "_value": [3, 6]},
        "train.batch_size": {"_type": "qloguniform", "_value": [16, 64, 1]},
        "model.hidden": {"_type": "choice", "_value": [16, 32, 48]},
        "pruning.until": {"_type": "choice", "_value": ["40%", "80%"]},
        "pruning.growth": {"_type": "choice", "_value": ["random", {"name": "momentum"}]},
        "pruning.criterion": {
            "_type": "choice",
            "_value": [
                {"_name": "magnitude"},
                {"_name": "spike_saliency", "pruning.criterion.power": {"_type": "uniform", "_value": [0.2, 1.0]}},
            ],
        },
    }  # fmt: skip


def test_what_the_registered_tuner_proposes_makes_a_recipe_of_the_space():
    tuner = OptunaTuner(sampler="random", seed=0)
    tuner.update_search_space(json.loads(json.dumps(to_nni(SPACE))))
    recipe, seen = load("digits"), set()
    for number in range(40):
        given = json.loads(json.dumps(tuner.generate_parameters(number)))
        values = from_nni(SPACE, given)
        point = changed(recipe, values)
        assert 0.02 <= point.pruning.density.last <= 0.2
        assert point.train.epochs in (3, 4, 5)
        assert 16 <= point.train.batch_size <= 64
        assert ("pruning.criterion.power" in values) == (point.pruning.criterion.name == "spike_saliency")
        seen.add((point.pruning.criterion.name, point.pruning.growth.name))
    assert len(seen) == 4


def test_what_nni_cannot_say_is_refused():
    twice = SPACE["pruning.criterion.power"].model_copy(
        update={"when": {"pruning.criterion": "spike_saliency", "pruning.until": "40%"}}
    )
    with pytest.raises(BadOption, match=r"depends on pruning\.criterion and pruning\.until"):
        to_nni({**SPACE, "pruning.criterion.power": twice})
    with pytest.raises(BadOption, match="none of its values"):
        from_nni(SPACE, {"pruning.criterion": {"_name": "fisher"}})
    with pytest.raises(BadOption, match="is not in tune.space"):
        from_nni(SPACE, {"lr": 0.1})
