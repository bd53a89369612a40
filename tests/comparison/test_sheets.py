import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree

import pytest
from comparison_cases import FAILED, FAILURE, comparison_json

from snnsl_plugin.comparison import pictures, publish, scales, sheets, wording
from snnsl_plugin.comparison.definitions import DEFINITIONS

CELLS = re.compile(r"(?<!\\)\|")


@pytest.fixture(scope="module")
def comparison():
    return comparison_json()


def table_of(verdicts, reference="a.ref"):
    """A table and its rows, worked by hand: means 0.9, 0.8, ... with a half width of one point."""
    names, budget = [reference, *verdicts], {"kind": "density", "value": 0.1}
    place = {"task": "digits", "kind": "unstructured", "budget": budget}
    rows = []
    for number, name in enumerate(names):
        mean = 0.9 - 0.1 * number
        accuracy = {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "sd": 0.01, "n": 3}
        row = {"pruner": name, "host": name.split(".")[0], "status": "finished", "error": None, "strength": None}
        rows.append(row | place | {"runs": [], "measures": {"accuracy": accuracy}})
    differences = {name: {"verdict": verdict} for name, verdict in verdicts.items()}
    table = place | {"reference": reference, "order": names, "differences": differences}
    return {"rows": rows}, table


def test_the_headline_names_up_to_three_and_counts_more():
    others = dict.fromkeys((f"c.{number}" for number in range(4)), "inside the noise")
    case, table = table_of({"b.one": "better", "b.two": "worse", "b.three": "worse"} | others)

    assert wording.headline(case, table) == (
        "Of 8 unstructured pruners at density 0.1 on digits, b.one is better than a.ref beyond the noise;"
        " b.two and b.three are worse; 4 are inside the noise. Highest mean: a.ref, 90.00 ± 1.00 %."
    )


def test_the_headline_claims_nothing_where_nothing_was_tested():
    case, table = table_of({"b.one": "not tested"})

    assert "none could be tested against a.ref" in wording.headline(case, table)
    assert "none that compare.references names finished within its budget" in wording.headline(
        case, table | {"reference": None, "differences": {}}
    )


def test_a_failed_pruner_is_named_as_failed_not_as_untested():
    case, table = table_of({"b.one": "worse", "b.two": "not tested"})
    case["rows"][2] |= {"status": "failed", "measures": {}}

    assert wording.headline(case, table) == (
        "Of 3 unstructured pruners at density 0.1 on digits, none is better than a.ref beyond the noise; b.one is"
        " worse; b.two failed. Highest mean: a.ref, 90.00 ± 1.00 %."
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "–"), (0.0, "0"), (0.04567, "0.0457"), (0.5, "0.5"), (123.4, "123"), (11568.4, "11,568"), (999.6, "1,000")],
)
def test_numbers_have_three_digits_or_whole_thousands(value, words):
    assert wording.significant(value) == words


def test_one_run_has_a_mean_and_no_half_width():
    row = {"measures": {"accuracy": {"mean": 0.5, "low": None, "high": None, "sd": None, "n": 1}}}

    assert wording.mean_and_half_width(row) == "50.00 %"


def test_the_csv_has_a_line_for_each_run_and_every_number_of_it(comparison):
    lines = list(csv.DictReader(io.StringIO(sheets.lines(comparison))))
    runs = [(row, run) for row in comparison["rows"] for run in row["runs"]]

    assert len(lines) == len(runs)
    for line, (row, run) in zip(lines, runs, strict=True):
        assert (line["task"], line["pruner"], line["seed"]) == (row["task"], row["pruner"], str(run["seed"]))
        assert line["folder"] == run["folder"]
        for key, value in (run["numbers"] or {}).items():
            assert float(line[key]) == value
    assert sum(line["error"] == FAILURE and line["accuracy"] == "" for line in lines) == 3


