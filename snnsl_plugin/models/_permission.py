"""Which of a user's functions this process may import: those that somebody named by an explicit call, and no other."""

from __future__ import annotations

import re

from snnsl_plugin.errors import BadOption

# Permission has to outlive the call that gives it and must not come from a recipe, so the process itself holds it.
_permitted: set[str] = set()


def permit(target: str) -> None:
    """Lets this process, until it ends, import the module of `target` and call the function it names.

    Whoever calls this vouches for the code: importing a module runs it. The command does so for its flag `--model`; a
    recipe alone never does.

    Args:
        target: `package.module:function`.

    Raises:
        BadOption: it is not written like that.
    """
    parted(target)
    _permitted.add(target)


def is_permitted(target: str) -> bool:
    """Whether exactly this target was permitted."""
    return target in _permitted


def parted(target: str) -> tuple[str, str]:
    """Module and function of a target.

    >>> parted("my_pkg.my_module:build")
    ('my_pkg.my_module', 'build')

    Raises:
        BadOption: it is not `package.module:function`.
    """
    module, _, function = target.partition(":")
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", module) or not re.fullmatch(r"[^\W\d]\w*", function):
        raise BadOption(
            f"the network {target!r} is not written package.module:function, e.g. my_pkg.my_module:build (dots between "
            "the parts of the module, no .py)"
        )
    return module, function
