"""The evaluator of a search: structure learning from scratch, at the sampled density, over the sampled time steps."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nni
import torch
from nni.nas.evaluator import Evaluator
from nni.nas.space import ExecutableModelSpace
from torch import Tensor

from snnsl_plugin.anatomy import weight_layers
from snnsl_plugin.core.schedules.cosine import cosine
from snnsl_plugin.core.schedules.cubic import cubic
from snnsl_plugin.datasets._loader import Loader
from snnsl_plugin.datasets._splits import Samples, Splits
from snnsl_plugin.datasets.encoders.direct import direct
from snnsl_plugin.errors import BadOption, Disconnected, Diverged
from snnsl_plugin.for_nni.nas.candidate import Candidate, score
from snnsl_plugin.for_nni.nas.ranges import is_real, is_whole, must
from snnsl_plugin.for_nni.nas.records import Records
from snnsl_plugin.for_nni.nas.space import SpikingNetwork, SpikingSpace
from snnsl_plugin.metrics.measure import measure
from snnsl_plugin.metrics.paths import live_paths
from snnsl_plugin.training.events import Epoch
from snnsl_plugin.training.loop import Training, batches, fit
from snnsl_plugin.training.pruner import DynamicPruner


class StructureLearningEvaluator(Evaluator):
    """An NNI evaluator that trains a sampled network from scratch while its connections are pruned and regrown.

    The density falls from 1 to the sampled one along a cubic schedule; `drop_grow` meets it to the last weight. Figures
    are those after the last epoch, on the validation part: no epoch is selected, so that none is lucky. The test part
    is neither read nor kept. Each finished candidate is on disk before NNI hears of it.

    The same sample, space, seed, machine and number of threads give the same figures, on a CPU to the last bit.

    Args:
        data: pictures; its training and its validation part are used.
        folder: where candidates and the best network are kept; a folder of the same settings is gone on with.
        epochs: passes over the training part, >= 1.
        batch_size: samples a batch, >= 1.
        lr: learning rate of Adam, falling to 0 along a cosine, > 0.
        synops_weight: accuracy that a tenth of the synaptic operations is worth, >= 0; see `candidate.score`.
        criterion: what a connection is kept for, by its registered name.
        growth: where one is grown.
        distribution: how the density is shared among layers.
        swap: the fraction of the survivors exchanged at the first update, falling to 0, in [0, 1].
        every: how often masks are updated, a duration.
        until: the last update, a duration.
        seed: of batch order and random masks; first weights have the space's.
        device: where it trains: `cpu`, `cuda` or `cuda:<number>`.

    Raises:
        BadOption: an option out of range, or event recordings, whose time steps are given and cannot be searched.

    Example:
        >>> import tempfile
        >>> from snnsl_plugin.datasets.digits import digits
        >>> space = SpikingSpace((1, 8, 8), 10, widths=[4], depths=[1], hidden=16)
        >>> evaluator = StructureLearningEvaluator(digits(), tempfile.mkdtemp(), epochs=1)
        >>> candidate = evaluator.evaluate(space.freeze({"width": 4, "depth": 1, "T": 2, "density": 0.5}))
        >>> candidate.kept / candidate.weights
        0.5
    """

    def __init__(
        self,
        data: Splits,
        folder: str | Path,
        *,
        epochs: int = 4,
        batch_size: int = 64,
        lr: float = 2e-3,
        synops_weight: float = 0.0,
        criterion: str = "magnitude",
        growth: str = "gradient",
        distribution: str = "erk",
        swap: float = 0.3,
        every: str = "10it",
        until: str = "80%",
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        if data.events:
            raise BadOption("recordings of events bring their own time steps, and T is searched: pass pictures")
        for option, whole in (("epochs", epochs), ("batch_size", batch_size)):
            must(is_whole(whole) and whole >= 1, option, whole, "it is a whole number of at least 1")
        must(is_real(lr) and 0 < lr < math.inf, "lr", lr, "a learning rate is a positive number, 0.002 is usual")
        weighed = is_real(synops_weight) and 0 <= synops_weight < math.inf
        must(weighed, "synops_weight", synops_weight, "it is a number of at least 0")
        must(is_real(swap) and 0 <= swap <= 1, "swap", swap, "it is a fraction in [0, 1], 0.3 is usual")
        must(is_whole(seed), "seed", seed, "it is a whole number")
        for option, chosen in (("criterion", criterion), ("growth", growth), ("distribution", distribution)):
            must(not callable(chosen), option, chosen, "write its registered name: the folder keeps it as text")
        _check_device(device)
        self.folder = Path(folder)
        self._parts = {"train": data.train, "validation": data.validation}
        self._options: dict[str, Any] = {
            "epochs": epochs,
            "batch_size": batch_size,
            "lr": lr,
            "synops_weight": synops_weight,
            "criterion": criterion,
            "growth": growth,
            "distribution": distribution,
            "swap": swap,
            "every": every,
            "until": until,
            "seed": seed,
            "device": device,
        }
        self._records = Records(self.folder)
        self._data = {"train": self._print_of(data.train), "validation": self._print_of(data.validation)}

    def extra_repr(self) -> str:
        """The options, as NNI shows them."""
        return ", ".join(f"{option}={value!r}" for option, value in self._options.items())

    def evaluate(self, model: SpikingNetwork) -> Candidate:
        """Trains a network of the space in place, or looks its sample up, and reports its score to NNI, if NNI asked.

        A network that falls apart (`Disconnected`) or blows up (`Diverged`) is a candidate without a score: NNI's
        strategy passes over it.

        Raises:
            RunFolderInUse: the folder holds candidates of other settings.
            SnnslError: what else `fit` and `DynamicPruner` raise.
        """
        self._records.open({"space": model.built_with, "evaluator": self._options, "data": self._data})
        asked = self._asked_by_nni(model)
        candidate = self._records.get(model.sample)
        if candidate is None:
            candidate, masks = self._learn(model, asked)
            self._records.add(candidate, model, masks)
        if asked and candidate.score is not None:
            nni.report_final_result(candidate.score)
        return candidate

    def found(self, sample: Mapping[str, Any]) -> Candidate:
        """The candidate of a sample that was evaluated.

        Raises:
            BadOption: it was not.
        """
        candidate = self._records.get(sample)
        if candidate is None:
            raise BadOption(f"sample {dict(sample)} was not evaluated in {self.folder}: evaluate it first")
        return candidate

    def check(self, space: SpikingSpace) -> None:
        """Refuses, before anything is trained, a space in which a layer would keep no weight, and bad options.

        Raises:
            BadOption: with the layer, or the option.
            UnknownName: an unknown criterion, growth or distribution.
        """
        for width in space.choices["width"]:
            for depth in space.choices["depth"]:
                sparsest = {"T": space.choices["T"][0], "density": min(space.choices["density"])}
                network = space.freeze({"width": width, "depth": depth, **sparsest})
                try:
                    self._pruner(network, self._optimizer(network), len(self._loader(network, "train"))).finish()
                except BadOption as error:
                    raise BadOption(f"width {width}, depth {depth}: {error}") from error

    # ------------------------------------------------------------------------------------------------ inside

    def _learn(self, network: SpikingNetwork, asked: bool) -> tuple[Candidate, dict[str, Tensor]]:
        device: str = self._options["device"]
        how = Training(epochs=self._options["epochs"], seed=self._options["seed"], device=device)
        network.to(device)
        weights = sum(layer.weight.numel() for layer in weight_layers(network).values())
        train, validation = self._loader(network, "train"), self._loader(network, "validation")
        optimizer = self._optimizer(network)
        try:
            with self._pruner(network, optimizer, len(train)) as pruner:
                for event in fit(network, train, validation, optimizer, how, pruner=pruner):
                    if asked and isinstance(event, Epoch):
                        nni.report_intermediate_result(event.validation_accuracy)
                masks = {name: mask.clone() for name, mask in pruner.masks.items()}
            measured = measure(network, batches(validation, device), masks=masks)
        except (Disconnected, Diverged) as error:
            return Candidate(network.sample, weights, failure=str(error)), {}
        paths = live_paths(network, next(batches(validation, device))[0][:1, :1], masks=masks)
        synops = measured.synops_per_sample or 0.0
        return Candidate(
            sample=network.sample,
            weights=weights,
            score=score(measured.accuracy, synops, self._options["synops_weight"]),
            accuracy=measured.accuracy,
            kept=sum(int(mask.count_nonzero()) for mask in masks.values()),
            connections=paths.connections,
            synops=synops,
            macs=measured.macs_per_sample or 0.0,
        ), masks

    def _loader(self, network: SpikingNetwork, part: str) -> Loader:
        encoder = direct(T=int(network.sample["T"]))
        return Loader(self._parts[part], self._options["batch_size"], shuffle=part == "train", encoder=encoder)

    def _optimizer(self, network: SpikingNetwork) -> torch.optim.Adam:
        return torch.optim.Adam(network.parameters(), lr=self._options["lr"])

    def _pruner(self, network: SpikingNetwork, optimizer: torch.optim.Adam, an_epoch: int) -> DynamicPruner:
        words = ("criterion", "growth", "distribution", "every", "until", "seed")
        return DynamicPruner(
            network,
            optimizer,
            density=cubic(first=1.0, last=network.sample["density"]),
            swap=cosine(first=self._options["swap"], last=0.0),
            total_steps=an_epoch * self._options["epochs"],
            steps_per_epoch=an_epoch,
            **{word: self._options[word] for word in words},
        )

    def _print_of(self, part: Samples) -> list[int]:
        # Another split seed, size or class subset gives other first pictures; a path or a name would not tell.
        x, y = next(batches(Loader(part, self._options["batch_size"]), "cpu"))
        return [len(part), zlib.crc32(x.numpy().tobytes() + y.numpy().tobytes())]

    @staticmethod
    def _asked_by_nni(model: SpikingNetwork) -> bool:
        # NNI keeps the last candidate as "current" when a search is over; one that is finished asks for nothing.
        current: Any = nni.get_current_parameter()
        return (
            isinstance(current, ExecutableModelSpace)
            and current.sample == model.sample
            and not current.status.completed()
        )


def _check_device(device: Any) -> None:
    known = isinstance(device, str) and re.fullmatch(r"cpu|cuda(:\d+)?", device) is not None
    must(known, "device", device, "write 'cpu', 'cuda' or 'cuda:0'")
    if not device.startswith("cuda"):
        return
    if not torch.cuda.is_available():
        raise BadOption(f"device is {device!r} but this machine has no usable GPU: write 'cpu'")
    if int(device[5:] or 0) >= torch.cuda.device_count():
        raise BadOption(f"device is {device!r} but this machine has {torch.cuda.device_count()} GPU(s): write 'cuda:0'")
