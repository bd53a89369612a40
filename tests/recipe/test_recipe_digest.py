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
    "cifar10_6conv2fc": "26767a2e9a9ddd66",
    "cifar10_6conv2fc_quick": "8df0d38377d4886a",
    "cifar100_resnet18": "acf7b637f42b12b5",
    "cifar100_resnet18_quick": "712dace348b6f69f",
    "cifar100_vgg": "0375e15b6d792663",
    "cifar100_vgg_quick": "c04745dce230ebd5",
    "cifar10_dvs": "bb8c122741047dcb",
    "compare_cifar100": "0d9e9f9cc1de9326",
    "compare_cifar100_full": "2c9c8b3e054273d6",
    "compare_digits": "973e75b2eda06989",
    "compare_nmnist": "0881ab5903cf708a",
    "digits": "973e75b2eda06989",
    "digits_evolution": "2af340db3ce50952",
    "digits_reverse_kd": "aea59b1b4516f246",
    "digits_structured": "b6b05a20cf043992",
    "digits_structured_dynamic": "3056dad59b74b354",
    "dvs_gesture": "2a36e84be5403515",
    "dvs_gesture_quick": "a8037af856a4d039",
    "nmnist": "ed59cc5a097697c8",
    "pruners/dense": "a579039e6d6174a1",
    "pruners/nni.spiking_dynamic": "dd6cb0bd6ce6e44d",
    "pruners/snnsl.bpsr": "98073bdc2612f0e5",
    "pruners/snnsl.default": "6ca49cfa03af1bc2",
    "pruners/snnsl.dpap": "9b67c3ed1f38a5ab",
    "pruners/snnsl.dpf": "558a4e0e4f4fd97d",
    "pruners/snnsl.gmp": "25a7aaf3c1036cc9",
    "pruners/snnsl.grad_r": "2e2478710dc926dc",
    "pruners/snnsl.granet": "c7bebb9a0dffcbc4",
    "pruners/snnsl.lth": "f5766b53d246493c",
    "pruners/snnsl.ndsnn": "dbfcda23a63f97b5",
    "pruners/snnsl.rigl": "8ef97e7bf3402e9b",
    "pruners/snnsl.sca": "1ebc38a22d3db149",
    "pruners/snnsl.sd_snn": "72ce54debae4842b",
    "pruners/snnsl.set": "26db4bee10f75041",
    "pruners/snnsl.stds": "7759b8bae88c8e4f",
    "pruners/snnsl.synop_value": "ce8a2927877eff6b",
    "pruners/snnsl.taught": "51399730e0194515",
    "pruners/snnsl.upr": "ba61f3d4f31da46d",
    "pruners/torch_pruning.fpgm": "628f9ce94a48fbbc",
    "pruners/torch_pruning.lamp": "a7a6057ec362606b",
    "pruners/torch_pruning.magnitude": "bd2dd03d6d5fbbd6",
    "pruners/torch_pruning.random": "8965580e12f4b451",
    "pruners/torch_pruning.spiking_dynamic": "259e3bb5bf362089",
    "pruners/torch_pruning.taylor": "84d8fb16762a7c3d",
    "published/bpsr": "a42242a88ac0d71e",
    "published/bpsr_quick": "992b476112fa26dc",
    "published/dpap": "1b6e0fa25dcfeab6",
    "published/dpap_quick": "32c638fd881b69b3",
    "published/dpf": "4251d28090b0b4f5",
    "published/dpf_quick": "c295affe0e102bdb",
    "published/gmp": "ec4817b037a57dbe",
    "published/gmp_quick": "dfd9a6b551a63f70",
    "published/gradr": "eb5686054965f74e",
    "published/gradr_quick": "530be340b84c9c92",
    "published/granet": "b02e0a2aaae9e92e",
    "published/granet_quick": "2a6c40b9cd6dfb70",
    "published/lth": "5db173f0daacc5d7",
    "published/lth_quick": "6c61441ffce8648c",
    "published/ndsnn": "51e57f85b3fafcf4",
    "published/ndsnn_quick": "232c9cfaabb27ee4",
    "published/rigl": "93c0b8e32d399cb5",
    "published/rigl_quick": "b7caae6a13ad0d2f",
    "published/sca": "278bf9872cccb2c0",
    "published/sca_quick": "7af06984d26f182d",
    "published/sdsnn": "48a080f51b742317",
    "published/sdsnn_quick": "38c2f1a39a84a34d",
    "published/set": "cfca526f40f7918e",
    "published/set_quick": "6163c3c39efdd071",
    "published/stds": "eeccba0ef537f1b5",
    "published/stds_quick": "af0659398c2ad95b",
    "published/upr": "64f7b8326fc383b2",
    "published/upr_quick": "fa64ea09f3df6c83",
    "tune_nmnist": "e40732d8395f7e18",
    "tune_digits": "25d333b47017c0fc",
    "vgg9_structured": "5b4909b0782c9d2d",
}


def test_the_digests_of_the_shipped_recipes_are_pinned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a guide's digest is that of the run it names, where `make demo` has left one
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


def test_a_swap_of_each_layers_own_changes_it_and_none_does_not():
    assert (
        digest(load("digits", ["pruning.pq=null"]))
        == digest(load("digits"))
        != digest(load("digits", ["pruning.pq=1"]))
    )


def test_a_choice_alone_differs_from_another_without_options():
    kinds = {digest(load("digits", [f"pruning.criterion={name}"])) for name in ("magnitude", "fisher", "taylor")}
    assert len(kinds) == 3


def test_workers_change_no_result_and_no_digest():
    assert digest(load("nmnist", ["data.workers=2"])) == PINNED["nmnist"]
    assert digest(load("nmnist", ["data.augment.roll=2"])) != PINNED["nmnist"]
