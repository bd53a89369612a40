"""A model of the energy of one inference, for arithmetic only. A model, never a measurement."""

from __future__ import annotations

# 32-bit floating point in 45 nm (Horowitz, "Computing's energy problem", ISSCC 2014): an addition takes 0.9 pJ, a
# multiplication 3.7 pJ. Memory, which costs more than either, is left out, as the field does.
PJ_PER_AC = 0.9
PJ_PER_MAC = 4.6
# One update of a leaky integrate-and-fire neuron: one multiply-accumulate, v += (x - v) / tau, and one comparison with
# the threshold, which costs as much as an accumulate. The reset is not counted.
PJ_PER_NEURON_UPDATE = PJ_PER_MAC + PJ_PER_AC


def energy_pj(
    *, input_macs: float, input_macs_once: float, other_macs: float, acs: float, neuron_updates: float
) -> dict[str, float]:
    """The energy model's parts, in pJ; with operations per sample, pJ per sample.

    Args:
        input_macs: multiply-accumulates of the input layer over all T steps.
        input_macs_once: the same divided by T: what direct coding, which repeats one frame, needs at least.
        other_macs: multiply-accumulates of all other layers (behind average pooling, SEW sums).
        acs: accumulates of all layers.
        neuron_updates: T * neurons.

    Returns:
        `input_once`, `input_times_T`, `mac` (other layers), `ac`, `neuron`, and `total` = `input_times_T` + `mac` +
        `ac` + `neuron` (the dearer reading of the input).

    Example:
        >>> energy_pj(input_macs=20, input_macs_once=10, other_macs=0, acs=100, neuron_updates=0)["total"]
        182.0
    """
    parts = {
        "input_once": PJ_PER_MAC * input_macs_once,
        "input_times_T": PJ_PER_MAC * input_macs,
        "mac": PJ_PER_MAC * other_macs,
        "ac": PJ_PER_AC * acs,
        "neuron": PJ_PER_NEURON_UPDATE * neuron_updates,
    }
    parts["total"] = parts["input_times_T"] + parts["mac"] + parts["ac"] + parts["neuron"]
    return parts
