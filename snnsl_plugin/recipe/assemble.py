"""From a recipe to the objects that train: data, network, optimizer, pruner, distiller."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from snnsl_plugin import registry
from snnsl_plugin.anatomy import weight_layers
from snnsl_plugin.datasets._loader import Loader
from snnsl_plugin.datasets._splits import Splits
from snnsl_plugin.errors import BadCheckpoint, BadOption
from snnsl_plugin.recipe import folder, learning_rate
from snnsl_plugin.recipe.heredity import inherited
from snnsl_plugin.recipe.nni_pruner import driven
from snnsl_plugin.recipe.nni_types import NniPruning
from snnsl_plugin.recipe.options import Choice, build
from snnsl_plugin.recipe.schema import Dense, Recipe
from snnsl_plugin.recipe.torch_pruner import masking
from snnsl_plugin.recipe.torch_pruning_pruner import cutting
from snnsl_plugin.recipe.torch_pruning_types import Cut, SpikingDynamic
from snnsl_plugin.recipe.torch_types import HostedPruning
from snnsl_plugin.recipe.torchvision_guide import load_guide
from snnsl_plugin.training import checkpoint
from snnsl_plugin.training.budget import Budget, Inputs
from snnsl_plugin.training.distiller import ReverseDistiller
from snnsl_plugin.training.health._care import Care
from snnsl_plugin.training.loop import Training, batches, scaler_for
from snnsl_plugin.training.neuron_masks import expect_masks_
from snnsl_plugin.training.pruner import DynamicPruner
from snnsl_plugin.training.seeds import derived

if TYPE_CHECKING:
    from snnsl_plugin.for_nni.driver import DrivenPruner as NniPruner
    from snnsl_plugin.for_nni.patched_loss import PatchedLoss
    from snnsl_plugin.for_torch.hosted import HostedPruner
    from snnsl_plugin.for_torch_pruning.driver import DrivenPruner as ChannelPruner

_OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@dataclass(frozen=True)
class Data:
    """The three parts of a data set as batches, and what is known about it."""

    splits: Splits
    train: Loader
    validation: Loader
    test: Loader


@dataclass(frozen=True)
class Assembled:
    """All that one network needs to be trained."""

    data: Data
    model: nn.Module
    optimizer: Optimizer
    how: Training
    pruner: DynamicPruner | NniPruner | ChannelPruner | HostedPruner | None
    distiller: ReverseDistiller | PatchedLoss | None
    scaler: GradScaler
    health: list[Care]
    sizes: dict[str, int]
    """Weights of the dense network, by layer."""
    parameters: int
    """All parameters of the dense network."""


def data(recipe: Recipe) -> Data:
    """Loads the data of a recipe.

    Raises:
        MissingData: it is not there.
        BadData: a sample cannot be decoded.
        BadOption: an encoder that does not fit.
    """
    splits: Splits = build("datasets", recipe.data)
    chosen = recipe.data.encoder
    encoder = (
        build("encoders", chosen) if chosen else registry.get("encoders", "frames" if splits.events else "direct")()
    )
    size, workers = recipe.train.batch_size, recipe.data.workers
    # One batch through the encoder: what does not fit is said now and not in the middle of a run.
    next(Loader(splits.train, min(2, size), encoder=encoder).epoch(None))
    return Data(
        splits,
        Loader(splits.train, size, shuffle=True, encoder=encoder, workers=workers),
        Loader(splits.validation, size, encoder=encoder, workers=workers),
        Loader(splits.test, size, encoder=encoder, workers=workers),
    )


def network(recipe: Recipe, splits: Splits) -> nn.Module:
    """The untrained network of a recipe: the same weights for the same seed."""
    shape = splits.shape[1:] if splits.events else splits.shape
    torch.manual_seed(derived(recipe.seed, "model"))
    made: nn.Module = build("models", recipe.model)(shape, len(splits.classes))
    return made.to(device(recipe))


def device(recipe: Recipe) -> str:
    """Where a recipe trains.

    Raises:
        BadOption: it asks for a GPU where there is none.
    """
    wanted = recipe.train.device
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise BadOption(f"train.device is {wanted!r} but this machine has no usable GPU: write 'cpu' or 'auto'")
    return wanted


def assemble(recipe: Recipe, parts: Data) -> Assembled:
    """The network of a recipe with its optimizer, pruner and distiller, at step 0.

    Raises:
        UsageError: a pattern that matches no layer, a duration out of order, a guide that cannot be loaded, ...
    """
    model = network(recipe, parts.splits)
    dense = ({name: layer.weight.numel() for name, layer in weight_layers(model).items()}, _count(model))
    kind = _OPTIMIZERS[recipe.train.optimizer.name]
    options = recipe.train.optimizer.model_dump(exclude={"name"})
    known = {"steps_per_epoch": len(parts.train), "total_steps": len(parts.train) * recipe.train.epochs}
    how = Training(
        epochs=recipe.train.epochs,
        seed=recipe.seed,
        lr_schedule=learning_rate.course(recipe.train.lr_schedule, **known),
        clip=recipe.train.clip,
        amp=recipe.train.amp,
        label_smoothing=recipe.train.label_smoothing,
        loss=recipe.train.loss,
        device=device(recipe),
    )
    distiller = _distiller(recipe, parts, known, model)
    health = [_given(build("health", each), {"model": model, **known}) for each in recipe.health]
    scaler = scaler_for(how)
    if isinstance(recipe.pruning, NniPruning):
        # NNI moves the weights into parameters of its own and makes the optimizer and the loss that train them.
        example = next(batches(parts.validation, how.device))[0]
        hosted = driven(recipe.pruning, model, kind, options, seed=recipe.seed, example=example, **known)
        return Assembled(parts, model, hosted.optimizer, how, hosted, hosted.patched(distiller), scaler, health, *dense)
    optimizer = kind([*model.parameters(), *(distiller.parameters() if distiller else [])], **options)
    pruner: DynamicPruner | ChannelPruner | HostedPruner | None
    if isinstance(recipe.pruning, Cut | SpikingDynamic | HostedPruning):
        drawn = partial(drawn_batches, parts.train, how.device, recipe.seed)
        example = next(batches(parts.validation, how.device))[0]
        given: dict[str, Any] = {"seed": recipe.seed, "example": example, "draw": drawn, **known}
        if isinstance(recipe.pruning, HostedPruning):
            pruner = masking(recipe.pruning, model, optimizer, **given)
        else:
            pruner = cutting(recipe.pruning, model, optimizer, **given)
    else:
        pruner = _pruner(recipe, model, optimizer, known, partial(_inputs, parts.validation, how.device))
    return Assembled(parts, model, optimizer, how, pruner, distiller, scaler, health, *dense)


def drawn_batches(part: Loader, device: str, seed: int, number: int) -> list[tuple[Tensor, Tensor]]:
    """A number of batches of a part, always the same ones for a seed; all where there are fewer."""
    with closing(batches(part, device, seed)) as drawn:  # closed, it gives the caller's random numbers back
        return list(islice(drawn, number))


def load_network(run_dir: Path, parts: Data) -> nn.Module:
    """The trained network of a finished run, the epoch that validation selected.

    Args:
        run_dir: a finished run folder.
        parts: the data it is to be used on; classes and shape must be those it was trained on.

    Raises:
        BadCheckpoint: no finished run there, or one of another shape.
    """
    from snnsl_plugin.recipe.load import load

    done = folder.result(run_dir)
    if done is None or done["status"] != "finished":
        raise BadCheckpoint(f"{run_dir} holds no finished run: run its recipe first, or name another run")
    trained_by = load(run_dir / folder.RECIPE)
    # It trained wherever its recipe said; here it goes where it is wanted.
    elsewhere = trained_by.train.model_copy(update={"device": "cpu"})
    model = network(trained_by.model_copy(update={"train": elsewhere}), parts.splits)
    try:
        if (run_dir / folder.COMPACT).is_file():
            from snnsl_plugin.compaction.checkpoint import load_compact

            return load_compact(run_dir / folder.COMPACT, model)
        state = checkpoint.load(run_dir / folder.CHECKPOINT)["model"]
        expect_masks_(model, state)
        model.load_state_dict(state)
    except (RuntimeError, KeyError) as error:
        raise BadCheckpoint(f"the network of {run_dir} does not fit this data: {str(error).splitlines()[0]}") from error
    return model


def _pruner(
    recipe: Recipe, model: nn.Module, optimizer: Optimizer, known: dict[str, int], inputs: Inputs
) -> DynamicPruner | None:
    pruning = recipe.pruning
    if isinstance(pruning, Dense | NniPruning | Cut | SpikingDynamic | HostedPruning):
        return None
    rule = pruning.registered_name
    chosen = {option: _built(getattr(pruning, option)) for option in registry.options("rules", rule)}
    common = {
        option: getattr(pruning, option) for option in type(pruning).model_fields if option not in (*chosen, "type")
    }
    if pruning.budget:
        common["budget"] = Budget(pruning.budget.name, pruning.budget.amount, inputs)
    options: dict[str, Any] = {**common, **known, **chosen}
    if pruning.structured and not pruning.exclude:
        options["exclude"] = list(weight_layers(model))[-1:]  # its channels are the classes
    if recipe.parent:
        options["first"] = inherited(recipe.parent, model)
    return DynamicPruner(model, optimizer, rule, seed=recipe.seed, **options)


def _inputs(part: Loader, device: str) -> Iterator[Tensor]:
    """What a budget is measured on: the pictures without their labels."""
    with closing(batches(part, device)) as drawn:
        for x, _ in drawn:
            yield x


def _distiller(recipe: Recipe, parts: Data, known: dict[str, int], model: nn.Module) -> ReverseDistiller | None:
    wanted = recipe.distillation
    if wanted is None:
        return None
    guide = build("guides", wanted.guide)
    given: dict[str, Any] = dict(known) | {"learner": model}
    if "network" in _unknown(guide):
        with closing(batches(parts.validation, device(recipe))) as drawn:
            given["example"] = next(drawn)[0][:, :1]
        given["network"] = _guide_network(wanted.guide, parts, given["example"]).to(device(recipe))
    guide = _given(guide, given)
    return ReverseDistiller(
        guide,
        temperature=wanted.temperature,
        weight=wanted.weight,
        divergence=build("divergences", wanted.divergence),
        per_step=wanted.per_step,
        logit_scale=wanted.logit_scale,
    )


def _guide_network(guide: Any, parts: Data, example: Tensor) -> nn.Module:
    """The network of a guide: of a finished run, or torchvision's with the weights of a file."""
    architecture, file = getattr(guide, "architecture", None), getattr(guide, "checkpoint", None)
    if guide.run and (architecture or file):
        raise BadOption("distillation.guide has a run and a checkpoint: one network teaches, keep one of the two")
    if guide.run:
        return load_network(Path(guide.run), parts)
    if architecture and file:
        return load_guide(architecture, Path(file), len(parts.splits.classes), example)
    if architecture or file:
        missing = "checkpoint" if architecture else "architecture"
        raise BadOption(f"distillation.guide.{missing} is missing: an architecture and a checkpoint go together")
    raise BadOption("distillation.guide.run is missing: this guide needs the folder of a finished run")


def _unknown(chosen: Any) -> list[str]:
    """The positional parameters of what a recipe has chosen, its options bound: what only a runner knows."""
    if not isinstance(chosen, partial):  # it has none, and is made
        return []
    return [p.name for p in inspect.signature(chosen.func).parameters.values() if p.kind is not p.KEYWORD_ONLY]


def _given(chosen: Any, known: Mapping[str, Any]) -> Any:
    """What a recipe has chosen, made of what the runner knows."""
    if not isinstance(chosen, partial):
        return chosen
    return chosen(**{name: known[name] for name in _unknown(chosen) if name in known})


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _built(value: Any) -> Any:
    return build(value.registered_kind, value) if isinstance(value, Choice) else value
