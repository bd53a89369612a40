"""The networks to choose from: width, depth, time steps and density of a spiking network, as an NNI model space."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, cast

import torch
from torch import nn

from snnsl_plugin import registry
from snnsl_plugin.errors import BadOption, MissingExtra, did_you_mean
from snnsl_plugin.for_nni.nas.ranges import is_real, is_whole, must
from snnsl_plugin.models.spiking_cnn import spiking_cnn
from snnsl_plugin.training.seeds import derived

try:
    with warnings.catch_warnings():
        # Said once at import, about versions and not about the caller: NNI lists torch.nn and meets a class it does not
        # know and nobody needs, and Lightning brings a plotting style that is behind Matplotlib.
        warnings.filterwarnings("ignore", "<class 'torch.nn.parameter.Buffer'> is found to be not", RuntimeWarning)
        warnings.filterwarnings("ignore", r"The \w+ function was deprecated in Matplotlib", DeprecationWarning)
        import nni
        from nni.nas.nn.pytorch import ModelSpace
        from nni.nas.space import model_context
except ImportError as cause:
    raise MissingExtra(
        f"NNI's architecture search cannot be imported here ({cause}): install nni (x86_64 only) and "
        "pytorch-lightning, which NNI's spaces need: pip install 'snnsl-plugin[lightning]'"
    ) from cause


class SpikingNetwork(nn.Sequential):
    """A network of the space: plain layers under the names of `spiking_cnn` (`conv1`, `norm1`, `spike1`, `fc1`, ...).

    Takes (T, N, C, H, W), returns logits per step (T, N, classes), and does not reset itself.

    Attributes:
        sample: the chosen value of each mutable; `T` and `density` are for whoever trains it.
        built_with: what else it takes to build it again: the space's options other than its choices.
    """

    sample: dict[str, float]
    built_with: dict[str, Any]


class SpikingSpace(ModelSpace):
    """An NNI model space whose networks are those of `spiking_cnn`.

    Four mutables, each an `nni.choice`: `width`, channels of the first convolution, doubled at each further one;
    `depth`, the number of convolutions; `T`, time steps; `density`, the fraction of all weights kept. The last two
    shape the training and not the layers, and stand in the sample for the evaluator. The space itself has no weights:
    `freeze(sample)` gives a plain `SpikingNetwork`, always with the same first weights.

    Args:
        input_shape: (C, H, W) of one picture; H and W at least `2 ** max(depths)`.
        classes: number of logits, >= 2.
        widths: whole numbers >= 1 to choose from.
        depths: whole numbers >= 1 to choose from.
        steps: whole numbers of time steps >= 1 to choose from.
        densities: fractions in (0, 1] to choose from.
        seed: of the first weights, the same as those of a recipe with this seed.
        **network: further options of `spiking_cnn`, e.g. `hidden` or `neuron`.

    Raises:
        BadOption: a choice that is empty, repeated or out of range; an option that `spiking_cnn` refuses.

    Example:
        >>> space = SpikingSpace((1, 8, 8), 10, widths=[8, 16], depths=[1, 2], hidden=32)
        >>> net = space.freeze({"width": 8, "depth": 2, "T": 4, "density": 0.1})
        >>> net.conv2.weight.shape, net.sample["density"]
        (torch.Size([16, 8, 3, 3]), 0.1)
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        classes: int,
        *,
        widths: Sequence[int] = (8, 16, 32),
        depths: Sequence[int] = (1, 2),
        steps: Sequence[int] = (2, 4, 8),
        densities: Sequence[float] = (0.05, 0.1, 0.2, 0.5),
        seed: int = 0,
        **network: Any,
    ) -> None:
        super().__init__()
        for option, whole in (("widths", widths), ("depths", depths), ("steps", steps)):
            _check(option, whole, lambda each: is_whole(each) and each >= 1, "whole numbers from 1 on")
        _check("densities", densities, lambda each: is_real(each) and 0.0 < each <= 1.0, "fractions in (0, 1]")
        must(is_whole(seed), "seed", seed, "it is a whole number")
        _check_network(input_shape, classes, max(depths), network)
        #: the options of each mutable, by label
        self.choices: dict[str, list[float]] = {
            "width": list(widths),
            "depth": list(depths),
            "T": list(steps),
            "density": list(densities),
        }
        for label, values in self.choices.items():
            self.add_mutable(nni.choice(label, values))

    # NNI's own hook: in the context of a sample, calling the class makes what this returns.
    @classmethod
    def create_fixed_module(
        cls,
        sample: dict[str, Any],
        input_shape: tuple[int, int, int],
        classes: int,
        *,
        seed: int = 0,
        widths: Sequence[int] = (),
        depths: Sequence[int] = (),
        steps: Sequence[int] = (),
        densities: Sequence[float] = (),
        **network: Any,
    ) -> SpikingNetwork:
        """The network of a sample. The choices were made; they are taken only because the space was made with them."""
        channels = [sample["width"] << block for block in range(sample["depth"])]
        # Not torch.manual_seed, which would also seed every GPU and leave it so.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derived(seed, "model"))
            layers = spiking_cnn(input_shape, classes, channels=channels, **network)
        made = SpikingNetwork(OrderedDict(layers.named_children()))
        made.sample = {label: sample[label] for label in ("width", "depth", "T", "density")}
        made.built_with = {"input_shape": list(input_shape), "classes": classes, "seed": seed, **network}
        return made

    def freeze(self, sample: dict[str, Any]) -> SpikingNetwork:
        """The network of a sample, untrained.

        Raises:
            nni.mutable.SampleValidationError: a mutable without a value, or a value that is none of its choices.
        """
        self.validate(sample)
        with model_context(sample):
            return cast(SpikingNetwork, type(self)(*self.trace_args, **self.trace_kwargs))

    def forward(self, *_: Any) -> NoReturn:
        """There is nothing to run.

        Raises:
            BadOption: always.
        """
        raise BadOption("a space has no weights: call the network that freeze(sample) gives")


def _check(option: str, values: Any, fits: Callable[[Any], bool], range_: str) -> None:
    listed = isinstance(values, Sequence) and len(values) > 0
    in_range = listed and all(map(fits, values)) and len(set(values)) == len(values)
    must(in_range, option, values, f"it must list one or more {range_}, none twice")


def _check_network(input_shape: tuple[int, int, int], classes: int, depth: int, network: dict[str, Any]) -> None:
    known = [option for option in registry.options("models", "spiking_cnn") if option != "channels"]
    for option in network:
        if option == "channels":
            raise BadOption("channels follow from width and depth, which are searched: give widths and depths")
        if option not in known:
            raise BadOption(
                f"the space has no option {option!r}{did_you_mean(option, known)} (of spiking_cnn: {', '.join(known)})"
            )
    try:
        with torch.random.fork_rng(devices=[]):
            spiking_cnn(input_shape, classes, channels=[1] * depth, **network)
    except (TypeError, AssertionError) as error:  # the latter is SpikingJelly's for an option of the wrong type
        reason = (str(error) or "an option of the wrong type").splitlines()[0]
        raise BadOption(
            f"input_shape {input_shape!r}, classes {classes!r} and options {network!r} make no network ({reason}): "
            "check their types against spiking_cnn's"
        ) from error
