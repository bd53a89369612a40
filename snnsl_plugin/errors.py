"""Every failure is a sentence a user can act on: what, where, and the way out.

`exit_status` is what the command line returns: 1 where the recipe or the call is wrong, 2 where the run failed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SnnslError(Exception):
    """Parent of all errors raised on purpose by this package."""

    exit_status = 2


class UsageError(SnnslError):
    """The recipe or the call is wrong; nothing was run."""

    exit_status = 1


class UnknownName(UsageError):
    """A name that no file, recipe or entry point provides."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        super().__init__(f"unknown {kind} {name!r}{did_you_mean(name, known)} (known: {', '.join(known) or 'none'})")


class BadOption(UsageError, ValueError):
    """An option outside its range or of the wrong type."""


class BadRecipe(UsageError):
    """A recipe that does not say what to run; carries every problem found, one a line."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class MissingExtra(UsageError, ImportError):
    """An optional library that this option needs is absent or cannot be imported here."""


class MissingData(UsageError, FileNotFoundError):
    """A data set that is not where it was expected."""


class NothingMatched(UsageError):
    """A pattern that matches no layer, or a pruner with nothing to do."""


class RunFolderInUse(UsageError):
    """A run folder that another process holds, or that holds another run."""


class BadCheckpoint(UsageError):
    """A checkpoint that is damaged or belongs to another recipe."""


class BadData(SnnslError):
    """A sample that cannot be decoded, or that is not finite."""


class MissingStatistic(SnnslError):
    """A criterion, growth or guide asked for a tensor that nobody recorded."""


class Stopped(SnnslError):
    """A training that somebody else ended early on purpose; it is no failure."""


class LostRank(SnnslError):
    """Another process that trains the same network has ended or fallen silent."""


class RankFailed(SnnslError):
    """What another process that trains the same network has met; `exit_status` is that of its error."""


class SaidElsewhere(SnnslError):
    """A failure that another process of the same run has put into words; `exit_status` is that of the failure."""


class Diverged(SnnslError):
    """Loss, scores or weights are no longer finite."""


class CannotCut(SnnslError):
    """Channels that cannot be removed from a model; it is left as it was."""


class NothingRemoved(SnnslError):
    """A pruner that was to remove channels and removed none."""


class Disconnected(SnnslError):
    """A mask that leaves no path from the input to the output."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The nearest known word as a suffix for an error, or an empty string.

    >>> did_you_mean("magnitud", ["magnitude", "fisher"])
    "; did you mean 'magnitude'?"
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
