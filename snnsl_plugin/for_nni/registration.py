"""Makes the tuner known to NNI by name, so that experiments say `tuner.name = "SnnslOptuna"`."""

from __future__ import annotations

import importlib
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
        try:
            tools.register_algo_meta(meta)
        except OSError as error:
            raise _unwritable(path, error) from error
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
        try:
            tools.unregister_algo_meta(NAME)
        except OSError as error:
            raise _unwritable(path, error) from error
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

    try:
        path = get_config_file("registered_algorithms.yml")
        meta = tools.get_algo_meta(NAME)
    except OSError as error:
        raise _unwritable(Path(error.filename or ""), error) from error
    if meta is not None and meta.class_name != _TUNER:
        raise UsageError(
            f"{path}: the name {NAME} belongs to {meta.class_name}; give it up with nnictl algo unregister {NAME}"
        )
    return path, meta.class_name if meta else None


def _unwritable(path: Path, error: OSError) -> UsageError:
    reason = error.strerror or error
    return UsageError(f"{path}: cannot be written: {reason}; name another folder in NNI_CONFIG_DIR")
