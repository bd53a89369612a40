"""What a row says that failed."""

from __future__ import annotations

from snnsl_plugin.errors import SnnslError


def sentence(error: BaseException) -> str:
    r"""A failure in one line: ours as they are, those of hosts and users with their kind before them.

    >>> sentence(ValueError("no such\nlayer"))
    'ValueError: no such layer'
    """
    kind = type(error).__name__
    try:
        text = "".join(each for each in " ".join(str(error).split()) if each.isprintable())
    except Exception:  # it is somebody else's class
        text = ""
    if isinstance(error, SystemExit):
        return f"it left its process by sys.exit({text}): let it raise an error, or return"
    return text if isinstance(error, SnnslError) and text else f"{kind}: {text or 'no message'}"
