"""Measures of a network, each with its definition: accuracy, connections, operations, energy, firing, time, memory."""
