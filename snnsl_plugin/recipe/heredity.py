"""What a network inherits from a finished run: scores that put the parent's connections first."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from snnsl_plugin.anatomy import weight_layers, weight_name
from snnsl_plugin.core.evolution import heir_scores
from snnsl_plugin.errors import BadCheckpoint
from snnsl_plugin.recipe import folder
from snnsl_plugin.recipe.evolution_types import Parent
from snnsl_plugin.training import checkpoint
from snnsl_plugin.training.seeds import generator


def inherited(parent: Parent, model: nn.Module) -> dict[str, Tensor]:
    """The scores of a sparse start, by layer name; each layer has its own stream of random numbers.

    Args:
        parent: a finished run of the same network.
        model: that starts.

    Raises:
        BadCheckpoint: no finished run there, one without masks, or one of another network.
    """
    run_dir = Path(parent.run)
    done = folder.result(run_dir)
    if done is None or done["status"] != "finished":
        raise BadCheckpoint(f"parent.run: {run_dir} holds no finished run: run its recipe first, or name another run")
    tree = checkpoint.load(run_dir / folder.CHECKPOINT)
    masks, weights = tree.get("masks") or {}, tree["model"]
    if not masks:
        raise BadCheckpoint(f"parent.run: {run_dir} has no masks: name a run whose connections were pruned")
    scores = {}
    for name, layer in weight_layers(model).items():
        key = weight_name(name)
        if key not in masks or masks[key].shape != layer.weight.shape:
            raise BadCheckpoint(f"parent.run: {run_dir} is of another network: it has no layer {name!r} of this shape")
        drawn = generator(parent.seed, "heir", name)
        scores[name] = heir_scores(masks[key], weights[key], drawn, exchange=parent.exchange)
    return scores
