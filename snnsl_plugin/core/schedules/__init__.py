"""Numbers that change over training: `schedule(done) -> value`, `done` in [0, 1]."""

from snnsl_plugin.core._folder import functions

globals().update(functions(__name__, __path__))
