"""Decoded samples kept beside the data, so that only the first run decodes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from snnsl_plugin.datasets._root import data_root

logger = logging.getLogger(__name__)
_FORMAT = 1  # raise it when decoding changes, or runs read what an older version decoded


def fingerprint(files: Sequence[Path], options: Mapping[str, object]) -> str:
    """A digest of the options and of each file's path, size and time of change; the contents are not read."""
    digest = hashlib.sha256(json.dumps([_FORMAT, options], sort_keys=True).encode())
    for file in files:
        status = file.stat()
        digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:32]


def cached(key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors that `make` returns, read from `data_root()/.cache/<key>.safetensors` where an earlier run left them.

    The file appears whole or not at all. A damaged one is made again, and one that cannot be written (a read-only or
    full disk) is done without; both are logged, and neither changes a result.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    path = data_root() / ".cache" / f"{key}.safetensors"
    if path.is_file():
        try:
            return load_file(path)
        except (SafetensorError, OSError) as cause:
            logger.warning("the cache %s is damaged (%s) and is made again", path, cause)
    tensors = make()
    unfinished: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f"{key}.", suffix=".unfinished")
        os.close(handle)
        save_file(tensors, unfinished)
        os.chmod(unfinished, 0o644)  # mkstemp makes it private, and data folders are shared
        os.replace(unfinished, path)
        unfinished = None
    except (SafetensorError, OSError) as cause:
        logger.warning("decoded samples are not kept in %s (%s); the next run decodes again", path, cause)
    finally:
        if unfinished is not None:
            Path(unfinished).unlink(missing_ok=True)
    return tensors
