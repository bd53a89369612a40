"""From a recipe with a `tune` block to a study folder: trials trained by workers, side by side, and what they found."""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from snnsl_plugin.errors import BadOption, RunFolderInUse
from snnsl_plugin.for_nni.study import check_sampler
from snnsl_plugin.models._permission import permit
from snnsl_plugin.recipe import assemble, data_parallel, folder
from snnsl_plugin.recipe.load import dump
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.tracking.launch import launch
from snnsl_plugin.tracking.sharing import adopt_identity
from snnsl_plugin.training.checkpoint import write_text
from snnsl_plugin.training.ranks import ALONE, Ranks, undisturbed
from snnsl_plugin.tuning import study, together
from snnsl_plugin.tuning.attempt import RUNS
from snnsl_plugin.tuning.database import Database
from snnsl_plugin.tuning.head import Head, Listener, State


def tune(
    recipe: Recipe,
    *,
    name: str,
    run_dir: Path | None = None,
    resume: bool = False,
    storage: str | None = None,
    workers: int | None = None,
    permitted: Sequence[str] = (),
    listen: Listener | None = None,
    on_start: Callable[[Path], None] | None = None,
    root: Path = Path("runs"),
    command: str = "",
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Searches what the recipe's `tune` block says, and leaves a study folder.

    The study lives in a database. Whoever opens the same one, on this machine or another, takes part in it. A trial
    that fails stops no other; one whose worker dies is given to another worker, and goes on from its checkpoint where
    that is on the same machine.

    Args:
        recipe: with a `tune` block.
        name: of the recipe, of the study, and of new folders.
        run_dir: the folder to use; a numbered one below `root` where omitted.
        resume: go on with a study that was killed or interrupted.
        storage: URL of the database; the recipe's, or a sqlite file in the folder, where omitted.
        workers: trials at the same time; the recipe's where omitted. 0 trains nothing, and only collects.
        permitted: code of the user's own that may be imported, `package.module:function`.
        listen: is told how far it is.
        on_start: is told the folder.
        root: where numbered folders are made.
        command: that repeats this, for the report.
        ranks: processes that train every trial together, one trial after the other, for networks too large for one
            device; each of them makes this call. `workers` does not count then.

    Returns:
        The content of `study.json`.

    Raises:
        UsageError: recipe, data, database or call are wrong; nothing was trained, and nothing overwritten.
        SnnslError: workers that die before they begin, or a database that is gone for good.
    """
    began = time.perf_counter()
    for target in permitted:
        permit(target)
    _rehearse(recipe, ranks)
    if not ranks.leads:
        together.follow(recipe, ranks)
        return {}
    own, opened, place = study.digest(recipe), None, uuid.uuid4().hex
    block = study.tune_of(recipe)
    title, url = block.study or name, storage or block.storage
    if url and not resume:
        opened = study.open_study(recipe, title, url, place)  # what is wrong is said before a folder is made
    run_dir = folder.choose(name, own, run_dir=run_dir, resume=resume, root=root)
    with folder.held(run_dir):
        held = folder.identity(run_dir)
        if held and not resume:
            raise RunFolderInUse(f"{run_dir} was taken by another study: choose another --run-dir")
        if held:
            place, title = str(held["place"]), str(held["study"])
            url = _same_study(run_dir, held, block.study, storage)
        opened = opened or study.open_study(recipe, title, url or study.default_storage(run_dir), place)
        if held and not opened.ledger.trials() and any((run_dir / RUNS).glob("*")):
            raise BadOption(
                f"{run_dir} has trials that its database {opened.ledger.shown} does not know, as if it was emptied: "
                "start the study anew with another --run-dir"
            )
        shown = opened.ledger.shown if url else None
        url = url or study.default_storage(run_dir)
        created = (held or {}).get("created") or datetime.now(UTC).isoformat(timespec="seconds")
        identity = {"name": name, "digest": own, "seed": recipe.seed, "study": title, "place": place,
                    "created": created, "storage": shown}  # fmt: skip
        folder.write_json(run_dir / folder.IDENTITY, identity)
        write_text(run_dir / folder.RECIPE, dump(recipe))
        (run_dir / folder.RESULT).unlink(missing_ok=True)
        if on_start:
            on_start(run_dir)
        if recipe.tracking.mlflow:
            if shown:
                adopt_identity(run_dir, opened.ledger.identity, joined=opened.ledger.joined)
            launch(run_dir, uri=recipe.tracking.uri, experiment=recipe.tracking.experiment or name)
        head = Head(opened, run_dir, url, tuple(permitted), listen or _nobody, command, began)
        status = "failed"
        try:
            head.begin()
            if ranks.world_size > 1:
                head.work_together(ranks)
            else:
                with _interrupts() as asked:
                    head.work(opened.tune.workers if workers is None else workers, asked)
            status = "unfinished" if head.waiting() else "finished"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            with undisturbed() if ranks.world_size > 1 else nullcontext():
                head.end(status)
                result = {"schema": 1, **identity, "status": status}
                folder.write_json(run_dir / folder.RESULT, result)
    return head.state.found


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Asks whether Ctrl-C was pressed, instead of being stopped by it anywhere: also in the middle of a transaction,
    whose lock would then stand in the way of giving the tickets back. A second Ctrl-C does stop it.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    signal.signal(signal.SIGINT, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _rehearse(recipe: Recipe, ranks: Ranks) -> None:
    """Says what cannot work before anything is made: the data, the network, the patterns, the rungs."""
    check_sampler(study.tune_of(recipe).sampler, 0)
    if ranks.world_size > 1:
        together.check()
    data_parallel.check(recipe, ranks)
    with ranks.agreed():
        assemble.assemble(recipe, assemble.data(recipe))


def _same_study(run_dir: Path, held: dict[str, Any], title: str | None, storage: str | None) -> str | None:
    """The URL of the database in which the study of a folder lives; None for the file in that folder.

    Args:
        run_dir: the folder.
        held: what it says of itself.
        title: the study's name as the recipe gives it.
        storage: the URL as the call gives it.

    Raises:
        BadOption: recipe or call mean another study; or the URL had a password, which is kept nowhere.
    """
    if title and title != held["study"]:
        raise BadOption(
            f"{run_dir} belongs to study {held['study']!r}, not to {title!r}: leave out tune.study, or choose another "
            "--run-dir"
        )
    url = held["storage"]
    if storage:
        known, given = (Database(each).shown.replace(":***@", "@") for each in (
            url or study.default_storage(run_dir), storage
        ))  # fmt: skip
        if known != given:
            raise BadOption(
                f"{run_dir} has its study in {known}, not in {given}: leave out --storage, or choose another --run-dir"
            )
        return storage if url else None
    if url and ":***@" in url:
        raise BadOption(f"the study is in {url}, and its password is kept nowhere: give --storage again")
    return str(url) if url else None


def _nobody(state: State) -> None:
    """Nobody listens."""
