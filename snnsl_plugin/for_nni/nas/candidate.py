"""What became of one sample of the space."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from snnsl_plugin.errors import Diverged


@dataclass(frozen=True)
class Candidate:
    """One sample, trained and measured on the validation part.

    A candidate that could not be trained says why in `failure`, and has no figures.

    Attributes:
        sample: the chosen value of each mutable: `width`, `depth`, `T`, `density`.
        weights: weights of all convolutions and linear layers, a count.
        score: what the evolution maximises; see `score`.
        accuracy: after the last epoch, in [0, 1].
        kept: weights kept, a count: exactly `round(density * weights)`.
        connections: kept weights on a path from the input to an output, a count.
        synops: accumulates per sample, over all time steps.
        macs: multiply-accumulates per sample, over all time steps: those of a layer whose inputs are not all 0 or 1.
        failure: one sentence, or None.
    """

    sample: dict[str, float]
    weights: int
    score: float | None = None
    accuracy: float | None = None
    kept: int | None = None
    connections: int | None = None
    synops: float | None = None
    macs: float | None = None
    failure: str | None = None


def score(accuracy: float, synops: float, synops_weight: float) -> float:
    """The objective: `accuracy - synops_weight * log10(synops)`.

    A network with less than one operation per sample is silent. It counts as one operation: its logarithm would be a
    reward without bound for a network that does nothing.

    Args:
        accuracy: in [0, 1].
        synops: accumulates per sample, >= 0.
        synops_weight: accuracy that a tenfold saving is worth, >= 0.

    >>> round(score(0.9, 1000.0, 0.05), 12)
    0.75
    """
    return accuracy - synops_weight * math.log10(max(synops, 1.0))


def best(candidates: Iterable[Candidate]) -> Candidate:
    """The candidate with the highest score, the earliest of several.

    Raises:
        Diverged: none has a score.
    """
    candidates = list(candidates)
    scored = [each for each in candidates if each.score is not None]
    if not scored:
        why = f"; the first: {candidates[0].failure}" if candidates else ""
        raise Diverged(f"none of {len(candidates)} candidates could be trained{why}: lower lr, or raise the densities")
    return max(scored, key=lambda each: each.score or 0.0)


def table(candidates: Iterable[Candidate]) -> str:
    """The candidates as text, one a line, the highest score first, those without one last."""
    ranked = sorted(candidates, key=lambda each: -math.inf if each.score is None else each.score, reverse=True)
    lines = ["width depth   T density accuracy connections    SynOps   score"]
    for each in ranked:
        chosen = each.sample
        line = f"{chosen['width']:>5} {chosen['depth']:>5} {chosen['T']:>3} {chosen['density']:>7}"
        if each.failure is None:
            line += f" {each.accuracy:>8.4f} {each.connections:>11,} {each.synops:>9,.0f} {each.score:>7.4f}"
        else:
            line += f" failed: {each.failure}"
        lines.append(line)
    return "\n".join(lines)
