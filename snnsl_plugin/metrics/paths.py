"""Live connections: which weights lie on a path from the input to an output, found by one probe of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from snnsl_plugin.anatomy import is_neuron, set_aside, shadow, weight_name
from snnsl_plugin.core.paths import any_per_channel, connections, drawn_where, reach
from snnsl_plugin.errors import BadOption
from snnsl_plugin.metrics.layers import Synapses, connection_masks, evaluating, synaptic_layers

_SEED = 0


@dataclass(frozen=True)
class Paths:
    """What a probe found; every field is keyed by unwrapped dotted parameter name (`conv1.weight`).

    Attributes:
        live: bool, the weight's shape: kept, reachable from the input AND reaching an output.
        forward: the same, only reachable from the input (the figure that UPR prints).
        dead_rows: bool (out,): output channels that no input reaches, so that only a bias can make them fire.
        useless_rows: bool (out,): output channels that reach no output.
    """

    live: dict[str, Tensor] = field(default_factory=dict)
    forward: dict[str, Tensor] = field(default_factory=dict)
    dead_rows: dict[str, Tensor] = field(default_factory=dict)
    useless_rows: dict[str, Tensor] = field(default_factory=dict)

    @property
    def connections(self) -> int:
        """Weights on a live path, a count."""
        return connections(self.live.values())

    @property
    def forward_connections(self) -> int:
        """Weights reachable from the input, a count."""
        return connections(self.forward.values())


@torch.inference_mode(False)
def live_paths(
    model: nn.Module,
    example: Tensor,
    masks: Mapping[str, Tensor] | None = None,
    *,
    identities: Sequence[type[nn.Module]] = (),
) -> Paths:
    """Finds the live connections of every Conv1d, Conv2d, Conv3d and Linear by one forward and one backward pass.

    Convolutions and linear layers run with their mask as weight and without bias, and their output is drawn anew where
    it is not zero (`core.paths.reach`). Neurons, normalisations and activations pass their input on, max pooling
    becomes average pooling (the gradient of a maximum reaches one input only), and everything else (residual sums,
    IAND, flattening, the time mean) runs as it is. A path therefore respects sites: a weight that only ever meets
    padding is not live. A channel that fires by its bias alone starts no path.

    The model is left as it was: the neurons' own code is not run, other states, training flags and parameter gradients
    are put back, and hooks of others (a spike recorder's) are not called.

    Args:
        model: in either step mode; its weights may be parametrized.
        example: an input that the model accepts; only shape and device are read. One sample of one step is enough for
            a feed-forward network, `x[:1, :1]` of (T, N, ...) or `x[:1]` of (N, ...); recurrent connections need as
            many steps as the longest path through them.
        masks: bool, keyed by unwrapped dotted parameter name; a layer without one keeps its non-zero weights.
        identities: further classes that only pass on what they are given, such as neurons of one's own.

    Returns:
        All layers of the model, on their weights' devices; a layer that the forward pass never calls is not live.

    Raises:
        NothingMatched: no layer to look at, or a mask that belongs to none.
        BadOption: a mask of the wrong shape, an output that is no tensor, or max pooling with dilation.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
        >>> masks = {"0.weight": torch.eye(2) > 0, "1.weight": torch.tensor([[True, False]])}
        >>> live_paths(net, torch.ones(1, 2), masks).live["0.weight"].tolist()
        [[True, False], [False, False]]
    """
    kept = connection_masks(model, masks)
    device = next(iter(kept.values())).device
    generator = torch.Generator(device).manual_seed(_SEED)
    probe = _Paths(kept, generator)
    # The parameters' own type, so that whatever runs as it is meets the type that it expects.
    dtype = next(iter(synaptic_layers(model).values())).weight.dtype
    x = drawn_where(torch.ones(example.shape, dtype=dtype, device=device), generator)
    with torch.enable_grad(), evaluating(model), replaced(model, probe, identities):
        with AveragePooling():
            out = model(x)
        outputs = tuple(out.values()) if isinstance(out, Mapping) else out if isinstance(out, tuple | list) else (out,)
        if not all(isinstance(output, Tensor) for output in outputs):
            raise BadOption(
                f"the model returns {type(out).__name__}, and paths end in tensors: let it return a tensor, a tuple "
                "or a mapping of tensors (a pruner does without paths where it is told paths=False)"
            )
        ends = [reach(output, generator).sum() for output in outputs if output.requires_grad]
        if ends:
            torch.autograd.backward(torch.stack(ends).sum(), inputs=probe.leaves)
    return probe.paths


class Probe(Protocol):
    """What runs in place of a synaptic layer."""

    def forward_of(self, name: str, layer: Synapses) -> Callable[[Tensor], Tensor]:
        """What is called with the layer's input; `name` is that of its weight."""


class _Paths:
    """Runs each synaptic layer on its mask and notes what reaches it, from both sides."""

    def __init__(self, kept: dict[str, Tensor], generator: torch.Generator) -> None:
        self.kept = kept
        self.generator = generator
        self.leaves: list[Tensor] = []
        nothing = {name: torch.zeros_like(mask) for name, mask in kept.items()}
        rows = {name: mask.new_ones(mask.shape[0]) for name, mask in kept.items()}
        self.paths = Paths(
            nothing, {n: m.clone() for n, m in nothing.items()}, rows, {n: r.clone() for n, r in rows.items()}
        )

    def forward_of(self, name: str, layer: Synapses) -> Callable[[Tensor], Tensor]:
        paths, kept = self.paths, self.kept[name]
        channel = -1 if isinstance(layer, nn.Linear) else 1 - kept.dim()

        def note_live(weight: Tensor) -> None:
            if weight.grad is not None:  # at once, so that no two layers' gradients exist together
                paths.live[name] |= kept & (weight.grad != 0)
                weight.grad = None

        def note_useful(gradient: Tensor) -> None:
            paths.useless_rows[name].logical_and_(~any_per_channel(gradient, channel))

        def forward(x: Tensor) -> Tensor:
            weight = kept.to(x.dtype).requires_grad_()
            weight.register_post_accumulate_grad_hook(note_live)  # type: ignore[no-untyped-call]
            self.leaves.append(weight)
            with torch.no_grad():
                paths.forward[name] |= kept & _touched(layer, x, kept)
            out = reach(applied(layer, x, weight), self.generator)
            paths.dead_rows[name].logical_and_(~any_per_channel(out, channel))
            if out.requires_grad:
                out.register_hook(note_useful)  # type: ignore[no-untyped-call]
            return out

        return forward


def applied(layer: Synapses, x: Tensor, weight: Tensor) -> Tensor:
    """The layer with another weight and no bias; leading axes beyond the batch (the time axis) are folded into it."""
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight)
    extra = x.dim() - weight.dim()
    if extra <= 0:
        return cast(Tensor, layer._conv_forward(x, weight, None))
    out = cast(Tensor, layer._conv_forward(x.flatten(0, extra), weight, None))
    return out.reshape(*x.shape[: extra + 1], *out.shape[1:])


