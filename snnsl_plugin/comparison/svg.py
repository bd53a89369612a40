"""The parts of a picture inside a page: escaped SVG elements, one marker a host, and points that are links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from snnsl_plugin.comparison import wording
from snnsl_plugin.comparison.wording import Row, host_of

_LONGEST_NAME = 40
DENSE_MARKER = "M-5-2H5V2H-5Z"
#: one marker a host, about 9 units wide around (0, 0)
MARKERS = (
    "M0-4.6A4.6 4.6 0 1 1 0 4.6A4.6 4.6 0 1 1 0-4.6Z",
    "M-4.1-4.1H4.1V4.1H-4.1Z",
    "M0-5.2L5 3.8H-5Z",
    "M0-5.6L5 0L0 5.6L-5 0Z",
    "M0 5.2L5-3.8H-5Z",
    "M-5-1.7H-1.7V-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5Z",
)


def link(folder: str | None) -> str | None:
    """A run folder as a relative address; None where there is no folder.

    Everything but the slashes is quoted, so a name can be neither a scheme (`javascript:`) nor another host (`//`).
    """
    if not folder or not folder.strip("/"):
        return None
    return quote(folder.strip("/")) + "/"


def first_folder(row: Row) -> str | None:
    """The folder of a row's first finished run, else of its first run."""
    runs = sorted(row["runs"], key=lambda run: run["status"] != "finished")
    return next((run["folder"] for run in runs if run["folder"]), None)


def host_class(host: str, hosts: Sequence[str]) -> str:
    """The CSS class of a host's colour; dense has its own."""
    return "hd" if host == "dense" else f"h{hosts.index(host) % 6}"


def marker(host: str, hosts: Sequence[str]) -> str:
    """The path of a host's marker."""
    return DENSE_MARKER if host == "dense" else MARKERS[hosts.index(host) % len(MARKERS)]


def mark(bar: str, shape: str, x: float, y: float) -> Markup:
    """A marker at (x, y), on the path of its interval where there is one."""
    interval = element("path", {"class": "bar", "d": bar}) if bar else Markup("")
    return interval + element("path", {"class": "mark", "d": shape, "transform": f"translate({x:.1f} {y:.1f})"})


def point(number: int, row: Row, inner: Markup, hosts: Sequence[str]) -> Markup:
    """A point: a link to the row's first run folder, or only a place for the keyboard where there is none."""
    words = f"{row['pruner']}, {wording.budget_words(row['budget'])}: accuracy {wording.mean_and_half_width(row)}"
    words += f", {(row['measures'].get('accuracy') or {}).get('n', 0)} seeds"
    attributes: dict[str, Any] = {"href": link(first_folder(row))}
    if attributes["href"] is None:
        attributes = {"tabindex": "0", "role": "img"}
    attributes |= {
        "class": f"point {host_class(host_of(row), hosts)}",
        "data-row": number,
        "data-host": host_of(row),
        "data-pruner": row["pruner"],
        "aria-label": words,
    }
    return element("a", attributes, inner)


def picture(width: float, height: float, alt: str, parts: Sequence[Markup], *, wide: bool = False) -> Markup:
    """A whole picture, whose points stay reachable for those who do not see it.

    Args:
        width: of the view box.
        height: of the view box.
        alt: what it shows, in a sentence.
        parts: from the back to the front.
        wide: whether it is a list of lines, read from top to bottom.
    """
    attributes = {
        "class": "wide" if wide else "narrow",
        "viewBox": f"0 0 {width:g} {height:g}",
        "role": "group",
        "aria-label": alt,
    }
    return element("svg", attributes, Markup("").join(parts))


def text(x: float, y: float, words: str, anchor: str, style: str = "tick") -> Markup:
    """Words at a place; anchor is SVG's `start`, `middle` or `end`."""
    return element(
        "text", {"class": style, "x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}, Markup.escape(words)
    )


def element(name: str, attributes: Mapping[str, Any], inner: Markup = Markup("")) -> Markup:
    """One element; every attribute is escaped, and so is an inner text that is not Markup."""
    written = Markup("").join(Markup(' {}="{}"').format(key, value) for key, value in attributes.items())
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, inner)


def short(name: str) -> str:
    """A name cut to what fits beside a line."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
