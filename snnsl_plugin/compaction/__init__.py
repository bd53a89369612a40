"""Cutting silent channels out of a spiking network for real: what is left computes the same.

Torch-Pruning finds which tensors share a channel and cuts them; this package lets it see through time steps and
neurons, proves the cut before it stands, and re-estimates batch norms. The names below load their modules on first use.
"""
