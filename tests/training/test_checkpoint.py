import subprocess
import sys
from pathlib import Path

import pytest
import torch

from snnsl_plugin.errors import BadCheckpoint
from snnsl_plugin.training import checkpoint


def tree() -> dict:
    base = torch.arange(6.0).view(2, 3)
    return {
        "view": base.t(),
        "mask": base > 2,
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0),
        "nested": [{"lr": 0.1 + 0.2, "betas": (0.9, 0.999)}, None, "text", True],
        "state": {0: {"step": torch.tensor(1.5)}, 1: {}},
    }


def equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))  # type: ignore[arg-type]
    return a == b


def test_comes_back_as_it_was_with_integer_keys_and_exact_numbers(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    checkpoint.save(path, tree())
    assert equal(checkpoint.load(path), tree())
    assert (tmp_path / "state.json").read_text().startswith("{")
    assert not list(tmp_path.glob("*.partial"))


def test_a_failed_write_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    checkpoint.save(path, {"epoch": 1})
    with pytest.raises(TypeError):
        checkpoint.save(path, {"epoch": object()})
    assert checkpoint.load(path) == {"epoch": 1}


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" * 100])
def test_a_damaged_file_is_a_sentence(tmp_path: Path, damage) -> None:
    path = tmp_path / "checkpoint.safetensors"
    checkpoint.save(path, tree())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadCheckpoint, match=r"checkpoint.safetensors: cannot be read as a checkpoint .* --run-dir"):
        checkpoint.load(path)


def test_a_missing_or_foreign_file_is_a_sentence(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(BadCheckpoint, match="cannot be read"):
        checkpoint.load(tmp_path / "none.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(BadCheckpoint, match="cannot be read"):
        checkpoint.load(tmp_path / "foreign.safetensors")


def test_an_optimizer_goes_on_from_it(tmp_path: Path) -> None:
    def trained(steps: int, optimizer_state: dict | None = None, weight: torch.Tensor | None = None):
        p = torch.nn.Parameter(torch.ones(3) if weight is None else weight.clone())
        optimizer = torch.optim.Adam([p], lr=0.1)
        if optimizer_state:
            optimizer.load_state_dict(optimizer_state)
        for _ in range(steps):
            p.grad = p.detach() * 2
            optimizer.step()
        return p.detach(), optimizer

    weight, optimizer = trained(3)
    checkpoint.save(tmp_path / "c.safetensors", {"weight": weight, "optimizer": optimizer.state_dict()})
    saved = checkpoint.load(tmp_path / "c.safetensors")
    assert torch.equal(trained(4, saved["optimizer"], saved["weight"])[0], trained(7)[0])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file")
def test_a_disk_that_is_full_is_an_error_with_the_file_and_the_earlier_checkpoint_stays(tmp_path):
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, {"a": torch.ones(2)})
    code = """
import errno, resource, sys
from pathlib import Path
import torch
from snnsl_plugin.training import checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # the 1001st byte is refused, as by a full disk
try:
    checkpoint.save(Path(sys.argv[1]), {"a": torch.ones(10_000)})
except OSError as error:
    print(error.errno == errno.EFBIG, error.filename)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"True {path}\n"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["c.safetensors", "state.json"]
    assert torch.equal(checkpoint.load(path)["a"], torch.ones(2))
