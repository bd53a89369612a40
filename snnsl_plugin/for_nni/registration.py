"""Makes the tuner known to NNI by name, so that experiments say `tuner.name = "SnnslOptuna"`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from snnsl_plugin.errors import MissingExtra, UsageError

NAME = "SnnslOptuna"
_TUNER = "snnsl_plugin.for_nni.tuner.OptunaTuner"
_VALIDATOR = "snnsl_plugin.for_nni.tuner.OptunaClassArgsValidator"


def register_() -> Path:
    """Adds the tuner to NNI's list of algorithms; a second time changes nothing.

    NNI keeps one list for each Python environment, or in the folder that the environment variable NNI_CONFIG_DIR names.

    Returns:
        The file of that list.

    Raises:
        MissingExtra: nni cannot be imported here.
        UsageError: the list cannot be written, or holds another tuner of this name.
    """
    tools = _tools()
    path, found = _found(tools)
    if found is None:
        meta = tools.AlgoMeta(
            name=NAME,
            alias=None,
            class_name=_TUNER,
            accept_class_args=True,
            class_args=None,
            validator_class_name=_VALIDATOR,
            algo_type="tuner",
            is_advisor=False,
            is_builtin=False,
            nni_version=None,
        )
        with _writing(path):
            tools.register_algo_meta(meta)
    return path


def unregister_() -> Path:
    """Takes the tuner out of NNI's list; where it is not there, nothing changes.

    Returns:
        The file of that list.

    Raises:
        MissingExtra: nni cannot be imported here.
        UsageError: the list cannot be written, or holds another tuner of this name.
    """
    tools = _tools()
    path, found = _found(tools)
    if found is not None:
        with _writing(path):
            tools.unregister_algo_meta(NAME)
    return path


def _tools() -> ModuleType:
    try:
        return importlib.import_module("nni.tools.package_utils")
    except ImportError as cause:
        raise MissingExtra(
            f"registering needs nni, which cannot be imported here ({cause}): pip install 'nni>=3,<4' on x86_64"
        ) from cause


def _found(tools: ModuleType) -> tuple[Path, str | None]:
    """The list, which NNI makes where there is none, and the class that has our name in it."""
    from nni.runtime.config import get_config_file

    with _writing(None):
        path = get_config_file("registered_algorithms.yml")
        meta = tools.get_algo_meta(NAME)
    if meta is not None and meta.class_name != _TUNER:
        raise UsageError(
            f"{path}: the name {NAME} belongs to {meta.class_name}; give it up with nnictl algo unregister {NAME}"
        )
    return path, meta.class_name if meta else None


@contextmanager
def _writing(path: Path | None) -> Iterator[None]:
    """Names the list, or where NNI does not know it yet what the system names, if it cannot be written."""
    try:
        yield
    except OSError as error:
        where, reason = path or Path(error.filename or ""), error.strerror or error
        raise UsageError(f"{where}: cannot be written: {reason}; name another folder in NNI_CONFIG_DIR") from error
