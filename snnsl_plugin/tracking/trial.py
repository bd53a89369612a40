"""What `RUN_DIR/trial.json` says: which trial of a study a run is, and what the study made of it; reads only."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnsl_plugin.tracking import names

FILE_NAME = "trial.json"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """A trial as MLflow shows it.

    Attributes:
        tags: `snnsl.trial` (its number), `snnsl.trial_state`, and `snnsl.retry_of` where it repeats another.
        parameters: the values that were tried, as `tune/<key>`.
        metrics: `objective/<name>`, and `constraint/<name>`, which is met at 0 or below.
    """

    tags: dict[str, str]
    parameters: dict[str, str]
    metrics: dict[str, float]


def read(run_dir: Path) -> Trial | None:
    """The trial that a run folder holds; None where it holds none, or where nobody can read the file, which is logged.

    The study writes the file whole or not at all, so one that cannot be read was damaged. The run is shown without it:
    its status and its journal do not depend on it.
    """
    path = run_dir / FILE_NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        tags = {"snnsl.trial": str(int(found["number"])), "snnsl.trial_state": str(found["state"])}
        if found.get("retry_of") is not None:
            tags["snnsl.retry_of"] = str(int(found["retry_of"]))
        tried = _mapping(found, "params").items()
        parameters = {names.allowed(f"tune/{key}"): names.text(value) for key, value in tried}
        measured = {"objective": _mapping(found, "values"), "constraint": _mapping(found, "constraints")}
        metrics = {
            names.allowed(f"{word}/{name}"): float(value)
            for word, values in measured.items()
            for name, value in values.items()
            if value is not None  # a failed trial may have a name without a number
        }
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        _logger.warning("tracking: %s is shown without its trial, %s cannot be read (%s)", run_dir, path.name, error)
        return None
    return Trial(tags, parameters, metrics)


def _mapping(found: Mapping[str, Any], word: str) -> Mapping[str, Any]:
    return dict(found.get(word) or {})
