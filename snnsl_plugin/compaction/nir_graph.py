"""A spiking network as a graph of the Neuromorphic Intermediate Representation, for chips and other simulators."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.compaction.equality import random_like
from snnsl_plugin.compaction.export import over_time
from snnsl_plugin.compaction.fusing import fused
from snnsl_plugin.compaction.silence import copied
from snnsl_plugin.errors import BadOption, MissingExtra
from snnsl_plugin.training.neuron_masks import refuse_masked_neurons

_FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError, NotImplementedError)
_STEPS = 4


def export_nir(
    path: Path | str,
    model: nn.Module,
    example: Tensor,
    *,
    dt: float = 1e-4,
    batch_sizes: Sequence[int] = (1, 7),
) -> Any:
    """Writes a `.nir` file: one time step, with norms folded into the layers before them; and proves it by loading it.

    SpikingJelly's exchange does the work. NIR has linear layers, ungrouped convolutions, average pools, flattening,
    additions and the neurons IF, LIF, PLIF and CUBA-LIF with hard reset; what else there is, is refused.

    Args:
        path: ends in `.nir`; an existing file is replaced only by one that has passed.
        model: in either step mode; left as it was.
        example: (T, N, ...) for a model in multi-step mode, (N, ...) for one in single-step mode.
        dt: seconds a step, > 0.
        batch_sizes: at these the loaded graph, in double precision, is compared with the model.

    Returns:
        The `nir.NIRGraph`.

    Raises:
        BadOption: another ending; a network that NIR has no words for, the sentence names the module; or one that
            computes something else when it is loaded. Nothing is written.
        MissingExtra: nir and nirtorch are not installed.
    """
    path = Path(path)
    if path.suffix != ".nir":
        raise BadOption(f"{path}: a NIR graph is written to a .nir file")
    refuse_masked_neurons(model, "NIR has no words for this network")
    try:
        import nir  # noqa: F401
        import nirtorch  # noqa: F401
    except ImportError as error:
        raise MissingExtra(f"exporting to NIR needs nir and nirtorch ({error}): pip install nir nirtorch") from error
    from spikingjelly.activation_based import nir_exchange

    step = example[0] if over_time(model) else example
    steps = len(example) if over_time(model) else _STEPS
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    whole = copied(model).double().eval()
    folded = fused(whole, step.double())
    _check(folded)
    written = folded.to(dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.partial.nir")
    try:
        try:
            graph = nir_exchange.export_to_nir(written, step[:1].to(dtype), partial, dt=dt)
            loaded = nir_exchange.import_from_nir(partial, dt=dt, dtype=torch.float64)
        except _FAILURES as error:
            raise BadOption(
                f"this {type(model).__name__} cannot be exported to NIR ({type(error).__name__}: {error})"
            ) from error
        _prove(loaded, written.double(), step, steps, batch_sizes)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return graph


def _check(folded: fx.GraphModule) -> None:
    """Refuses, by name, what SpikingJelly's exchange has no node for."""
    from spikingjelly.activation_based import layer, neuron

    spiking = (neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode, neuron.CUBALIFNode)
    convolutions = (nn.Conv1d, nn.Conv2d, layer.Conv1d, layer.Conv2d)
    others = (nn.Linear, layer.Linear, nn.AvgPool2d, layer.AvgPool2d, nn.Flatten, layer.Flatten)
    for node in folded.graph.nodes:
        told = ""
        if node.op == "call_module":
            module = folded.get_submodule(node.target)
            told = f"{node.target!r} ({type(module).__name__})"
            if type(module) not in (*spiking, *convolutions, *others):
                way = ": use average pooling" if "MaxPool" in type(module).__name__ else ": replace it"
                raise BadOption(f"{told} cannot be exported: NIR has no such node{way}")
            if isinstance(module, nn.Conv1d | nn.Conv2d) and (module.groups != 1 or module.padding_mode != "zeros"):
                raise BadOption(f"{told} cannot be exported: NIR has ungrouped convolutions padded with zeros only")
            if isinstance(module, spiking) and module.v_reset is None:
                raise BadOption(f"{told} cannot be exported: NIR has no soft reset; train with v_reset=0.0")
        elif node.op in ("call_function", "call_method") and "add" not in str(
            getattr(node.target, "__name__", node.target)
        ):
            raise BadOption(
                f"{node.name!r} ({getattr(node.target, '__name__', node.target)}, called in a forward) cannot be "
                "exported: of plain functions NIR has addition only; call a module instead"
            )


@torch.no_grad()
def _prove(loaded: nn.Module, written: nn.Module, step: Tensor, steps: int, batch_sizes: Sequence[int]) -> None:
    for size in batch_sizes:
        x = random_like(step[:1].expand(steps, size, *step.shape[1:]), torch.float64)
        reset_(written)
        state = None
        for number, now in enumerate(x):
            out, state = loaded(now, state)
            expected = written(now)
            apart = float((out - expected).abs().max())
            if not apart <= 1e-9 * max(float(expected.abs().max()), 1.0):
                raise BadOption(
                    f"the graph that was written differs from the model by {apart:.3g} in step {number} at batch size "
                    f"{size}: NIR cannot hold this network"
                )
    reset_(written)
