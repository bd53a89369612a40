"""Two data-parallel processes under NNI's TorchEvaluator, which see different data, make the same masks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed

import snnsl_plugin

pytest.importorskip("nni")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not distributed.is_available(), reason="this torch is built without torch.distributed"),
]

HERE = Path(__file__).parent
UPDATES = (3, 6, 9, 12)
Seen = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Seen]]:
    """What the two ranks saw, by mode."""
    folder = tmp_path_factory.mktemp("ranks")
    paths = [str(Path(snnsl_plugin.__file__).parents[1]), str(HERE.parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    if Path("/sys/class/net/lo").exists():  # a machine's own name may stand for an address that it cannot reach
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    ranks = [
        subprocess.Popen(
            [sys.executable, str(HERE / "nni_ddp_worker.py"), str(rank), str(folder)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=environment,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        for rank in ranks:
            printed = rank.communicate(timeout=240)[0]
            assert rank.returncode == 0, printed
    finally:
        for rank in ranks:
            if rank.poll() is None:
                os.killpg(rank.pid, signal.SIGKILL)
                rank.communicate()
    return {
        mode: [torch.load(folder / f"{mode}-{rank}.pt", weights_only=True) for rank in range(2)]
        for mode in ("hosted", "alone", "taught", "looped", "apart")
    }


def masks(seen: Seen, update: int) -> Seen:
    return {name: value for name, value in seen.items() if name.startswith(f"{update}/")}


def assert_equal(one: Seen, other: Seen) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def assert_pruned(seen: Seen, *layers: str) -> None:
    for update in UPDATES:
        assert set(masks(seen, update)) == {f"{update}/{layer}.weight" for layer in layers}
    last = masks(seen, 12).values()
    assert sum(int(mask.sum()) for mask in last) == round(0.3 * sum(mask.numel() for mask in last))
    nonzero = {name: int(value) for name, value in seen.items() if name.startswith("nonzero/")}
    assert nonzero == {f"nonzero/module.{layer}": 0 for layer in layers}


def test_masks_and_weights_are_the_same_on_both_ranks_bit_by_bit_after_every_update(both):
    one, other = both["hosted"]
    assert_equal(one, other)
    assert_pruned(one, "0", "4", "7")


def test_they_are_those_of_a_pruner_under_data_parallel_training_without_nni(both):
    (alone, other), (hosted, _) = both["alone"], both["hosted"]
    assert_equal(alone, other)
    assert_equal(alone, {name: value for name, value in hosted.items() if not name.startswith("nonzero/")})


def test_a_distiller_teaches_beside_the_pruner_on_both_ranks_alike(both):
    one, other = both["taught"]
    assert_equal(one, other)
    assert_pruned(one, "0", "4", "7")
    assert not torch.equal(one["weight/7.weight"], both["hosted"][0]["weight/7.weight"]), "the guide taught nothing"


def test_a_loop_over_time_outside_the_model_trains_on_both_ranks_alike(both):
    one, other = both["looped"]
    assert_equal(one, other)
    assert_pruned(one, "net.0", "net.4", "net.7")


def test_without_common_statistics_the_masks_would_part(both):
    one, other = both["apart"]
    parted = [
        name for update in UPDATES for name, mask in masks(one, update).items() if not torch.equal(mask, other[name])
    ]
    assert parted, "the ranks must see different rates, or the tests above show nothing"
