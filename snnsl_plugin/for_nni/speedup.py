"""NNI's ModelSpeedup for spiking networks: from the masks of its pruners to a network that is really smaller."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snnsl_plugin.compaction.compact import become_, compact
from snnsl_plugin.compaction.cutting import Removed
from snnsl_plugin.compaction.tracing import Forward
from snnsl_plugin.errors import BadOption, NothingMatched, NothingRemoved, did_you_mean

_log = logging.getLogger(__name__)


class SpikingModelSpeedup:
    """Cuts what masks have left without a live path, in place, with the arguments of NNI's ModelSpeedup.

    NNI traces a model symbolically and infers from random batches which values are constant; it does not get through a
    spiking neuron. Here live paths are traced through the masks (`compaction.compact.compact`), so fine-grained masks
    of a dynamic pruner count as well as rows and norm scales.

    Args:
        model: unwrapped: call the pruner's `unwrap_model()` first.
        dummy_input: what the model is called with: a tensor, (T, N, ...) in multi-step mode, arguments, or a mapping.
        masks_or_file: masks of a pruner, or a file that torch.save made of them.
        map_location: where masks from a file go, as in torch.load.
        batch_dim: NNI's; no use is made of it, nor of the five that follow but `logger`, and where one is given the
            logger says so.
        batch_size: NNI's.
        customized_mask_updaters: NNI's.
        customized_replacers: NNI's.
        graph_module: NNI's.
        garbage_collect_values: NNI's.
        logger: told what was cut; this module's where omitted.
        verify: whether the result is compared with the masked network, in float64.
        forward: how the model is called, where `model(x)` is not how.
        neuron_types: classes of one's own that are neurons.
        ignored_layers: dotted names of layers whose output channels stay.

    Attributes:
        removed: what was cut, after `speedup_model()`.
        masks: NNI's format, what is left of the masks, cut alongside: bool.

    Raises:
        BadOption: no masks, or masks that cannot be cut by.
        NothingMatched: a module or parameter that the model does not have.

    Example:
        >>> from spikingjelly.activation_based import layer, neuron
        >>> net = nn.Sequential(layer.Linear(2, 3), neuron.LIFNode(), layer.Linear(3, 1))
        >>> rows = {"0": {"weight": torch.tensor([[1, 1], [0, 0], [1, 1]]), "bias": torch.tensor([1, 0, 1])}}
        >>> speedup = SpikingModelSpeedup(net, torch.ones(1, 2), rows)
        >>> speedup.speedup_model()[0].out_features
        2
    """

    def __init__(
        self,
        model: nn.Module,
        dummy_input: Any,
        masks_or_file: Any,
        map_location: Any = None,
        batch_dim: int = 0,
        batch_size: int = 8,
        customized_mask_updaters: list[Any] | None = None,
        customized_replacers: list[Any] | None = None,
        graph_module: Any = None,
        garbage_collect_values: bool = True,
        logger: logging.Logger | None = None,
        *,
        verify: bool = True,
        forward: Forward | None = None,
        neuron_types: Sequence[type[nn.Module]] = (),
        ignored_layers: Sequence[str] = (),
    ) -> None:
        self.bound_model, self.dummy_input = model, dummy_input
        self.masks = _read(masks_or_file, map_location)
        self.removed: Removed | None = None
        self.logger = logger or _log
        self._given = _by_parameter(model, self.masks)
        self._options: dict[str, Any] = {
            "verify": verify,
            "forward": forward,
            "neuron_types": neuron_types,
            "ignored_layers": ignored_layers,
        }
        unused = {
            "batch_dim": batch_dim != 0,
            "batch_size": batch_size != 8,
            "customized_mask_updaters": bool(customized_mask_updaters),
            "customized_replacers": bool(customized_replacers),
            "graph_module": graph_module is not None,
            "garbage_collect_values": garbage_collect_values is not True,
        }
        if named := [word for word, is_given in unused.items() if is_given]:
            self.logger.warning(
                "SpikingModelSpeedup makes no use of %s: channels are found by live paths, not by a symbolic trace",
                ", ".join(named),
            )

    def speedup_model(self) -> nn.Module:
        """Cuts the model in place and returns it; where it fails, the model is as it was.

        Raises:
            NothingRemoved: every channel is on a live path.
            Disconnected: the masks leave no path.
            CannotCut: what is left would not compute the same; names the module.
        """
        small, left, removed = compact(self.bound_model, self._given, self.dummy_input, **self._options)
        if not removed:
            raise NothingRemoved(
                "no channel was cut: under these masks each one is on a path from the input to an output; mask whole "
                "rows (NNI's L1NormPruner and others), or lower the density; masks alone make no network smaller"
            )
        become_(self.bound_model, small)
        self.removed, self.masks = removed, {}
        for name, mask in left.items():
            module, _, target = name.rpartition(".")
            self.masks.setdefault(module, {})[target] = mask
        self._given = left
        self.logger.info("speedup: %s", removed)
        return self.bound_model

    run = speedup_model


def _read(masks_or_file: Any, map_location: Any) -> dict[str, dict[str, Tensor]]:
    if isinstance(masks_or_file, str | Path):
        path = Path(masks_or_file)
        if not path.is_file():
            raise BadOption(f"there is no file of masks at {str(path)!r}")
        try:
            # NNI's own masks are a defaultdict, which torch refuses to fill; a plain dict in its place holds the same.
            with torch.serialization.safe_globals([(_plain, "collections.defaultdict"), dict]):
                masks_or_file = torch.load(path, map_location, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise BadOption(
                f"{str(path)!r} holds no masks that can be loaded ({str(error).splitlines()[0]}): save what "
                "snnsl_plugin.for_nni.export_masks returns with torch.save"
            ) from error
    if not isinstance(masks_or_file, Mapping):
        raise BadOption(
            f"masks are {type(masks_or_file).__name__}: pass those of a pruner's compress() or get_masks(), or a file"
        )
    strange = [name for name, targets in masks_or_file.items() if not isinstance(targets, Mapping)]
    if strange:
        raise BadOption(
            f"the masks of {strange[0]!r} are no mapping from weight, bias, ... to a mask; masks by parameter name, as "
            "a DynamicPruner has them, go to compaction.compact.compact"
        )
    return {
        name: {target: mask for target, mask in targets.items() if mask is not None}
        for name, targets in masks_or_file.items()
    }


def _plain(*_: Any) -> dict[str, Any]:
    return {}


def _by_parameter(model: nn.Module, masks: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    modules, found = dict(model.named_modules()), {}
    for name, targets in masks.items():
        if name not in modules:
            raise NothingMatched(
                f"the masks speak of a module {name!r} that this model does not have{did_you_mean(name, modules)}"
            )
        if hasattr(modules[name], "_nni_wrapper"):
            raise BadOption(f"{name!r} is wrapped by a pruner of NNI: call its `unwrap_model()` first")
        for target, mask in targets.items():
            if not bool(((mask == 0) | (mask == 1)).all()):
                raise BadOption(f"the mask of {name}.{target} holds other values than 0 and 1")
            if target in modules[name]._parameters:
                if modules[name]._parameters[target] is not None:
                    found[f"{name}.{target}" if name else target] = mask != 0
            elif bool((mask == 0).any()):
                raise BadOption(
                    f"{name!r} has a mask of {target!r}, and only parameters are cut by their masks: mask rows of the "
                    "weight instead"
                )
    return found
