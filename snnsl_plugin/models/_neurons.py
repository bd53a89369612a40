"""One place where spiking neurons are made, so that every model offers the same neuron options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import nn

from snnsl_plugin.errors import BadOption

NeuronName = Literal["lif", "plif", "if", "relu"]
SurrogateName = Literal["atan", "sigmoid"]


def neuron_factory(
    neuron: NeuronName,
    *,
    tau: float,
    surrogate: SurrogateName,
    surrogate_alpha: float,
    detach_reset: bool,
    v_threshold: float,
) -> Callable[[], nn.Module]:
    """A function without arguments that makes one new multi-step spiking neuron per call.

    The neurons are SpikingJelly's, with a hard reset to 0 and `decay_input=True`: a LIF integrates
    `v += (x - v) / tau`, so a constant input x leads to v = x whatever tau is.

    Args:
        neuron: `lif` (leaky), `plif` (leaky, tau learned per layer), `if` (no leak; `tau` is then not used);
            `relu` for none, which makes an ANN of the same layers, e.g. to teach.
        tau: membrane time constant in steps, > 1 (for `plif` its first value).
        surrogate: the derivative used in place of the step function's: `atan` or `sigmoid`.
        surrogate_alpha: its steepness, > 0; larger is narrower.
        detach_reset: whether the reset is left out of the gradient.
        v_threshold: firing threshold, > 0, in units of the membrane potential.

    Raises:
        BadOption: an unknown word, or a number outside its range.
    """
    if neuron not in ("lif", "plif", "if", "relu"):
        raise BadOption(f"neuron is {neuron!r}; choose lif, plif or if, or relu for an ANN")
    if surrogate not in ("atan", "sigmoid"):
        raise BadOption(f"surrogate is {surrogate!r}; choose atan or sigmoid")
    if not tau > 1:
        raise BadOption(f"tau is {tau}; a membrane time constant is larger than 1 step (use neuron: if for no leak)")
    if not surrogate_alpha > 0:
        raise BadOption(f"surrogate_alpha is {surrogate_alpha}; it must be positive, 2.0 is usual")
    if not v_threshold > 0:
        raise BadOption(f"v_threshold is {v_threshold}; it must be positive, 1.0 is usual")

    def make() -> nn.Module:
        from spikingjelly.activation_based import neuron as neurons
        from spikingjelly.activation_based import surrogate as surrogates

        slope = surrogates.ATan if surrogate == "atan" else surrogates.Sigmoid
        shared = {
            "v_threshold": v_threshold,
            "surrogate_function": slope(alpha=surrogate_alpha),
            "detach_reset": detach_reset,
            "step_mode": "m",
        }
        made: nn.Module
        if neuron == "relu":
            return nn.ReLU()
        if neuron == "lif":
            made = neurons.LIFNode(tau=tau, **shared)
        elif neuron == "plif":
            made = neurons.ParametricLIFNode(init_tau=tau, **shared)
        else:
            made = neurons.IFNode(**shared)
        return made

    return make
