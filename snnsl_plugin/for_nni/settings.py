"""NNI's settings for the modules of SpikingJelly, which it selects by the name of their class."""

from __future__ import annotations

import inspect
from copy import deepcopy
from types import ModuleType

from nni.compression.base.setting import PruningSetting
from torch import nn

from snnsl_plugin.anatomy import LAYERS

#: what an output may be asked for: the settings of a weight, without what only a weight has
_OUTPUT = {"_output_": deepcopy(PruningSetting.default_setting["weight"])}


def register_settings(*classes: type[nn.Module]) -> list[str]:
    """Lets NNI's pruners select SpikingJelly's modules, and classes of one's own, by `op_types`.

    Convolutions, linear layers and norms get the settings of NNI's own (weight and bias); neurons and containers those
    of an output. NNI asserts on any class name that it does not know, also one that only inherits from Conv2d. What is
    registered already stays as it is.

    Args:
        *classes: further classes, e.g. a weight-standardised convolution.

    Returns:
        The names that were new, sorted.
    """
    from spikingjelly.activation_based import layer, neuron

    new = []
    for cls in (*_modules(layer), *_modules(neuron), *classes):
        if cls.__name__ not in PruningSetting.registry:
            PruningSetting.register(cls.__name__, _setting(cls))
            new.append(cls.__name__)
    return sorted(new)


def _modules(home: ModuleType) -> list[type[nn.Module]]:
    return [each for _, each in inspect.getmembers(home, inspect.isclass) if issubclass(each, nn.Module)]


def _setting(cls: type[nn.Module]) -> dict[str, dict[str, object]]:
    weighted = (*LAYERS, nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
    return deepcopy(PruningSetting.default_setting if issubclass(cls, weighted) else _OUTPUT)
