"""Pruners that mask a network while it trains: functions `pruner(model, ..., *, options)` that return an object.

Positional parameters are what only a runner knows, by name: see `hosting.hosted`, which also says what is returned.
"""
