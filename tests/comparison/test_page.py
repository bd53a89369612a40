import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from comparison_cases import FAILED, FAILURE, comparison_json

import snnsl_plugin.comparison
from snnsl_plugin.comparison import page, svg
from snnsl_plugin.comparison.definitions import DEFINITIONS

STYLE = (Path(snnsl_plugin.comparison.__path__[0]) / "comparison.css").read_text("utf-8")
VOID = {"meta", "link", "br", "img", "input", "hr"}
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u2028"


class Tree(HTMLParser):
    """Every element with its attributes and its text; fails where tags do not nest."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.texts = [], [], {}
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice: {tag} {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, len(self.elements) - 1))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert [name for name, _ in self.open[-1:]] == [tag], f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        for _, number in self.open:
            self.texts[number] = self.texts.get(number, "") + data

    def all(self, tag, **having):
        return [
            (attrs, self.texts.get(number, ""))
            for number, (name, attrs) in enumerate(self.elements)
            if name == tag and all(attrs.get(key.replace("_", "-")) == value for key, value in having.items())
        ]


@pytest.fixture(scope="module")
def comparison():
    return comparison_json()


@pytest.fixture(scope="module")
def html(comparison):
    return page.render(comparison)


@pytest.fixture(scope="module")
def tree(html):
    return Tree(html)


def test_the_page_has_one_title_landmarks_and_a_way_past_the_head(tree):
    assert [text for _, text in tree.all("h1")] == ["compare_example"]
    assert all(len(tree.all(tag)) == 1 for tag in ("header", "nav", "main", "footer"))
    first = [tag for tag, _ in tree.elements].index("body") + 1
    assert tree.elements[first] == ("a", {"class": "skip", "href": "#main"})
    assert tree.all("html")[0][0]["lang"] == "en"


def test_headings_leave_out_no_level(tree):
    levels = [int(tag[1]) for tag, _ in tree.elements if re.fullmatch("h[1-6]", tag)]

    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_ids_are_unique_and_every_reference_finds_its_element(tree):
    ids = [attrs["id"] for _, attrs in tree.elements if "id" in attrs]
    wanted = [attrs["href"][1:] for tag, attrs in tree.elements if tag == "a" and attrs["href"].startswith("#")]
    wanted += [attrs["aria-labelledby"] for _, attrs in tree.elements if "aria-labelledby" in attrs]

    assert len(ids) == len(set(ids))
    assert set(wanted) <= set(ids)
    assert {f"definition-{word}" for word in DEFINITIONS} <= set(ids)


def test_nothing_on_the_page_comes_from_elsewhere(html, tree):
    for tag, attrs in tree.elements:
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            address = attrs.get(name, "")
            assert not re.match(r"(?!data:,$)[a-z][a-z0-9+.-]*:|//", address, re.I), (tag, name, address)
        assert not any(name.startswith("on") or name == "style" for name in attrs), (tag, attrs)
    assert not re.search(r"https?://|@import|url\(", html)


def test_the_policy_lets_only_this_script_and_this_style_work(html, tree):
    policy = tree.all("meta", http_equiv="Content-Security-Policy")[0][0]["content"]
    (script,) = [text for attrs, text in tree.all("script") if "type" not in attrs]
    (style,) = [text for _, text in tree.all("style")]

    assert "default-src 'none'" in policy
    for kind, text in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy


def test_text_from_outside_stays_text(comparison):
    case = json.loads(json.dumps(comparison).replace("torch.random", "EVIL").replace("compare_example", "EVIL"))
    case = json.loads(json.dumps(case).replace("EVIL", json.dumps(HOSTILE)[1:-1]))
    case["pruners"][1]["summary"] = case["machine"]["processor"] = case["rows"][-1]["error"] = HOSTILE
    case["rows"][-1] |= {"status": "failed", "measures": {}}
    tree = Tree(page.render(case))

    assert len(tree.all("script")) == 2
    assert not tree.all("img")
    assert [text for _, text in tree.all("h1")] == [HOSTILE]
    rows = json.loads(tree.all("script", id="data")[0][1])["rows"]
    assert any(row["title"].startswith(HOSTILE) for row in rows.values())


def test_the_embedded_data_are_those_of_the_json(comparison, tree):
    rows = json.loads(tree.all("script", id="data")[0][1])["rows"]

    assert len(rows) == len(comparison["rows"])
    for number, row in enumerate(comparison["rows"]):
        lines = dict(rows[str(number)]["lines"])
        assert rows[str(number)]["title"].split(" (")[0] == row["pruner"]
        if row["measures"]:
            accuracy = row["measures"]["accuracy"]
            low, high = 100 * accuracy["low"], 100 * accuracy["high"]
            assert lines["accuracy"] == f"{100 * accuracy['mean']:.2f} % [{low:.2f}, {high:.2f}]"
            assert lines["seeds"] == str(accuracy["n"])


def test_every_table_has_its_rows_best_first_with_dense_on_top(comparison, tree):
    names = [attrs["data-pruner"] for attrs, _ in tree.all("tr") if "data-pruner" in attrs]
    wanted = [
        pruner
        for task in comparison["tasks"]
        for budget in comparison["terms"]["budgets"]
        for table in comparison["tables"]
        if (table["task"], table["budget"]) == (task["name"], budget)
        for pruner in ["dense", *table["order"]]
    ]

    assert names == wanted


def test_a_head_that_sorts_is_a_button_and_says_how_the_table_is_sorted(tree):
    heads = [(attrs, text) for attrs, text in tree.all("th") if "data-sort" in attrs]
    sorted_by = [text for attrs, text in heads if attrs.get("aria-sort")]

    assert len(tree.all("button")) >= len(heads)
    assert set(sorted_by) == {"accuracy"}
    assert len(sorted_by) == len([1 for attrs, _ in tree.all("tbody") if attrs.get("class") == "dense"])


def test_a_failed_row_shows_its_sentence(comparison, tree):
    texts = [" ".join(text.split()) for attrs, text in tree.all("tr") if "failed" in (attrs.get("class") or "")]

    assert len(texts) == 1
    assert FAILED[1] in texts[0]
    assert FAILURE in texts[0]


def test_every_run_is_linked_from_a_table_and_every_point_to_a_run(comparison, tree):
    links = {unquote(attrs["href"]) for attrs, _ in tree.all("a")}
    runs = {run["folder"] + "/" for row in comparison["rows"] for run in row["runs"]}
    points = [attrs for attrs, _ in tree.all("a") if (attrs.get("class") or "").startswith("point")]

    assert runs <= links
    assert points
    for point in points:
        row = comparison["rows"][int(point["data-row"])]
        assert unquote(point["href"]) == row["runs"][0]["folder"] + "/"
        assert point["aria-label"].startswith(row["pruner"])


def test_a_report_is_linked_only_where_there_is_one(comparison):
    folder = comparison["rows"][1]["runs"][2]["folder"]
    tree = Tree(page.render(comparison, [folder]))

    links = {attrs["href"] for attrs, _ in tree.all("a")}
    assert {link for link in links if link.endswith("report.html")} == {f"{folder}/report.html"}


def test_every_picture_says_in_words_what_it_shows(tree):
    pictures = [attrs for attrs, _ in tree.all("svg")]

    assert len(pictures) > 20
    assert all(attrs.get("aria-label") or attrs.get("aria-hidden") == "true" for attrs in pictures)


@pytest.mark.parametrize(
    ("folder", "address"),
    [
        ("runs/a-s0", "runs/a-s0/"),
        ("javascript:alert(1)", "javascript%3Aalert%281%29/"),
        ("//elsewhere/x", "elsewhere/x/"),
        ("a b#c?d", "a%20b%23c%3Fd/"),
        ("", None),
        (None, None),
    ],
)
def test_a_folder_becomes_a_relative_address_and_nothing_else(folder, address):
    assert svg.link(folder) == address


def test_an_unfinished_comparison_is_drawn_as_far_as_it_came(comparison):
    waiting = {"status": "waiting", "error": None, "numbers": None, "folder": None}
    rows = [
        row | {"status": "running", "error": None, "measures": {}, "runs": [run | waiting for run in row["runs"]]}
        for row in comparison["rows"]
    ]
    tables = [table | {"reference": None, "differences": {}} for table in comparison["tables"]]
    tree = Tree(page.render(comparison | {"status": "interrupted", "rows": rows, "tables": tables, "overall": []}))

    assert "This comparison is interrupted" in " ".join(text for _, text in tree.all("p"))
    assert not [attrs for attrs, _ in tree.all("a") if "point" in (attrs.get("class") or "")]
    assert len([1 for attrs, _ in tree.all("tr") if "failed" in (attrs.get("class") or "")]) > 50


def test_one_run_each_and_absent_numbers_are_drawn(comparison):
    case = json.loads(json.dumps(comparison))
    for row in case["rows"]:
        for measure in row["measures"].values():
            measure |= {"low": None, "high": None, "sd": None, "n": 1}
        row["measures"].pop("peak_memory_mib", None)
        row["measures"].pop("synops", None)
    for table in case["tables"]:
        for difference in table["differences"].values():
            difference |= dict.fromkeys(("low", "high", "p", "p_holm"))
            difference |= {"verdict": "not tested", "reason": "one seed"}
    text = page.render(case | {"commit": None})

    assert "one seed" in text
    assert "None" not in re.sub(r"<script.*?</script>", "", text, flags=re.S)


def colours():
    """The palette of both schemes."""
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.S)
    read = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in (light, dark)]
    return {"light": read[0], "dark": read[0] | read[1]}


def contrast(first, second):
    """WCAG 2.2: the ratio of relative luminances."""

    def luminance(colour):
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_the_contrast_of_black_and_white_is_21():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_and_marks_stand_out_from_the_ground_in_both_schemes(scheme):
    palette = colours()[scheme]

    for word in ("ink", "muted", "accent", "good", "bad"):
        for ground in ("page", "card"):
            assert contrast(palette[word], palette[ground]) >= 4.5, (word, ground)
    for mark in ("s1", "s2", "s3", "s4", "s5", "s6", "sd", "level"):
        assert contrast(palette[mark], palette["card"]) >= 3, mark
