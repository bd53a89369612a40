"""Decoded samples are kept whole or not at all, and belong to the files they were decoded from."""

import logging

import pytest
import torch

from snnsl_plugin.datasets import _cache
from snnsl_plugin.datasets._root import data_root, dataset_folder


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNSL_DATA", str(tmp_path))


def made(value, calls):
    calls.append(value)
    return {"x": torch.full((3,), value)}


def test_the_second_time_nothing_is_made(tmp_path):
    calls = []
    first = _cache.cached("key", lambda: made(1, calls))
    second = _cache.cached("key", lambda: made(2, calls))
    assert calls == [1]
    assert torch.equal(first["x"], second["x"])
    assert [path.name for path in (tmp_path / ".cache").iterdir()] == ["key.safetensors"]


def test_a_damaged_cache_is_made_again_and_logged(tmp_path, caplog):
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "key.safetensors").write_bytes(b"torn")
    calls = []
    with caplog.at_level(logging.WARNING):
        assert _cache.cached("key", lambda: made(1, calls))["x"].tolist() == [1, 1, 1]
    assert "is damaged" in caplog.text
    _cache.cached("key", lambda: made(2, calls))
    assert calls == [1]


def test_a_folder_that_cannot_be_written_is_done_without_and_logged(tmp_path, caplog):
    (tmp_path / ".cache").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert _cache.cached("key", lambda: made(1, []))["x"].tolist() == [1, 1, 1]
    assert "are not kept" in caplog.text


def test_an_error_while_writing_leaves_no_unfinished_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(_cache.os, "replace", full)
    _cache.cached("key", lambda: made(1, []))
    assert list((tmp_path / ".cache").iterdir()) == []


def test_another_option_or_a_changed_file_is_another_key(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(b"12")
    first = _cache.fingerprint([file], {"size": 8})
    assert first == _cache.fingerprint([file], {"size": 8})
    assert first != _cache.fingerprint([file], {"size": 9})
    file.write_bytes(b"123")
    assert first != _cache.fingerprint([file], {"size": 8})


def test_the_data_root_is_the_variable_else_the_home_cache_and_is_not_created(tmp_path, monkeypatch):
    assert data_root() == tmp_path
    assert dataset_folder("nmnist", None) == tmp_path / "nmnist"
    assert dataset_folder("nmnist", str(tmp_path / "there")) == tmp_path / "there"
    monkeypatch.delenv("SNNSL_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_root() == tmp_path / ".cache" / "snnsl"
    assert not data_root().exists()
