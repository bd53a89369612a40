"""Samples a second that loaders give, against those that training takes; in turns, an epoch each.

Seconds of the processor, one thread: others on the machine change them less than seconds of the clock.
"""

from __future__ import annotations

import logging
import statistics
import time

import torch

from snnsl_plugin.errors import MissingData
from snnsl_plugin.recipe import assemble
from snnsl_plugin.recipe.load import load
from snnsl_plugin.training.events import Epoch, Step
from snnsl_plugin.training.loop import fit
from snnsl_plugin.training.seeds import generator

EPOCHS = 3
RECIPES = {
    "digits": ("digits", []),
    "cifar100": ("bench/cifar100", []),
    "nmnist": ("bench/nmnist", []),
    "dvs_gesture": ("dvs_gesture_quick", []),
}
#: As large as the recordings are, and changed at random: what keeps a fast device waiting first.
WHOLE = [
    "data.T=16", "data.downsample=1", "data.augment={roll: 8, drop: 0.1, cutout: 16}", "train.batch_size=16",
]  # fmt: skip


def loaders() -> dict[str, float]:
    """The loader alone and the training with it, on the CPU; recipes whose data are not there are left out."""
    figures: dict[str, float] = {}
    for name, (recipe, changes) in RECIPES.items():
        try:
            figures |= _against_training(name, recipe, changes)
        except MissingData as cause:
            logging.warning("not measured: %s", cause)
    try:
        figures |= _whole_recordings()
    except MissingData as cause:
        logging.warning("not measured: %s", cause)
    return figures


def _against_training(name: str, recipe: str, changes: list[str]) -> dict[str, float]:
    said = load(recipe, [f"train.epochs={EPOCHS}", "train.device=cpu", "threads=1", "dense_baseline=false", *changes])
    torch.set_num_threads(1)
    data = assemble.data(said)
    made = assemble.assemble(said, data)
    count, loaded, trained = len(data.splits.train), [], []
    training = fit(
        made.model, data.train, data.validation, made.optimizer, made.how, pruner=made.pruner, distiller=made.distiller
    )
    steps = len(data.train)
    began = time.process_time()
    for event in training:
        if isinstance(event, Step) and event.step % steps == 0:  # before the validation
            trained.append(time.process_time() - began)
            loaded.append(_seconds_of_a_pass(data, event.step // steps))
        if isinstance(event, Epoch):
            began = time.process_time()
    return {
        f"loader_{name}_samples_per_s": count / statistics.median(loaded),
        f"training_{name}_samples_per_s": count / statistics.median(trained),
        f"loader_over_training_{name}": statistics.median(trained) / statistics.median(loaded),
    }


def _whole_recordings() -> dict[str, float]:
    """128x128 pixels, 16 frames, augmented."""
    torch.set_num_threads(1)
    data = assemble.data(load("dvs_gesture_quick", WHOLE))
    spent = [_seconds_of_a_pass(data, turn) for turn in range(EPOCHS)]
    return {"loader_whole_recordings_samples_per_s": len(data.splits.train) / statistics.median(spent)}


def _seconds_of_a_pass(data: assemble.Data, epoch: int) -> float:
    with torch.random.fork_rng(devices=[]):  # the training around it goes on with its own random numbers
        began = time.process_time()
        for _ in data.train.epoch(generator(0, "order", epoch)):
            pass
        return time.process_time() - began
