"""Where a connection is worth growing: functions `growth(layer) -> scores`, larger is better."""

from snnsl_plugin.core._folder import functions

globals().update(functions(__name__, __path__))
