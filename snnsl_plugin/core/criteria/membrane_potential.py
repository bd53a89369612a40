"""How far from rest the neuron is kept."""

from __future__ import annotations

from torch import Tensor

from snnsl_plugin.core.layer import Layer, per_output


def membrane_potential(layer: Layer) -> Tensor:
    """The mean |V| of the neuron that a channel drives, over steps, samples and sites; a spike counts as the threshold.

    What a channel is kept for in SCA (Li et al., ICML 2024, "Spiking Activity based Pruning"): excitation and
    inhibition both count as activity. That a spike counts as the threshold it has reached is our choice: potentials are
    known after the reset only, and a neuron that fires often would look as if it were at rest. All weights of an output
    channel score the same, so within a layer this ranks channels.

    Returns:
        Scores of the weight's shape, >= 0.

    Raises:
        MissingStatistic: no potential was recorded, or the layer drives no neuron that has one.
    """
    potential = layer.need("post_potential").to(layer.weight)
    return per_output(potential, layer).expand(layer.weight.shape).clone()
