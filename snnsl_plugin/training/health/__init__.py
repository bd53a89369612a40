"""Keeping the signal alive while connections go: options that are off unless a recipe's `health` names them.

A function makes a `Care` from what a runner knows: `f(model, total_steps, steps_per_epoch, *, options) -> Care`.
"""
