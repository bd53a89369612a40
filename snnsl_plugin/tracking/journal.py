"""The journal of a run: one strict JSON line an event, written before anything else hears of it.

Everything else that shows a run (the report, MLflow) is drawn from this file, so losing those loses nothing.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from snnsl_plugin.errors import BadCheckpoint, BadData, BadOption

FILE_NAME = "metrics.jsonl"
_TAKEN = frozenset({"time", "event", "step", "metrics"})


class Journal:
    """Appends events to `metrics.jsonl`.

    Each line is `{"time": seconds since the epoch, "event": ..., "step": ..., "metrics": {...}, **facts}`. The file is
    strict JSON: a number that is not finite is written as the string "nan", "inf" or "-inf" (`json` alone would write
    the bare word NaN, which few other readers take), and `read` gives those of `metrics` back as floats.

    A line is handed to the operating system at once, so it survives a kill of this process. It is not synced to the
    disk: that can take seconds on a network disk, and after a power cut the run goes on from its checkpoint anyway,
    whose offset says how much of the journal belongs to it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
        >>> with Journal(path) as journal:
        ...     journal.write("epoch", 1, {"accuracy/validation": 0.5}, seconds=2.0)
        >>> next(read(path))["metrics"]
        {'accuracy/validation': 0.5}
    """

    def __init__(self, path: Path, offset: int | None = None) -> None:
        """Opens the journal for appending; its folder is made if need be.

        Args:
            path: the file, `RUN_DIR/metrics.jsonl`.
            offset: bytes of the file that belong to the checkpoint a run goes on from; what follows is cut away. None
                keeps every whole line, and cuts away a last line that a kill left half written.

        Raises:
            BadCheckpoint: the file does not have that many bytes, or the offset is not the end of a line.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: what a full disk did not take must not wait in memory for the closing of the file to fail again.
        self._file = path.open("ab", buffering=0)
        try:
            written = path.read_bytes()
            if offset is None:
                offset = written.rfind(b"\n") + 1
            elif not 0 <= offset <= len(written):
                raise BadCheckpoint(
                    f"{path}: the checkpoint counts {offset} bytes of journal, the file has {len(written)}; the journal"
                    " was cut or belongs to another run: put the whole run folder back, or start in a new one"
                )
            elif offset and written[offset - 1 : offset] != b"\n":
                raise BadCheckpoint(
                    f"{path}: byte {offset}, where the checkpoint goes on, is not the end of a line; the journal"
                    " belongs to another run: put the whole run folder back, or start in a new one"
                )
            self._file.truncate(offset)
            self._file.seek(offset)
        except BaseException:
            self._file.close()
            raise

    @property
    def offset(self) -> int:
        """Bytes in the file, all of them whole lines: the number a checkpoint keeps."""
        return self._file.tell()

    def write(self, event: str, step: int, metrics: Mapping[str, float] | None = None, **facts: Any) -> None:
        """Writes one line and hands it to the operating system.

        Args:
            event: a word for what happened, such as "started", "epoch" or "mask_update".
            step: the step it happened at.
            metrics: numbers by name (`density/<layer>`, `accuracy/validation`); anything `float` takes.
            facts: further plain values (text, numbers, lists, mappings, paths), kept in the line.

        Raises:
            BadOption: a metric that is no number, or a fact that JSON cannot hold or that is called like a field.
            OSError: the disk is full or gone. The journal is the truth, so this does stop the run; no half line stays.
        """
        if taken := _TAKEN & facts.keys():
            raise BadOption(
                f"journal: {event!r} has a fact called {sorted(taken)[0]!r}, a field of every line; rename it"
            )
        try:
            line = {
                "time": time.time(),
                "event": event,
                "step": int(step),
                "metrics": {name: _strict(float(value)) for name, value in (metrics or {}).items()},
                **{name: _strict(value) for name, value in facts.items()},
            }
            text = json.dumps(line, allow_nan=False, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            raise BadOption(f"journal: event {event!r} at step {step} holds what JSON cannot: {error}") from error
        self._append(text.encode() + b"\n")

    def _append(self, line: bytes) -> None:
        begun = self._file.tell()
        try:
            while line:  # a disk that fills up takes a part, and says so at the next call
                line = line[self._file.write(line) :]
        except OSError as error:
            with contextlib.suppress(OSError):  # a reader leaves out a half line at the end, and so does a resumed run
                self._file.truncate(begun)
                self._file.seek(begun)
            raise OSError(error.errno, error.strerror, self._file.name) from error

    def sync(self) -> None:
        """Hands what was written to the disk itself, so that a power cut cannot take it back."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file; closing twice is fine."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the journal's lines; a last line that a kill cut short is left out.

    Raises:
        BadData: a line before the last one is not JSON, so something else than a kill damaged the file.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            yield decode(line, f"{path}:{number}")


def decode(line: bytes, place: str) -> dict[str, Any]:
    """One whole line as a mapping, its metrics as floats.

    Args:
        line: the bytes of one line.
        place: `file:line`, for the error.

    Raises:
        BadData: the line is not one of a journal.
    """
    try:
        event = json.loads(line)
        event["metrics"] = {name: float(value) for name, value in event["metrics"].items()}
        event["time"], event["step"] = float(event["time"]), int(event["step"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadData(f"{place}: not a line of a journal ({error}); restore the file or remove the line") from error
    return dict(event)


def _strict(value: Any) -> Any:
    """The value with numbers that are not finite as text, and numpy or torch scalars and paths as plain values."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): _strict(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(entry) for entry in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return _strict(value.tolist()) if hasattr(value, "tolist") else value
