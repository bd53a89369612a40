"""Digests name results: what changes no result changes no digest."""

import pytest

from snnsl_plugin.recipe import catalog
from snnsl_plugin.recipe.digest import digest
from snnsl_plugin.recipe.load import load

#: A new option with a default must not change these. Change one only together with its recipe.
PINNED = {
    "bench/cifar100": "0d9e9f9cc1de9326",
    "bench/nmnist": "0881ab5903cf708a",
    "cifar100": "2c9c8b3e054273d6",
    "digits": "973e75b2eda06989",
    "digits_reverse_kd": "aea59b1b4516f246",
    "digits_structured": "b6b05a20cf043992",
    "digits_structured_dynamic": "3056dad59b74b354",
    "nmnist": "ed59cc5a097697c8",
    "vgg9_structured": "5b4909b0782c9d2d",
}


def test_the_digests_of_the_shipped_recipes_are_pinned():
    assert {name: digest(load(name)) for name in catalog.names()} == PINNED


@pytest.mark.parametrize(
    "override", ["tracking.mlflow=false", "train.lr_schedule=cosine", "distillation.temperature=4.0", "train.clip=null"]
)
def test_defaults_and_tracking_change_no_digest(override):
    assert digest(load("digits", [override])) == digest(load("digits"))


@pytest.mark.parametrize(
    "override", ["seed=1", "threads=1", "train.epochs=13", "dense_baseline=false", "pruning.criterion=fisher"]
)
def test_what_changes_a_result_changes_the_digest(override):
    assert digest(load("digits", [override])) != digest(load("digits"))


def test_a_choice_alone_differs_from_another_without_options():
    kinds = {digest(load("digits", [f"pruning.criterion={name}"])) for name in ("magnitude", "fisher", "taylor")}
    assert len(kinds) == 3
