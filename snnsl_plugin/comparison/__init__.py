"""Every pruner of every host on equal terms: one command, statistics, a report."""
