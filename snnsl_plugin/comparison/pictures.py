"""The pictures beside a comparison, for pages and papers: SVG and PNG on a light ground that any page can carry."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from snnsl_plugin.comparison import scales, wording
from snnsl_plugin.comparison.judgement import missed
from snnsl_plugin.comparison.scales import Scale
from snnsl_plugin.comparison.wording import Comparison, Row, Table, host_of, measure

_INK, _MUTED, _GRID, _GROUND = "#18212b", "#5b6673", "#e4e8ec", "#ffffff"
#: the page's light palette, and a marker of its own for each host
_KNOWN = {
    "snnsl": ("#2563eb", "o"),
    "nni": ("#c2410c", "s"),
    "torch_pruning": ("#0d9488", "^"),
    "torch": ("#be185d", "D"),
    "dense": ("#64748b", "_"),
}
_OTHERS = (("#7c3aed", "X"), ("#4d7c0f", "P"))
#: where a picture has no more pruners than these, each has its own
_EACH = (*(style for host, style in _KNOWN.items() if host != "dense"), *_OTHERS)
_RC: dict[Any, Any] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "snnsl",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _MUTED,
    "axes.facecolor": _GROUND,
    "figure.facecolor": _GROUND,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "xtick.color": _MUTED,
    "ytick.color": _INK,
    "legend.frameon": False,
}
_LINE = 0.21
_SYNOPS = dict.fromkeys(wording.KEPT, ("synops", "SynOps per sample"))


def draw(comparison: Comparison) -> Iterator[tuple[str, bytes]]:
    """Every picture of a comparison as (file name, content): each as SVG and as PNG, the same bytes each time.

    One `TASK-BUDGET` per task and budget: a line for each pruner, the best first, structured ones apart. Per task
    `TASK-accuracy-over-density`, which for whole channels counts weights on a live path, as their budget does, and
    `TASK-accuracy-over-synops`: each of up to six pruners has a colour and a marker of its own; where there are more,
    each host has. What has no number yet has no picture.

    Args:
        comparison: what `comparison.json` holds.
    """
    styles = _styles(comparison)
    for task, budget, tables in wording.blocks(comparison):
        figure = _dots(comparison, tables, styles)
        if figure is not None:
            yield from _files(f"{task}-{budget['kind']}-{budget['value']:g}", figure)
    for task in comparison["tasks"]:
        for name, across in (("density", wording.KEPT), ("synops", _SYNOPS)):
            figure = _curves(comparison, task["name"], across, styles)
            if figure is not None:
                yield from _files(f"{task['name']}-accuracy-over-{name}", figure)


def _styles(comparison: Comparison) -> dict[str, tuple[str, str]]:
    others = sorted({host_of(row) for row in comparison["rows"]} - set(_KNOWN))
    return _KNOWN | {host: _OTHERS[number % len(_OTHERS)] for number, host in enumerate(others)}


def _dots(comparison: Comparison, tables: Sequence[Table], styles: dict[str, tuple[str, str]]) -> Figure | None:
    """The dot plots of one task and budget, one above the other over one accuracy axis."""
    dense = wording.dense_of(comparison, tables[0]["task"])
    dense = dense if dense and measure(dense, "accuracy") is not None else None
    listed = [(table, ([dense] if dense else []) + wording.rows_of(comparison, table)) for table in tables]
    scored = [row for _, rows in listed for row in rows if measure(row, "accuracy") is not None]
    if not scored:
        return None
    scale = scales.of_accuracy(scored)
    sizes = [len(rows) for _, rows in listed]
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(7.4, _LINE * sum(sizes) + 0.5 * len(sizes) + 0.9), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(listed), 1, sharex=True, squeeze=False, height_ratios=sizes)[:, 0]
        for axes, (table, rows) in zip(panels, listed, strict=True):
            _panel(axes, table, rows, dense, scale, styles)
        task, budget = tables[0]["task"], wording.budget_words(tables[0]["budget"])
        figure.suptitle(f"{task}, {budget}", x=0.01, ha="left", fontsize=11, fontweight="bold")
        seeds, confidence = len(comparison["terms"]["seeds"]), comparison["terms"]["confidence"]
        panels[-1].set_xlabel(f"accuracy ({comparison['judge']}), mean of {seeds} seeds, {confidence:.0%} interval")
        _legend(figure, {host_of(row) for row in scored}, styles)
    return figure


def _panel(
    axes: Axes, table: Table, rows: Sequence[Row], dense: Row | None, scale: Scale, styles: dict[str, tuple[str, str]]
) -> None:
    for line, row in enumerate(rows):
        mean, (colour, shape) = measure(row, "accuracy"), styles[host_of(row)]
        if mean is None:
            axes.annotate(row["status"], (0.01, line), xycoords=("axes fraction", "data"), va="center", color=_MUTED)
            continue
        if row is dense or row["pruner"] == table["reference"]:
            axes.axvline(max(mean, scale.low), color=colour, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        _interval(axes, row, colour, line, scale, across=True)
        shape, x = ("<", scale.low) if mean < scale.low else (shape, mean)
        axes.plot(
            [x], [line], shape, color=colour, markersize=5.5, markeredgewidth=2 if shape == "_" else 0.5, clip_on=False
        )
        axes.annotate(
            wording.mean_and_half_width(row), (1.01, line), xycoords=("axes fraction", "data"), va="center", fontsize=8
        )
    axes.set_yticks(range(len(rows)), [_name(row, table) for row in rows])
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row["pruner"] == table["reference"] else "normal")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(scale.low, scale.high)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.xaxis.set_major_formatter(FuncFormatter(_percent))
    axes.set_title(table["kind"], loc="left", fontsize=9, color=_MUTED)


def _name(row: Row, table: Table) -> str:
    star = "★ " if row["pruner"] == table["reference"] else ""
    return f"{star}{row['pruner']}{' (budget missed)' if missed(row) else ''}"


def _curves(
    comparison: Comparison, task: str, across: Mapping[str, tuple[str, str]], styles: dict[str, tuple[str, str]]
) -> Figure | None:
    """Accuracy over a measure of each kind of pruner, the kinds side by side; None where no row has both numbers."""
    panels: dict[str, list[Row]] = {}
    for kind, (key, _) in across.items():
        own = [row for row in comparison["rows"] if (row["task"], row["kind"]) == (task, kind)]
        own = [row for row in own if (measure(row, key) or 0.0) > 0 and measure(row, "accuracy") is not None]
        if own:
            panels[kind] = own
    rows = [row for own in panels.values() for row in own]
    if not rows:
        return None
    dense = wording.dense_of(comparison, task)
    scale = scales.of_accuracy([*rows, *([dense] if dense else [])])
    pruners = dict.fromkeys(row["pruner"] for row in rows)
    whose: Callable[[Row], str] = host_of
    if len(pruners) <= len(_EACH):
        whose, styles = itemgetter("pruner"), dict(zip(pruners, _EACH, strict=False)) | {"dense": styles["dense"]}
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(4.6 * len(panels) + 0.6, 3.9), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, kind in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
            key, words = across[kind]
            for pruner in dict.fromkeys(row["pruner"] for row in panels[kind]):
                own = [row for row in panels[kind] if row["pruner"] == pruner]
                own.sort(key=lambda row: measure(row, key) or 0.0)
                _trail(axes, own, key, scale, styles[whose(own[0])])
            level = measure(dense, "accuracy") if dense else None
            if level is not None:
                axes.axhline(level, color=styles["dense"][0], linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
            axes.set_xscale("log")
            places = scales.around([measure(row, key) or 0.0 for row in panels[kind]], log=True)
            axes.set_xlim(places.low, places.high)
            axes.set_xticks(places.ticks(), [wording.compact(tick) for tick in places.ticks()])
            axes.minorticks_off()
            axes.set_ylim(scale.low, scale.high)
            axes.yaxis.set_major_formatter(FuncFormatter(_percent))
            axes.set_xlabel(words)
            axes.set_title(kind, loc="left", fontsize=9, color=_MUTED)
        words = next(iter(across.values()))[1]
        figure.suptitle(f"{task}: accuracy over {words}", x=0.01, ha="left", fontsize=11, fontweight="bold")
        _legend(figure, {whose(row) for row in rows} | ({"dense"} if dense else set()), styles)
    return figure


def _trail(axes: Axes, rows: Sequence[Row], key: str, scale: Scale, style: tuple[str, str]) -> None:
    colour, shape = style
    places = [measure(row, key) or 0.0 for row in rows]
    means = [max(measure(row, "accuracy") or 0.0, scale.low) for row in rows]
    axes.plot(places, means, color=colour, linewidth=1, alpha=0.45)
    for place, mean, row in zip(places, means, rows, strict=True):
        below = (measure(row, "accuracy") or 0.0) < scale.low
        axes.plot([place], [mean], "v" if below else shape, color=colour, markersize=4.5, clip_on=False)
        _interval(axes, row, colour, place, scale, across=False)


def _interval(axes: Axes, row: Row, colour: str, place: float, scale: Scale, *, across: bool) -> None:
    low, high = measure(row, "accuracy", "low"), measure(row, "accuracy", "high")
    if low is None or high is None:
        return
    ends = [min(max(end, scale.low), scale.high) for end in (low, high)]
    axes.plot(*(ends, [place, place]) if across else ([place, place], ends), color=colour, linewidth=1.4, alpha=0.75)


def _legend(figure: Figure, names: set[str], styles: dict[str, tuple[str, str]]) -> None:
    shown = [name for name in styles if name in names]
    handles = [
        Line2D([], [], color=colour, marker=shape, linestyle="", label=name, markeredgewidth=2 if shape == "_" else 0.5)
        for name in shown
        for colour, shape in [styles[name]]
    ]
    for columns in range(min(len(shown), 5), 0, -1):
        legend = figure.legend(handles=handles, loc="outside lower left", ncols=columns, fontsize=8, handletextpad=0.1)
        if legend.get_window_extent().width <= figure.bbox.width or columns == 1:
            return
        legend.remove()


def _percent(value: float, _: object = None) -> str:
    return f"{100 * value:.4g} %"


def _files(name: str, figure: Figure) -> Iterator[tuple[str, bytes]]:
    stem = re.sub(r"[^\w.-]+", "-", name)
    with matplotlib.rc_context(_RC):
        for suffix, metadata in (
            ("svg", dict.fromkeys(("Date", "Creator", "Format", "Type"))),
            ("png", {"Software": None}),
        ):
            out = io.BytesIO()
            figure.savefig(out, format=suffix, dpi=160, metadata=metadata)
            yield f"{stem}.{suffix}", out.getvalue()
