"""Follows a journal that grows, and that a resumed run may cut back to its checkpoint at any moment."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnsl_plugin.errors import BadData
from snnsl_plugin.tracking import journal

_logger = logging.getLogger(__name__)
_TAIL = 65536


@dataclass(frozen=True)
class NewLines:
    """What a journal holds beyond the bytes known before, from a single read of the file.

    Attributes:
        path: the journal.
        rewound: whether the known bytes are no longer there; then all of the file counts as new.
        start: byte of the file that `content` begins with.
        known: bytes of `content` that are not new.
        content: the bytes read.
    """

    path: Path
    rewound: bool
    start: int
    known: int
    content: bytes

    def events(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields each new whole line and the byte of the file it ends at; says so of a damaged line, and goes on."""
        end = self.start + self.known
        for line in self.content[self.known :].split(b"\n")[:-1]:
            begin, end = end, end + len(line) + 1
            try:
                yield end, journal.decode(line, f"{self.path}, byte {begin}")
            except BadData as error:
                _logger.warning("tracking: left out %s", error)

    def tail(self, end: int) -> str:
        """Digest of the bytes before `end`, by which `new_lines` sees whether they are still there."""
        return _digest(self.content[: end - self.start])


def new_lines(path: Path, offset: int, tail: str) -> NewLines:
    """Reads what came after `offset`.

    Its length alone does not tell that a journal was rewound: it may have grown past the old end since. The times in
    the lines differ, so their digest does.

    Args:
        path: the journal; a missing one is empty.
        offset: bytes known.
        tail: digest of the end of those bytes, from `NewLines.tail`.
    """
    start = max(0, offset - _TAIL)
    content = _from(path, start)
    known = offset - start
    if len(content) < known or (known and _digest(content[:known]) != tail):
        return NewLines(path, rewound=True, start=0, known=0, content=_from(path, 0))
    return NewLines(path, rewound=False, start=start, known=known, content=content)


def _from(path: Path, start: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read()
    except FileNotFoundError:
        return b""


def _digest(content: bytes) -> str:
    return hashlib.sha256(content[-_TAIL:]).hexdigest()
