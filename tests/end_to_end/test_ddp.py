"""Two data-parallel processes that see different data make the same masks."""

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

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not distributed.is_available(), reason="this torch is built without torch.distributed"),
]

HERE = Path(__file__).parent
UPDATES = (3, 6, 9, 12)


def both(folder: Path, mode: str) -> list[dict[str, torch.Tensor]]:
    """What the two ranks saw."""
    paths = [str(Path(snnsl_plugin.__file__).parents[1]), str(HERE.parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    if Path("/sys/class/net/lo").exists():  # a machine's own name may stand for an address that it cannot reach
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    ranks = [
        subprocess.Popen(
            [sys.executable, str(HERE / "ddp_worker.py"), str(rank), str(folder), mode],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=environment,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        for rank in ranks:
            printed = rank.communicate(timeout=180)[0]
            assert rank.returncode == 0, printed
    finally:
        for rank in ranks:
            if rank.poll() is None:
                os.killpg(rank.pid, signal.SIGKILL)
                rank.communicate()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> list[dict[str, torch.Tensor]]:
    return both(tmp_path_factory.mktemp("together"), "together")


def masks(seen: dict[str, torch.Tensor], update: int) -> dict[str, torch.Tensor]:
    return {name: value for name, value in seen.items() if name.startswith(f"{update}/") and value.dtype == torch.bool}


def test_growth_goes_by_the_mean_of_both_gradients(together):
    for seen in together:
        assert not torch.allclose(seen["mine"], seen["mean"])
        torch.testing.assert_close(seen["averaged"], seen["mean"])
    assert torch.equal(together[0]["averaged"], together[1]["averaged"])


def test_masks_and_weights_are_the_same_bit_by_bit_after_every_update(together):
    one, other = together
    assert one.keys() == other.keys()
    for update in UPDATES:
        assert any(name.endswith("weight") for name in masks(one, update))
        for name, mask in masks(one, update).items():
            assert torch.equal(mask, other[name]), name
    assert all(torch.equal(value, other[name]) for name, value in one.items() if name != "mine")
    kept = sum(int(mask.sum()) for name, mask in masks(one, 12).items() if name.endswith("weight"))
    total = sum(mask.numel() for name, mask in masks(one, 12).items() if name.endswith("weight"))
    assert kept == round(0.3 * total)


def test_without_common_statistics_the_masks_would_part(tmp_path):
    one, other = both(tmp_path, "apart")
    parted = [
        name for update in UPDATES for name, mask in masks(one, update).items() if not torch.equal(mask, other[name])
    ]
    assert parted, "the ranks must see different rates, or the test above shows nothing"


def test_ranks_that_measure_on_inputs_of_their_own_steer_to_one_budget(tmp_path):
    one, other = both(tmp_path, "budget")
    steps = sorted({int(name.split("/")[0]) for name in one if name[0].isdigit()})
    assert steps[:2] == [3, 6]
    assert steps[-1] > 6  # and corrections after the ramp
    for step in steps:
        for name, mask in masks(one, step).items():
            assert torch.equal(mask, other[name]), name
    assert all(torch.equal(value, other[name]) for name, value in one.items() if name != "mine")
