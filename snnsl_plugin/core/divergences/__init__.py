"""How far a learner is from its guide: `divergence(guide, learner) -> per sample`."""

from snnsl_plugin.core._folder import functions

globals().update(functions(__name__, __path__))