def _touched(layer: Synapses, x: Tensor, kept: Tensor) -> Tensor:
    """Which weights some non-zero input meets at some site: the gradient of the layer's sum. Bool, like `kept`."""
    present = (x.detach() != 0).to(x.dtype)
    if isinstance(layer, nn.Linear):
        return present.flatten(0, -2).any(0).expand_as(kept) if x.dim() > 1 else (present != 0).expand_as(kept)
    if bool((present != 0).all()) and not any(layer.padding if isinstance(layer.padding, tuple) else (1,)):
        return torch.ones_like(kept)
    with torch.enable_grad():
        # One row a group stands for all its rows: which inputs a weight meets does not depend on its output channel.
        row = torch.ones((layer.groups, *kept.shape[1:]), dtype=x.dtype, device=x.device, requires_grad=True)
        (gradient,) = torch.autograd.grad(applied(layer, present, row).sum(), row)
    return (gradient != 0).repeat_interleave(kept.shape[0] // layer.groups, 0)


def passes_on(module: nn.Module, identities: Sequence[type[nn.Module]] = ()) -> bool:
    """Whether a module only passes on what it is given, as far as paths go: neurons, norms, activations."""
    norms = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)
    if isinstance(module, norms) or is_neuron(module, tuple(identities)):
        return True
    homes = [parent.__module__ for parent in type(module).__mro__]
    if "spikingjelly.activation_based.layer.bn" in homes:
        return True
    return "torch.nn.modules.activation" in homes and not isinstance(module, nn.MultiheadAttention)


def pass_on(x: Tensor, *_: Any, **__: Any) -> Tensor:
    """What a forward of such a module is replaced by."""
    return x.clone()  # a tensor of its own: the code behind it may add to it in place


@contextmanager
def replaced(model: nn.Module, probe: Probe, identities: Sequence[type[nn.Module]]) -> Iterator[None]:
    """Puts the probe's forwards in, hooks aside and states at their start; puts everything back at the end.

    Forward hooks could replace outputs, but only after the module ran: a PSN refuses another number of steps, a neuron
    changes its state. So `forward` itself is shadowed on the instance for as long as the probe runs.
    """
    layers = {id(layer): (weight_name(name), layer) for name, layer in synaptic_layers(model).items()}
    with set_aside(model), ExitStack() as stack:
        for module in model.modules():
            if id(module) in layers:
                shadow(module, probe.forward_of(*layers[id(module)]), stack)
            elif passes_on(module, identities):
                shadow(module, pass_on, stack)
        yield


class AveragePooling(TorchFunctionMode):
    """Max pooling becomes average pooling over the same windows, whether a module or a function asks for it."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # Every operation of the model comes by here, so it is one look into a table.
        averaging = _AVERAGING.get(getattr(function, "__name__", ""), function)
        return averaging(*args, **(kwargs or {}))


def _average(
    dimensions: int,
    x: Tensor,
    kernel_size: int | tuple[int, ...],
    stride: int | tuple[int, ...] | None = None,
    padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    dilations = (dilation,) if isinstance(dilation, int) else dilation
    if any(step != 1 for step in dilations) or return_indices:
        raise BadOption("max pooling with dilation or indices: its paths are not supported; pool without")
    average: Callable[..., Tensor] = getattr(F, f"avg_pool{dimensions}d")
    return average(x, kernel_size, stride or None, padding, ceil_mode)


def _adaptive(dimensions: int, x: Tensor, output_size: int | tuple[int, ...], *_: Any, **__: Any) -> Tensor:
    average: Callable[..., Tensor] = getattr(F, f"adaptive_avg_pool{dimensions}d")
    return average(x, output_size)


_AVERAGING: dict[str, Callable[..., Any]] = {
    f"{word}{dimensions}d": partial(function, dimensions)
    for word, function in (("max_pool", _average), ("adaptive_max_pool", _adaptive))
    for dimensions in (1, 2, 3)
}
