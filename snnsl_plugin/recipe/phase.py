"""One network trained in one folder: resumed where it stopped, measured once at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from snnsl_plugin.errors import BadCheckpoint
from snnsl_plugin.for_torch.hosted import HostedPruner
from snnsl_plugin.for_torch.torch_masks import made_permanent
from snnsl_plugin.metrics.system import system_metrics
from snnsl_plugin.recipe import compact, data_parallel, folder
from snnsl_plugin.recipe.assemble import Assembled, Data, assemble
from snnsl_plugin.recipe.budgets import counting, masks_of, missed_by
from snnsl_plugin.recipe.digest import digest
from snnsl_plugin.recipe.load import dump
from snnsl_plugin.recipe.outcome import finish, sizes_of
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.tracking.journal import Journal
from snnsl_plugin.training import checkpoint
from snnsl_plugin.training.events import Epoch, Event, MaskUpdate
from snnsl_plugin.training.loop import fit
from snnsl_plugin.training.pruner import DynamicPruner
from snnsl_plugin.training.ranks import ALONE, Ranks

_log = logging.getLogger(__name__)
OnEvent = Callable[[Event], None]


def train(
    recipe: Recipe,
    run_dir: Path,
    parts: Data,
    on_event: OnEvent,
    *,
    name: str,
    judge: Literal["test", "validation"] = "test",
    counted: Collection[int] = (),
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Trains the network of a recipe in a folder, going on from its checkpoint if there is one.

    Args:
        recipe: what to train.
        run_dir: its folder, held by this process.
        parts: the loaded data.
        on_event: is told of each event.
        name: the recipe's name.
        judge: the part that the trained network is measured on; the test set is only read for `test`.
        counted: numbers of the epochs whose events tell connections and operations.
        ranks: the processes that train it together; rank 0 alone reads and writes the folder.

    Returns:
        The result, written to `result.json` but for what the run as a whole adds.

    Raises:
        SnnslError: see `fit`; the result then says `failed`.
    """
    own = digest(recipe)
    if ranks.leads:
        folder.write_json(run_dir / folder.IDENTITY, {"name": name, "digest": own, "seed": recipe.seed})
        checkpoint.write_text(run_dir / folder.RECIPE, dump(recipe))
    with ranks.agreed():
        made = assemble(recipe, parts)
    saved = _resume(made, run_dir, own, ranks)
    with ExitStack() as cared, data_parallel.journal(run_dir / folder.JOURNAL, saved["journal"], ranks) as journal:
        for care in made.health:
            cared.enter_context(care)
        if not saved["epoch"]:
            journal.write(
                "started", 0, recipe=name, digest=own, dataset=parts.splits.source, layers=sizes_of(made.model)
            )
        began = time.perf_counter() - saved["wall"]
        training = fit(
            made.model, parts.train, parts.validation, made.optimizer, counting(made.how, made.pruner, counted),
            pruner=made.pruner, distiller=made.distiller, scaler=made.scaler, health=made.health,
            epochs_done=saved["epoch"],
            ranks=ranks,
        )  # fmt: skip
        if ranks.leads:
            system_metrics(run_dir, made.how.device)  # the processor's use is counted from here
        for event in training:
            if ranks.leads:
                _write(journal, event, run_dir, made)
            if isinstance(event, Epoch):
                saved["epoch"], saved["wall"] = event.epoch, time.perf_counter() - began
                saved["seconds"].append(event.seconds)
                _select(saved, event, made)
                journal.sync()  # the checkpoint must not count lines that a power cut could still take
                saved["journal"] = journal.offset
                tree = _tree(made, saved, own)  # made by all ranks: their counts are added up
                if ranks.leads:
                    checkpoint.save(run_dir / folder.CHECKPOINT, tree)
                event = replace(event, elapsed=saved["wall"])
            with ranks.agreed():  # one that stops it stops it for all
                on_event(event)
        result: dict[str, Any] = saved["result"] or finish(
            recipe, made, saved, run_dir, own, name, began, judge, ranks.leads
        )
        read = {"accuracy/test": result["accuracy"]["test"]} if judge == "test" else {}
        journal.write("finished", saved["epoch"] * len(parts.train), read)
    return result