def test_a_row_that_never_had_a_run_is_in_the_csv_with_its_sentence(comparison):
    row = comparison["rows"][1] | {"runs": [], "status": "failed", "error": 'a, "b"\nc', "measures": {}}
    (line,) = csv.DictReader(io.StringIO(sheets.lines(comparison | {"rows": [row]})))

    assert (line["pruner"], line["seed"], line["status"]) == (row["pruner"], "", "failed")
    assert line["error"] == 'a, "b"\nc'


def test_the_markdown_holds_every_table_answer_power_and_failure(comparison):
    text = sheets.markdown(comparison)

    for table in comparison["tables"]:
        budget = wording.budget_words(table["budget"])
        assert f"## {table['task']}, {budget}, {table['kind']}\n" in text
        assert table["power"]["sentence"] in text
        assert wording.headline(comparison, table) in text
    assert f"- `{FAILED[1]}`: failed: {FAILURE}" in text.replace("\\", "")
    for sentence in DEFINITIONS.values():
        assert sentence.replace("_", "") in text.replace("\\", "").replace("_", "")


def test_a_row_of_the_markdown_says_the_numbers_of_the_json(comparison):
    row = next(row for row in comparison["rows"] if row["pruner"] == "torch.random")
    accuracy, synops = row["measures"]["accuracy"], row["measures"]["synops"]["mean"]
    half = 50 * (accuracy["high"] - accuracy["low"])
    line = next(line for line in sheets.markdown(comparison).splitlines() if line.startswith("| `torch.random`"))

    assert f"{100 * accuracy['mean']:.2f} ± {half:.2f} %" in line
    assert "▼ worse" in line
    assert f"{synops:,.0f}," in line
    assert line.rstrip(" |").endswith("3 of 3")


def test_text_from_outside_breaks_no_table_of_the_markdown(comparison):
    hostile = "x | <script>alert(1)</script> `y` *z*\n| a | b |"
    case = json.loads(json.dumps(comparison).replace("torch.random", "evil|`name").replace("compare_example", "<b>"))
    case["rows"][-1] |= {"error": hostile, "status": "failed", "measures": {}}
    lines = sheets.markdown(case).splitlines()

    for line in lines:
        if line.startswith("|"):
            heads = len(CELLS.findall(line))
            assert heads == 10 or heads == 3, line  # nine columns, or a rank
    text = "\n".join(lines)
    assert re.search(r"(?<!\\)<", re.sub(r"`[^`]*`", "", text)) is None
    assert "x \\| \\<script>" in text


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (scales.Scale(0.0, 1.0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (scales.Scale(0.913, 0.987), [0.92, 0.94, 0.96, 0.98]),
        (scales.Scale(0.015, 0.25, log=True), [0.02, 0.05, 0.1, 0.2]),
        (scales.Scale(1e3, 1e6, log=True), [1e3, 1e4, 1e5, 1e6]),
    ],
)
def test_ticks_are_round_and_inside(scale, ticks):
    assert scale.ticks() == pytest.approx(ticks)


def test_a_scale_maps_its_ends_and_keeps_what_is_outside_at_them():
    scale = scales.Scale(1.0, 100.0, log=True)

    assert [scale.share(value) for value in (0.1, 1, 10, 100, 1e9)] == pytest.approx([0, 0, 0.5, 1, 1])


def test_one_pruner_at_chance_level_does_not_press_the_others_together():
    case, _ = table_of({f"b.{n}": "worse" for n in range(8)})
    for place, row in enumerate(case["rows"]):
        row["measures"]["accuracy"] |= {"mean": 0.9 - 0.002 * place, "low": 0.89 - 0.002 * place, "high": 0.91}
    case["rows"][-1]["measures"]["accuracy"] |= {"mean": 0.1, "low": 0.09, "high": 0.11}

    assert 0.84 < scales.of_accuracy(case["rows"]).low < 0.89


