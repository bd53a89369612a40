"""What a google-style docstring says about a function and about each of its options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

_OPTION = re.compile(r"^    (\w+):\s*(.*)$")


def summary(function: Callable[..., Any]) -> str:
    """The first paragraph, on one line."""
    return " ".join(inspect.cleandoc(function.__doc__ or "").split("\n\n")[0].split())


def options(function: Callable[..., Any]) -> dict[str, str]:
    """The text of each entry of the `Args:` section, on one line."""
    found: dict[str, str] = {}
    name, inside = "", False
    for line in inspect.cleandoc(function.__doc__ or "").splitlines():
        if not line.startswith(" "):
            inside, name = (line == "Args:", "") if line else (inside, name)
        elif inside and (option := _OPTION.match(line)):
            name = option[1]
            found[name] = option[2]
        elif inside and name:
            found[name] += " " + line.strip()
    return found
