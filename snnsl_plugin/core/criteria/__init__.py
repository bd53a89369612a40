"""What a connection is worth keeping for: functions `criterion(layer) -> scores`, larger is better."""

from snnsl_plugin.core._folder import functions

globals().update(functions(__name__, __path__))
