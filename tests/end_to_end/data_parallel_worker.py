"""One of several ranks, started by torchrun: trains the cases and runs recipes, and writes what it saw.

Arguments: folder. `one_to_two` in it is a run that one process has begun.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from data_parallel_cases import CASES, recipe, trained

from snnsl_plugin.datasets._loader import Loader
from snnsl_plugin.errors import BadData, BadOption, SnnslError, Stopped
from snnsl_plugin.recipe import runner
from snnsl_plugin.training.events import Epoch, Event, MaskUpdate, Step
from snnsl_plugin.training.ranks import Ranks
from snnsl_plugin.training.torchrun import together


class Enough(Stopped):
    """A reason of the caller's own, which the package has not heard of."""


def stop_at(kind: type[Event], number: int, ranks: Ranks) -> Callable[[str, Event], None]:
    """A listener that ends a run by rank 0 alone, at so many events of a kind."""
    left = [number]

    def listen(phase: str, event: Event) -> None:
        left[0] -= isinstance(event, kind)
        if not left[0] and ranks.leads:
            raise Enough("seen enough")

    return listen


def ended(call: Callable[[], Any]) -> tuple[str, str]:
    try:
        call()
    except SnnslError as error:
        return type(error).__name__, str(error)
    return "", ""


def nan_on_the_last_rank(ranks: Ranks) -> Callable[[], Any]:
    shares = Loader.shares

    def spoilt(self, generator, rank, world_size):
        for number, each in enumerate(shares(self, generator, rank, world_size)):
            if number == 3 and rank == world_size - 1:
                raise BadData("sample 3 is damaged")
            yield each

    Loader.shares = spoilt
    return lambda: runner.run(recipe(), run_dir=Path(sys.argv[1]) / "spoilt", name="tiny", ranks=ranks)


def main(folder: Path, ranks: Ranks) -> None:
    seen: dict[str, Any] = {}
    for case in CASES:
        seen[case] = trained(case, ranks)

    def run(name: str, *changes: str, **given: Any) -> dict[str, Any]:
        return runner.run(recipe(*changes), run_dir=folder / name, name="tiny", ranks=ranks, **given)

    seen["whole"] = run("whole")
    for name, kind, number in (("epoch", Epoch, 2), ("update", MaskUpdate, 3), ("step", Step, 40)):
        seen[f"stopped/{name}"] = ended(lambda: run(name, on_event=stop_at(kind, number, ranks)))  # noqa: B023
        if ranks.leads and name == "epoch":
            shutil.copytree(folder / name, folder / "two_to_one")
        ranks.sum()  # nobody goes on before the copy is made
        seen[f"resumed/{name}"] = run(name, resume=True)
    seen["one_to_two"] = run("one_to_two", resume=True)
    seen["validation"] = run("validation", "train.epochs=2", judge="validation", counted=[2])
    seen["shown"] = run("whole", resume=True)
    seen["taken"] = ended(lambda: run("whole"))
    seen["other"] = ended(lambda: run("other", f"seed={ranks.rank}"))
    seen["alone"] = ended(lambda: runner.run(recipe(), run_dir=folder / "alone", name="tiny"))
    seen["device"] = ended(lambda: run("device", "train.device=cuda:0"))
    try:
        with ranks.agreed():
            if ranks.rank:
                raise BadOption("only here")
    except BadOption as error:
        seen["agreed"] = str(error)
    torch.save(seen, folder / f"{ranks.rank}.pt")


if __name__ == "__main__":
    with together() as these:
        if sys.argv[2:] == ["spoilt"]:
            nan_on_the_last_rank(these)()
        else:
            main(Path(sys.argv[1]), these)
