"""Where data sets lie on this machine, and the sentence for when they do not."""

from __future__ import annotations

import os
from pathlib import Path

from snnsl_plugin.errors import MissingData

VARIABLE = "SNNSL_DATA"


def data_root() -> Path:
    """The folder that holds one folder per data set: `$SNNSL_DATA`, else `~/.cache/snnsl`. Nothing is created."""
    given = os.environ.get(VARIABLE)
    return Path(given).expanduser() if given else Path.home() / ".cache" / "snnsl"


def dataset_folder(name: str, root: str | None) -> Path:
    """The folder of one data set: `root` where the recipe gives one, else `data_root()/<name>`."""
    return Path(root).expanduser() if root else data_root() / name


def missing(name: str, folder: Path, *, found: str, layout: str, get: str, size: str) -> MissingData:
    """The error for data that is not there: the folder, what was found, its layout, how to get it, its size."""
    return MissingData(
        f"{name}: {found} in {folder}. Expected there: {layout}. To get it: {get} ({size}). If you have it elsewhere, "
        f"set the option root of the data, or the variable {VARIABLE} to the folder that holds {name}/"
    )
