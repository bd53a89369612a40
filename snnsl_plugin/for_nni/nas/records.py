"""What a search has found, on disk: a restarted search trains no sample twice, and a kill loses at most one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from snnsl_plugin.errors import BadCheckpoint, BadData, RunFolderInUse
from snnsl_plugin.for_nni.nas.candidate import Candidate
from snnsl_plugin.for_nni.nas.space import SpikingNetwork, SpikingSpace
from snnsl_plugin.tracking.journal import Journal, read
from snnsl_plugin.training import checkpoint

CANDIDATES = "candidates.jsonl"
BEST = "best.safetensors"


class Records:
    """The candidates of one folder: `candidates.jsonl`, a line each, and the network of the best one so far.

    NNI's own resume writes a pickle at the end of a search and not after each candidate, and today's torch refuses to
    read it. The evolution draws from a seed alone, so with the same seed it asks for the same samples again, and a
    lookup here is all that resuming takes.

    Args:
        folder: made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._best_path = folder / CANDIDATES, folder / BEST
        self._settings: dict[str, Any] | None = None
        self._known: dict[str, Candidate] = {}

    def open(self, settings: dict[str, Any]) -> None:
        """Reads what the folder holds, or begins it.

        Args:
            settings: all that a candidate's figures depend on but its sample; plain data.

        Raises:
            RunFolderInUse: the folder holds candidates of other settings.
            BadData: its file is damaged.
        """
        settings = json.loads(json.dumps(settings))
        if self._settings is None:
            self._settings = self._read() or self._begin(settings)
        if other := [word for word in settings | self._settings if settings.get(word) != self._settings.get(word)]:
            raise RunFolderInUse(
                f"{self._path} holds candidates of another search (it differs in {', '.join(sorted(other))}): search "
                "in another folder, or with the settings in its first line"
            )

    def get(self, sample: Mapping[str, Any]) -> Candidate | None:
        """The candidate of a sample, None where it was not tried."""
        return self._known.get(_key(sample))

    def add(self, candidate: Candidate, network: SpikingNetwork, masks: Mapping[str, Tensor]) -> None:
        """Keeps a candidate for good; its network too where it is better than all before."""
        before = max((each.score for each in self._known.values() if each.score is not None), default=None)
        if candidate.score is not None and (before is None or candidate.score > before):
            # First the network: a kill in between costs a second training, and never leaves a best without a network.
            tree = {"candidate": asdict(candidate), "built_with": network.built_with}
            checkpoint.save(self._best_path, {**tree, "model": network.state_dict(), "masks": dict(masks)})
        self._write("candidate", len(self._known) + 1, candidate=asdict(candidate))
        self._known[_key(candidate.sample)] = candidate

    def _read(self) -> dict[str, Any] | None:
        if not self._path.exists():
            return None
        lines = list(read(self._path))
        if not lines:
            return None
        try:
            self._known = {
                _key(line["candidate"]["sample"]): Candidate(**line["candidate"])
                for line in lines
                if line["event"] == "candidate"
            }
            return dict(lines[0]["settings"])
        except (KeyError, TypeError) as error:
            raise BadData(
                f"{self._path}: not the candidates of a search ({error!r}); restore it, or search in another folder"
            ) from error

    def _begin(self, settings: dict[str, Any]) -> dict[str, Any]:
        self._write("settings", 0, settings=settings)
        return settings

    def _write(self, event: str, number: int, **facts: Any) -> None:
        with Journal(self._path) as journal:
            journal.write(event, number, **facts)
            journal.sync()


def load_best(folder: Path, space: SpikingSpace) -> tuple[SpikingNetwork, Candidate, dict[str, Tensor]]:
    """The best network of a search, trained, on the CPU.

    Args:
        folder: the evaluator's.
        space: the space that was searched.

    Returns:
        The network, its candidate (with the sample it was frozen by), and its masks, bool, by parameter name.

    Raises:
        BadCheckpoint: there is none, or it is of another space.
    """
    path = Path(folder) / BEST
    tree = checkpoint.load(path)
    try:
        candidate = Candidate(**tree["candidate"])
        network = space.freeze(candidate.sample)
        if json.loads(json.dumps(network.built_with)) != tree["built_with"]:
            raise ValueError(f"built with {network.built_with} instead of {tree['built_with']}")
        network.load_state_dict(tree["model"])
        return network, candidate, tree["masks"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BadCheckpoint(f"{path} is not of this space ({reason}): pass the one that was searched") from error


def _key(sample: Mapping[str, Any]) -> str:
    return json.dumps(sample, sort_keys=True)
