"""For authors of extensions: slow, obvious oracles, and the contract that every registered name must keep.

from snnsl_plugin.testing import check_criterion

def test_my_criterion_keeps_the_contract():
    check_criterion(my_criterion)
"""

from snnsl_plugin.testing.contracts import (
    check_criterion,
    check_distribution,
    check_divergence,
    check_guide,
    check_rule,
    check_schedule,
)
from snnsl_plugin.testing.oracles import (
    permuted,
    slow_driven_synapses,
    slow_drop_grow,
    slow_keep_top,
    slow_stds,
    tied_layer,
)
from snnsl_plugin.testing.pruner_contract import check_pruner

__all__ = [
    "check_criterion",
    "check_distribution",
    "check_divergence",
    "check_guide",
    "check_pruner",
    "check_rule",
    "check_schedule",
    "permuted",
    "slow_driven_synapses",
    "slow_drop_grow",
    "slow_keep_top",
    "slow_stds",
    "tied_layer",
]
