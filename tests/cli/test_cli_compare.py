"""What `snnsl compare` says on the way and at the end, and who would take part."""

import io
import json

import pytest
from comparison_cases import comparison_json
from rich.console import Console

from snnsl_plugin.cli import main
from snnsl_plugin.cli.comparing import Listening, print_comparison, print_plan
from snnsl_plugin.comparison.stages import Told
from snnsl_plugin.recipe.outcome import versions


def console(*, terminal=False, width=80):
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)


def test_the_tables_fit_80_columns_and_name_every_pruner_with_its_verdict(tmp_path):
    where, found = console(), comparison_json()
    print_comparison(found, tmp_path, where)
    text = where.file.getvalue()
    for table in found["tables"]:
        for name in table["order"]:
            assert name in text
    lines = [line for line in text.splitlines() if " ± " in line and "%" not in line]
    assert lines
    assert max(map(len, lines)) <= 80
    assert "…" not in text  # nothing is cut off
    assert "reference" in text
    assert "noise" in text
    assert "failed" in text
    assert str(tmp_path / "comparison.html") in text


def test_beside_a_terminal_each_run_is_a_line_and_a_failure_says_why():
    where = console()
    with Listening(console=where) as listening:
        listening.show(Told("plan", 1, 2))
        listening.show(Told("train", 3, 30))
        listening.show(Told("train", 12, 30, "digits-dense-s0"))
        listening.show(Told("train", 24, 30, "digits-nni.slim-s0", "no batch norm"))
    assert where.file.getvalue().splitlines() == [
        "training: 12/30 epochs, digits-dense-s0",
        "failed: digits-nni.slim-s0: no batch norm",
    ]


def test_on_a_terminal_a_bar_shows_epochs_done_of_all_and_the_time_left():
    where = console(terminal=True, width=100)
    with Listening(console=where) as listening:
        listening.show(Told("plan", 2, 2))
        listening.show(Told("train", 12, 48))
    shown = where.file.getvalue()
    assert "2/2 pruners" in shown
    assert "12/48 epochs" in shown
    assert "left" in shown


def test_quiet_is_quiet_but_for_nothing():
    where = console()
    with Listening(quiet=True, console=where) as listening:
        listening.show(Told("train", 12, 48, "a run", "its failure"))
    assert where.file.getvalue() == ""


def test_a_plan_says_who_keeps_how_much_and_who_cannot_take_part():
    base = {"task": "digits", "budget": {"kind": "density", "value": 0.1}, "seeds": [0, 1], "epochs": 3}
    base |= {"kind": "unstructured", "searched": False, "error": None, "strength": None}
    told = {"key": "density", "value": 0.1, "found_by": "plan", "missed": False, "runs": 0}
    rows = [
        base | {"pruner": "dense", "kind": "dense", "budget": None},
        base | {"pruner": "snnsl.gmp", "strength": told},
        base | {"pruner": "coarse", "strength": told | {"key": "channels", "value": 0.3, "missed": True}},
        base | {"pruner": "snnsl.stds", "searched": True},
        base | {"pruner": "broken", "error": "no layer is called fc9"},
    ]
    where = console()
    print_plan({"digest": "0" * 16, "rows": rows}, where)
    text = where.file.getvalue()
    assert "density 0.1" in text
    assert "channels 0.3 (misses the budget)" in text
    assert "found by training" in text
    assert "8 runs, 24 epochs, and up to 6 more runs for each of 1 rows" in text
    assert "broken cannot take part on digits: no layer is called fc9" in text


def test_dry_run_plans_a_comparison_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["compare", "--dry-run", "--json", "compare.pruners=[snnsl.gmp, torch.l1]", "compare.densities=[0.2]"]
    assert main(words) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["pruner"], row["strength"] and row["strength"]["value"]) for row in rows] == [
        ("dense", None),
        ("snnsl.gmp", 0.2),
        ("torch.l1", 0.2),
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare", "digits"], "digits: has no `compare` block"),
        (["compare", "compare.pruners=[snnsl.gpm]"], "no pruner is called 'snnsl.gpm'; did you mean 'snnsl.gmp'?"),
        (["compare", "compare.densities=[]"], "needs a budget: a density in densities"),
        (["compare", "--dry-run", "--resume"], "exclude each other"),
        (["compare", "compare.tasks=[nowhere]"], "there is no such file, and no shipped recipe of that name"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_writes_nothing(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_report_draws_a_comparison_again(tmp_path, capsys):
    (tmp_path / "comparison.json").write_text(json.dumps(comparison_json()))
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "comparison.html")
    assert (tmp_path / "comparison.md").read_text().startswith("# ")


def test_a_comparison_is_not_gone_on_with_by_other_versions(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["compare", "compare={pruners: [dense], seeds: [0]}", "--json"]
    assert main([*words, "--dry-run"]) == 0
    held = {"name": "compare_digits", "digest": json.loads(capsys.readouterr().out)["digest"], "seed": 0}
    (tmp_path / "begun").mkdir()
    began = json.dumps(held | {"versions": versions() | {"torch": "1.0.0"}})
    (tmp_path / "begun" / "run.json").write_text(began)
    assert main([*words, "--run-dir", "begun", "--resume"]) == 1
    assert "begun was begun with other versions (torch 1.0.0 -> " in capsys.readouterr().err
    assert (tmp_path / "begun" / "run.json").read_text() == began
