"""From `package.module:function` to the function of a user's own, and the digest of the file it is written in."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from snnsl_plugin.errors import BadOption, did_you_mean
from snnsl_plugin.models._permission import is_permitted, parted


def function_of(target: str) -> Callable[..., Any]:
    """Imports the module of a permitted target and gives its function.

    Raises:
        BadOption: the target is malformed or was not permitted in this process; its module cannot be imported, or has
            no such function.
    """
    module, name = parted(target)
    if not is_permitted(target):
        raise BadOption(
            f"the network {target} is code of your own, which a recipe alone may not import: give the flag "
            f"--model {target} (in Python: snnsl_plugin.models._permission.permit({target!r}))"
        )
    with current_folder_importable():
        importlib.invalidate_caches()
        try:
            held = vars(importlib.import_module(module))
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):
                raise BadOption(f"{module} cannot be imported: {error}; install what it needs") from error
            raise BadOption(
                f"there is no module {error.name!r}, neither installed nor in the current folder {Path.cwd()}: write "
                "--model package.module:function, and call snnsl from the folder that holds the package"
            ) from error
        except (Exception, SystemExit) as error:  # it is the user's code, which may raise anything
            raise BadOption(f"{module} cannot be imported: {described(error)}; mend it") from error
    if name not in held:
        raise BadOption(
            f"{module} ({_file(None, module)}) has no {name!r}{did_you_mean(name, held)}: "
            f"write --model {module}:function"
        )
    found = held[name]
    if not callable(found):
        raise BadOption(f"{target} is no function but of type {type(found).__name__}: name one that makes the network")
    return found  # type: ignore[no-any-return]


def source_of(target: str) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the file in which a permitted target's function is written.

    Only that file counts, not what it imports.

    Raises:
        BadOption: as `function_of`, or there is no such file.
    """
    file = _file(function_of(target), parted(target)[0])
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise BadOption(
            f"the code of {target} cannot be read from {file} ({error.strerror}): keep it in a .py file"
        ) from error


def source_file(target: str) -> Path:
    """The file that `source_of` reads."""
    return _file(function_of(target), parted(target)[0])


@contextlib.contextmanager
def current_folder_importable() -> Iterator[None]:
    """The current folder first on `sys.path`, as `python -m` has it and a console script has not; gone afterwards."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the imported code may have taken it off itself
            sys.path.remove(here)


def described(error: BaseException) -> str:
    """Type and message of an error that a user's code raised, in one line."""
    message = " ".join(str(error).split())
    return f"it raises {type(error).__name__}{f': {message}' if message else ''}"


def _file(function: Callable[..., Any] | None, module: str) -> Path:
    """The file a function is written in; that of the module it was named in where it does not know."""
    file = None
    if function is not None:
        with contextlib.suppress(TypeError):  # a partial, or an object that can be called
            file = inspect.getsourcefile(inspect.unwrap(function))
    return Path(file or getattr(sys.modules[module], "__file__", None) or module)