def _resume(made: Assembled, run_dir: Path, own: str, ranks: Ranks) -> dict[str, Any]:
    fresh = {"epoch": 0, "wall": 0.0, "seconds": [], "best": None, "journal": 0, "result": None}
    path = run_dir / folder.CHECKPOINT
    tree = ranks.first(lambda: checkpoint.load(path) if path.is_file() else None)
    if tree is None:
        return fresh
    if tree.get("digest") != own:
        raise BadCheckpoint(f"{path} belongs to another recipe: resume with {run_dir / folder.RECIPE}")
    try:
        if tree["progress"]["result"] is not None:  # killed after its last checkpoint and before result.json
            return {key: tree["progress"][key] for key in fresh}
        if stuck := _cannot_go_on(made):
            _log.warning(
                "%s: %s cannot go on from the middle, so the training of the sparse network starts again, from the "
                "same seed",
                path.parent,
                stuck,
            )
            return fresh
        if isinstance(made.pruner, compact.Cutting):
            compact.go_on_(made.pruner, made.model, made.distiller, tree)
        if isinstance(made.pruner, HostedPruner):
            _mask_again_(made.pruner, made, tree)
        made.model.load_state_dict(tree["model"])
        made.optimizer.load_state_dict(tree["optimizer"])
        if isinstance(made.pruner, DynamicPruner):
            made.pruner.load_state_dict(tree["pruner"])
        if made.distiller and not isinstance(made.pruner, compact.Cutting | HostedPruner):
            made.distiller.load_state_dict(tree["distiller"], made.model)
        made.scaler.load_state_dict(tree["scaler"])
        for care, state in zip(made.health, tree.get("health", []), strict=True):
            care.load_state_dict(state)
        return {key: tree["progress"][key] for key in fresh}
    except (KeyError, RuntimeError, ValueError) as error:
        raise BadCheckpoint(
            f"{path} does not fit this recipe ({str(error).splitlines()[0]}): start anew with another --run-dir"
        ) from error


def _cannot_go_on(made: Assembled) -> str:
    """The pruner that must begin anew, in words; an empty string where it need not."""
    if isinstance(made.pruner, HostedPruner):
        return "" if made.pruner.resumable else f"the pruner {made.pruner.name} (it has no load_state_dict)"
    return "a pruner of NNI" if made.pruner and not isinstance(made.pruner, DynamicPruner | compact.Cutting) else ""


def _mask_again_(pruner: HostedPruner, made: Assembled, tree: dict[str, Any]) -> None:
    """Puts the masks of a checkpoint into a fresh network; its weights are loaded by the caller.

    A guide may be a copy of the network from before, with or without its masks: it is loaded as a plain network, and as
    it is where the pruner gives a network another form.
    """
    waiting = made.distiller

    def as_plain() -> None:
        nonlocal waiting
        if waiting is None:
            return
        try:
            waiting.load_state_dict(made_permanent(tree["distiller"]), made.model)
        except RuntimeError:  # the pruner gives the network a form of its own, and the guide is a copy of that
            return
        waiting = None

    pruner.load_state_dict(tree["pruner"], while_plain=as_plain)
    if waiting is not None:
        waiting.load_state_dict(tree["distiller"], made.model)


def _tree(made: Assembled, saved: dict[str, Any], own: str) -> dict[str, Any]:
    return {
        "digest": own,
        "progress": saved,
        "model": made.model.state_dict(),
        "optimizer": made.optimizer.state_dict(),
        "pruner": made.pruner.state_dict() if made.pruner else {},
        "distiller": made.distiller.state_dict() if made.distiller else {},
        "scaler": made.scaler.state_dict(),
        "health": [each.state_dict() for each in made.health],
    }


def _select(saved: dict[str, Any], event: Epoch, made: Assembled) -> None:
    """Keeps the epoch with the best validation accuracy, among those at the final density and within the budget."""
    if made.pruner and event.step < made.pruner.until:
        return
    best, missed = saved["best"], missed_by(made.pruner, event)
    rank = (-missed, event.validation_accuracy, -event.validation_loss)
    if best is None or rank > (-best.get("missed", 0.0), best["accuracy"], -best["loss"]):
        saved["best"] = {
            **masks_of(made.pruner, missed),
            "epoch": event.epoch,
            "accuracy": event.validation_accuracy,
            "loss": event.validation_loss,
            "model": {key: value.clone() for key, value in made.model.state_dict().items()},
        }


def _write(journal: Journal | data_parallel.Unwritten, event: Event, run_dir: Path, made: Assembled) -> None:
    if isinstance(event, Epoch):
        metrics = {
            "loss/train": event.loss,
            "loss/validation": event.validation_loss,
            "accuracy/train": event.accuracy,
            "accuracy/validation": event.validation_accuracy,
            "density": event.density,
            "lr": event.lr,
            "seconds": event.seconds,
        }
        metrics |= {f"rate/{name}": rate for name, rate in event.rates.items()}
        metrics |= {f"silent/{name}": share for name, share in event.silent.items()}
        for care in made.health:
            metrics |= care.report()
        metrics |= system_metrics(run_dir, made.how.device)
        journal.write("epoch", event.step, metrics, epoch=event.epoch)
    elif isinstance(event, MaskUpdate):
        metrics = {"density": event.density, "connections": float(event.connections)}
        metrics |= {"budget/spent": event.spent} if event.spent is not None else {}
        for word, values in (
            ("density", event.layers), ("born", event.born), ("dropped", event.dropped), ("input_rate", event.rates)
        ):  # fmt: skip
            metrics |= {f"{word}/{name}": float(value) for name, value in values.items()}
        journal.write("mask_update", event.step, metrics, progress=event.progress)
