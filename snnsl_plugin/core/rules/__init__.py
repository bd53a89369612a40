"""How masks change: one file a rule; the function named like the file is its update."""

from snnsl_plugin.core._folder import functions

globals().update(functions(__name__, __path__))
