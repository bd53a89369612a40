"""A failure is its row's, in one line, whatever it is."""

import pytest

from snnsl_plugin.comparison import plan
from snnsl_plugin.comparison.failures import sentence
from snnsl_plugin.errors import BadOption
from snnsl_plugin.recipe.load import load


class Mute(ValueError):
    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BadOption("density is 2:\n give a share"), "density is 2: give a share"),
        (KeyError("conv9"), "KeyError: 'conv9'"),
        (ValueError(), "ValueError: no message"),
        (Mute(), "Mute: no message"),
        (ValueError("\x1b[31mred"), "ValueError: [31mred"),
        (SystemExit(3), "it left its process by sys.exit(3): let it raise an error, or return"),
    ],
)
def test_a_failure_is_one_printable_line(error, said):
    assert sentence(error) == said


@pytest.mark.parametrize("error", [SystemExit(3), Mute(), RuntimeError("no scores")])
def test_a_pruner_that_ends_the_process_while_it_is_planned_takes_its_row_and_no_other(error, monkeypatch):
    def fails(recipe, parts):
        if recipe.pruning.type == "torch.l1":
            raise error
        return assembled(recipe, parts)

    assembled = plan.assemble.assemble
    monkeypatch.setattr(plan.assemble, "assemble", fails)
    made = plan.plan(load("digits", ["compare={pruners: [torch.l1, torch.random], densities: [0.2]}"]), "mine")
    rows = {row.entrant.name: row for row in made.rows}
    for row in rows.values():
        plan.prepare(row)
    assert rows["torch.l1"].error == sentence(error)
    assert rows["torch.random"].error is None
    assert rows["torch.random"].strength.value == 0.2


def test_a_row_stands_in_its_table_before_it_is_planned_or_where_it_cannot_be():
    pruners = "[torch.l1, torch_pruning.magnitude, nni.l1_norm, nni.level, {name: m, like: nni.movement, pruning: "
    pruners += "{granularity: weight}}, {name: typo, like: torch_pruning.magnitude, pruning: {chanels: 0.5}}]"
    made = plan.plan(load("digits", [f"compare={{pruners: {pruners}, densities: [0.2]}}"]), "mine")
    assert {row.entrant.name: row.kind for row in made.rows} == {
        "dense": "dense",
        "torch.l1": "unstructured",
        "torch_pruning.magnitude": "structured",
        "nni.l1_norm": "structured",
        "nni.level": "unstructured",
        "m": "unstructured",
        "typo": "structured",
    }
