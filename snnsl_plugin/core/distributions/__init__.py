"""How a budget of weights is shared among layers: `distribution(layers, scores, budget) -> counts`."""

from snnsl_plugin.core._folder import functions

globals().update(functions(__name__, __path__))
