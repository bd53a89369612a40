"""Stateful torch: the only place that touches modules, hooks and optimizers."""
