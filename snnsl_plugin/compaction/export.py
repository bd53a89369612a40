"""A spiking network as one program of PyTorch, each call of which starts from rest."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.compaction.equality import random_like
from snnsl_plugin.compaction.silence import copied
from snnsl_plugin.errors import BadOption

#: What `torch.export` fails with: it lets through whatever the traced code raises.
_FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError, AssertionError)


class FromRest(nn.Module):
    """A spiking network without memory between calls: neurons are reset before and after, inside `forward`.

    Args:
        net: any spiking network.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Any:
        """What the network returns for the whole sequence.

        Args:
            x: what the network takes.
        """
        reset_(self.net)
        try:
            return self.net(x)
        finally:
            reset_(self.net)


def export_program(
    path: Path | str,
    model: nn.Module,
    example: Tensor,
    *,
    batch_axis: int | None = None,
    batch_sizes: Sequence[int] = (1, 7),
) -> ExportedProgram:
    """Writes a `.pt2` file with `torch.export`, for any batch size, and proves it by loading it.

    With the neurons that `plain_` knows the program is PyTorch alone; with others SpikingJelly must have been imported
    where it is loaded.

    Args:
        path: ends in `.pt2`; an existing file is replaced only by one that has passed.
        model: in eval mode in the file; left as it was.
        example: what it is called with; the number of time steps is fixed by it.
        batch_axis: which axis of the input counts samples; where omitted, 1 for a model that runs over time steps, by
            its modules' step modes, else 0; a model of single steps that loops over them by itself needs a 1.
        batch_sizes: at these the loaded program is compared with the model.

    Returns:
        The program as loaded from the file.

    Raises:
        BadOption: another ending; a model that cannot be exported, the sentence names the module; or one that
            computes something else when it is loaded. Nothing is written.
    """
    path = Path(path)
    if path.suffix != ".pt2":
        raise BadOption(f"{path}: torch.export writes .pt2 files")
    if not isinstance(example, Tensor):
        raise BadOption(f"the example is {type(example).__name__}: a model of one tensor can be exported")
    axis = (1 if over_time(model) else 0) if batch_axis is None else batch_axis
    from snnsl_plugin.compaction.plain_neurons import plain_

    alone = FromRest(copied(model)).eval()
    if example.shape[axis] == 1:
        # A size of 1 in the example is taken for a constant.
        example = torch.cat([example, example], dim=axis)
    traced = FromRest(plain_(copied(model))).eval()
    try:
        with torch.no_grad():
            program = torch.export.export(traced, (example,), dynamic_shapes=({axis: torch.export.Dim.DYNAMIC},))
    except _FAILURES as error:
        raise BadOption(
            f"{_culprit(alone, example)} cannot be exported by torch.export ({_first_line(error)}): replace it, or "
            "write it without Python control flow over values and batch sizes"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.partial.pt2")
    try:
        with warnings.catch_warnings():
            # torch reads its own archive into buffers that nobody else writes to.
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            torch.export.save(program, partial)
            loaded = torch.export.load(partial)
        _prove(loaded, alone, example, axis, batch_sizes)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return loaded


def over_time(model: nn.Module) -> bool:
    """Whether a model takes (T, N, ...), by its modules' step modes, and by modules that have no other."""
    from spikingjelly.activation_based import base

    return any(
        isinstance(each, base.MultiStepModule) or getattr(each, "step_mode", "s") == "m" for each in model.modules()
    )


@torch.no_grad()
def _prove(loaded: ExportedProgram, alone: nn.Module, example: Tensor, axis: int, batch_sizes: Sequence[int]) -> None:
    program = loaded.module()
    for size in batch_sizes:
        x = random_like(example.narrow(axis, 0, 1).repeat_interleave(size, dim=axis))
        try:
            out = program(x)
        except _FAILURES as error:
            raise BadOption(f"the exported program fails at batch size {size} ({_first_line(error)})") from error
        expected = alone(x)
        for one, other in zip(_listed(expected), _listed(out), strict=True):
            apart = float((one - other).abs().max()) if one.numel() else 0.0
            if not apart <= 2e-6 * max(float(one.abs().max()) if one.numel() else 0.0, 1.0):
                raise BadOption(
                    f"the exported program differs from the model by {apart:.3g} at batch size {size}: use the model "
                    "itself, or report it"
                )


def _listed(out: Any) -> list[Tensor]:
    values = out.values() if isinstance(out, dict) else out if isinstance(out, tuple | list) else [out]
    return [value for value in values if isinstance(value, Tensor)]


@torch.no_grad()
def _culprit(alone: FromRest, example: Tensor) -> str:
    """The innermost module that alone cannot be exported either, as a name for a sentence."""
    inputs: dict[nn.Module, tuple[Any, ...]] = {}
    handles = [
        module.register_forward_pre_hook(lambda module, args: inputs.setdefault(module, args) and None)
        for module in alone.net.modules()
    ]
    try:
        alone(example)
    except _FAILURES as error:
        return f"{type(alone.net).__name__}, which does not run on the example ({_first_line(error)}),"
    finally:
        for handle in handles:
            handle.remove()
    module, name = alone.net, ""
    while True:
        for child_name, child in module.named_children():
            if child in inputs and all(isinstance(arg, Tensor) for arg in inputs[child]) and _fails(child, inputs):
                module, name = child, f"{name}.{child_name}".lstrip(".")
                break
        else:
            return f"{name!r} ({type(module).__name__})" if name else f"this {type(module).__name__}"


def _fails(module: nn.Module, inputs: dict[nn.Module, tuple[Any, ...]]) -> bool:
    try:
        torch.export.export(FromRest(module) if len(inputs[module]) == 1 else module, inputs[module])
    except _FAILURES:
        return True
    return False


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