def test_all_files_are_written_whole_and_the_same_each_time(comparison, tmp_path):
    few = comparison | {
        "tables": comparison["tables"][:1],
        "tasks": comparison["tasks"][:1],
        "rows": [row for row in comparison["rows"] if row["task"] == "digits"],
    }
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        assert publish.write(few, folder) == folder / "comparison.html"

    files = sorted(path.relative_to(first).as_posix() for path in first.rglob("*") if path.is_file())
    words = ("accuracy-over-density", "accuracy-over-synops", "density-0.1")
    drawn = [f"figures/digits-{word}.{suffix}" for word in words for suffix in ("png", "svg")]
    assert files == ["comparison.csv", "comparison.html", "comparison.md", *drawn]
    for name in files:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_pictures_are_valid_and_leave_out_what_has_no_number(comparison):
    table = next(t for t in comparison["tables"] if (t["task"], t["budget"]["value"]) == (FAILED[0], FAILED[2]))
    case = comparison | {"tables": [table], "tasks": []}
    drawn = dict(pictures.draw(case))

    assert sorted(drawn) == ["nmnist-density-0.05.png", "nmnist-density-0.05.svg"]
    assert drawn["nmnist-density-0.05.png"].startswith(b"\x89PNG")
    assert ElementTree.fromstring(drawn["nmnist-density-0.05.svg"]).tag.endswith("svg")
    empty = comparison | {"rows": [row | {"measures": {}} for row in comparison["rows"]]}
    assert list(pictures.draw(empty)) == []


def test_whole_channels_stand_over_their_live_weights_as_their_budget_counts(comparison):
    def drawn(kind):
        changed = [
            row | {"measures": row["measures"] | {"density": {"mean": 0.9, "low": 0.9, "high": 0.9, "sd": 0.0, "n": 3}}}
            if row["kind"] == kind
            else row
            for row in comparison["rows"]
        ]
        case = comparison | {"rows": changed, "tables": [], "tasks": comparison["tasks"][:1]}
        return dict(pictures.draw(case))["digits-accuracy-over-density.svg"]

    assert drawn("structured") == drawn(None)
    assert drawn("unstructured") != drawn(None)


@pytest.mark.parametrize(("count", "colours"), [(6, 6), (7, 1)])
def test_each_of_up_to_six_pruners_has_a_colour_of_its_own(comparison, count, colours):
    row = next(row for row in comparison["rows"] if row["kind"] == "unstructured" and row["measures"])
    rows = [row | {"pruner": f"snnsl.{number}", "host": "snnsl", "task": "digits"} for number in range(count)]
    case = comparison | {"rows": rows, "tables": [], "tasks": comparison["tasks"][:1]}
    svg = dict(pictures.draw(case))["digits-accuracy-over-density.svg"].decode()

    palette = {colour for colour, _ in (*pictures._KNOWN.values(), *pictures._OTHERS)} - {pictures._KNOWN["dense"][0]}
    assert len({colour for colour in palette if colour in svg}) == colours


@pytest.mark.parametrize("length", [5, 30, 60])
def test_a_legend_is_no_wider_than_its_picture(comparison, length):
    row = next(row for row in comparison["rows"] if row["kind"] == "unstructured" and row["measures"])
    names = [f"{number}".ljust(length, "m") for number in range(6)]
    case = comparison | {"rows": [row | {"pruner": name, "task": "digits"} for name in names]}
    figure = pictures._curves(case, "digits", pictures._SYNOPS, pictures._styles(case))

    figure.canvas.draw()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()][:6] == names
    # A name longer than the whole picture has a line of its own.
    assert legend.get_window_extent().width <= figure.bbox.width or length == 60
    assert legend._ncols == {5: 5, 30: 1, 60: 1}[length]


def test_a_picture_says_who_missed_the_budget(comparison):
    first = comparison["rows"][0] | {"pruner": "a.far", "strength": {"missed": True}}
    table = next(each for each in comparison["tables"] if each["task"] == first["task"])
    place = {word: table[word] for word in ("kind", "budget")}
    case = comparison | {"rows": [*comparison["rows"], first | place], "tables": [table]}
    svg = next(picture for name, picture in pictures.draw(case) if name.endswith("svg")).decode()

    assert "<!-- a.far (budget missed) -->" in svg
    assert svg.count("(budget missed)") == 1
