import numpy as np
import pytest
from PIL import Image

from snnsl_plugin.datasets.cifar10 import cifar10
from snnsl_plugin.errors import MissingData


def test_a_tree_is_read_and_normalised_with_its_own_numbers(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNSL_DATA", str(tmp_path))
    for part, count in (("train", 10), ("test", 2)):
        for name in ("airplane", "bird"):
            (tmp_path / "cifar10" / part / name).mkdir(parents=True)
            for i in range(count):
                picture = Image.fromarray(np.full((32, 32, 3), 255, dtype=np.uint8))
                picture.save(tmp_path / "cifar10" / part / name / f"{i}.png")
    splits = cifar10()
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (18, 2, 4)
    assert splits.train[0][0][0, 0, 0].item() == pytest.approx((1 - 0.4914) / 0.2470)


def test_missing_data_names_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNSL_DATA", str(tmp_path))
    with pytest.raises(MissingData, match=r"cifar10: .*cifar-10-batches-py"):
        cifar10()
