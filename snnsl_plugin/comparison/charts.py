"""The pictures inside `comparison.html`: SVG whose points are links, drawn here so that they need no script.

Colours are CSS classes, so they follow the page's light or dark scheme; each host also has a marker of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from snnsl_plugin.comparison import scales, wording
from snnsl_plugin.comparison.scales import Scale
from snnsl_plugin.comparison.svg import element, host_class, mark, marker, picture, point, short, text
from snnsl_plugin.comparison.wording import Row, Table, host_of, measure

WIDTH, HEIGHT = 480.0, 320.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 14.0, 16.0, 44.0
_FOOT = HEIGHT - _BOTTOM
_ROW, _PLOT, _VALUES, _LETTER = 21.0, 384.0, 124.0, 7.5
_DODGE = 9.0


@dataclass(frozen=True)
class Measure:
    """What stands on the x axis of a curve: the key of a row's measures, and its words."""

    key: str
    title: str
    log: bool


def measures(kind: str) -> tuple[Measure, ...]:
    """One picture each, in this order; the first is what a density budget of this kind counts."""
    return (
        Measure(*wording.KEPT[kind], log=True),
        Measure("synops", "SynOps per sample", log=True),
        Measure("training_cost", "training cost, x dense", log=False),
        Measure("peak_memory_mib", "peak memory, MiB", log=False),
    )


def curve(
    rows: Mapping[int, Row], dense: tuple[int, Row] | None, what: Measure, hosts: Sequence[str], title: str
) -> Markup | None:
    """Accuracy over a measure, a point with its interval for each row; on a logarithmic axis a line joins a pruner's.

    Over what a density budget counts, where all pruners of a budget meet, points with the same value are set side by
    side, and a bar on the axis spans them.

    Args:
        rows: by their number in the comparison, all of one task and one kind.
        dense: the dense row with its number: a dashed line, and a point where the axis is linear.
        what: the x axis.
        hosts: all hosts but dense, in the order of their colours.
        title: for those who cannot see the picture.

    Returns:
        SVG, or None where no row has both numbers.
    """
    seen = {
        number: row
        for number, row in rows.items()
        if measure(row, what.key) is not None and measure(row, "accuracy") is not None
    }
    if not seen:
        return None
    points = dict(seen)
    # On a logarithmic axis the dense network, ten times away, would press all others together.
    if dense and not what.log and measure(dense[1], what.key) is not None:
        points[dense[0]] = dense[1]
    across = scales.around([float(measure(row, what.key) or 0.0) for row in points.values()], log=what.log)
    upright = scales.of_accuracy([*seen.values(), *([dense[1]] if dense else [])])
    places = {number: _x(across, float(measure(row, what.key) or 0.0)) for number, row in points.items()}
    parts = [_axes(across, upright, what.title)]
    if what.key in {key for key, _ in wording.KEPT.values()}:
        clusters = _clusters(places)
        places = _side_by_side(clusters, points)
        spans = [[places[number] for number in cluster] for cluster in clusters if len(cluster) > 1]
        parts += [
            element("path", {"class": "span", "d": f"M{min(ends):.1f} {_FOOT}H{max(ends):.1f}"}) for ends in spans
        ]
    level = measure(dense[1], "accuracy") if dense else None
    if level is not None:
        y = _y(upright, level)
        parts.append(element("path", {"class": "level", "d": f"M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"}))
        parts.append(text(WIDTH - _RIGHT, y - 4, "dense", "end"))
    if what.log:
        pruners = dict.fromkeys(row["pruner"] for row in seen.values())
        parts += [_trail(pruner, seen, places, upright, hosts) for pruner in pruners]
    parts += [_placed(number, row, places[number], upright, hosts) for number, row in points.items()]
    alt = f"{title}: accuracy over {what.title}, {len(seen)} points; the tables hold the same numbers."
    return picture(WIDTH, HEIGHT, alt, parts)


def dots(table: Table, rows: Mapping[int, Row], dense: tuple[int, Row] | None, hosts: Sequence[str]) -> Markup | None:
    """One line a pruner, best first: its mean accuracy with its interval; dashed lines for the reference and dense.

    Returns:
        SVG, or None where no row has an accuracy.
    """
    lines = dict([dense] if dense else []) | dict(rows)
    scored = [row for row in lines.values() if measure(row, "accuracy") is not None]
    if not scored:
        return None
    scale, height = scales.of_accuracy(scored), 14 + _ROW * len(lines) + 40
    bottom = height - 40
    left = 36 + _LETTER * max(len(short(row["pruner"])) for row in lines.values())
    right, width = left + _PLOT, left + _PLOT + _VALUES

    def place(value: float) -> float:
        return left + (right - left) * scale.share(value)

    parts: list[Markup] = []
    for tick in scale.ticks(5):
        parts.append(element("path", {"class": "grid", "d": f"M{place(tick):.1f} 8V{bottom:.1f}"}))
        parts.append(text(place(tick), bottom + 17, f"{100 * tick:.4g} %", "middle"))
    parts.append(text((left + right) / 2, height - 6, "accuracy", "middle"))
    for row in lines.values():
        level = measure(row, "accuracy")
        if level is not None and (row["kind"] == "dense" or row["pruner"] == table["reference"]):
            parts.append(element("path", {"class": "level", "d": f"M{place(level):.1f} 8V{bottom:.1f}"}))
    for line, (number, row) in enumerate(lines.items()):
        y = 14 + _ROW * (line + 0.5)
        star = "★ " if row["pruner"] == table["reference"] else ""
        parts.append(text(left - 12, y + 4, star + short(row["pruner"]), "end", "name"))
        mean = measure(row, "accuracy")
        if mean is None:
            parts.append(text(left + 8, y + 4, row["status"], "start"))
            continue
        parts.append(text(right + 12, y + 4, wording.mean_and_half_width(row), "start", "name"))
        low, high = measure(row, "accuracy", "low"), measure(row, "accuracy", "high")
        bar = f"M{place(low):.1f} {y:.1f}H{place(high):.1f}" if low is not None and high is not None else ""
        shape = element("path", {"class": "halo", "d": f"M{place(mean) - 11:.1f} {y - 10:.1f}h22v20h-22z"})
        shape += mark(bar, "M3-5L-6 0L3 5Z" if mean < scale.low else marker(host_of(row), hosts), place(mean), y)
        parts.append(point(number, row, shape, hosts))
    where = f"{table['task']}, {wording.budget_words(table['budget'])}, {table['kind']}"
    alt = f"Mean accuracy with interval of each pruner on {where}, best first; the table holds the same numbers."
    return picture(width, height, alt, parts, wide=True)


# ---- parts of a picture ---------------------------------------------------


def _x(scale: Scale, value: float) -> float:
    return _LEFT + 10 + (WIDTH - _LEFT - _RIGHT - 20) * scale.share(value)


def _y(scale: Scale, value: float) -> float:
    return _TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - scale.share(value))


def _clusters(places: Mapping[int, float]) -> list[dict[int, float]]:
    """Points less than 4 units from the first of their group, group by group from left to right."""
    found: list[dict[int, float]] = []
    for number in sorted(places, key=lambda number: places[number]):
        if found and places[number] - next(iter(found[-1].values())) < 4:
            found[-1][number] = places[number]
        else:
            found.append({number: places[number]})
    return found


def _side_by_side(clusters: Sequence[Mapping[int, float]], rows: Mapping[int, Row]) -> dict[int, float]:
    """Spreads each cluster around its middle, the most accurate first, within the free space."""
    middles = [sum(cluster.values()) / len(cluster) for cluster in clusters]
    gaps = [right - left for left, right in pairwise(middles)]
    spread: dict[int, float] = {}
    for place, (cluster, middle) in enumerate(zip(clusters, middles, strict=True)):
        free = min([WIDTH - _LEFT - _RIGHT - 20, *(0.8 * gap for gap in gaps[max(place - 1, 0) : place + 1])])
        step = min(_DODGE, free / len(cluster))
        reach = step * (len(cluster) - 1) / 2
        middle = min(max(middle, _LEFT + 8 + reach), WIDTH - _RIGHT - 8 - reach)
        order = sorted(cluster, key=lambda number: -(measure(rows[number], "accuracy") or 0.0))
        spread |= {number: middle - reach + step * turn for turn, number in enumerate(order)}
    return spread


def _axes(across: Scale, upright: Scale, title: str) -> Markup:
    parts = []
    for tick in upright.ticks():
        y = _y(upright, tick)
        parts.append(element("path", {"class": "grid", "d": f"M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"}))
        parts.append(text(_LEFT - 6, y + 4, f"{100 * tick:.4g} %", "end"))
    for tick in across.ticks():
        x = _x(across, tick)
        parts.append(element("path", {"class": "grid", "d": f"M{x:.1f} {_FOOT}v5"}))
        parts.append(text(x, _FOOT + 18, wording.compact(tick), "middle"))
    parts.append(element("path", {"class": "axis", "d": f"M{_LEFT} {_FOOT}H{WIDTH - _RIGHT}"}))
    kind = ", log scale" if across.log else ""
    parts.append(text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 6, title + kind, "middle"))
    return Markup("").join(parts)


def _trail(
    pruner: str, rows: Mapping[int, Row], places: Mapping[int, float], upright: Scale, hosts: Sequence[str]
) -> Markup:
    """The line through a pruner's budgets; nothing where it has but one."""
    own = sorted(
        (places[n], float(measure(row, "accuracy") or 0.0), host_of(row))
        for n, row in rows.items()
        if row["pruner"] == pruner
    )
    if len(own) < 2:
        return Markup("")
    path = "M" + "L".join(f"{x:.1f} {_y(upright, mean):.1f}" for x, mean, _ in own)
    host = own[0][2]
    return element(
        "path", {"class": f"trail {host_class(host, hosts)}", "data-host": host, "data-pruner": pruner, "d": path}
    )


def _placed(number: int, row: Row, x: float, upright: Scale, hosts: Sequence[str]) -> Markup:
    mean = float(measure(row, "accuracy") or 0.0)
    low, high = measure(row, "accuracy", "low"), measure(row, "accuracy", "high")
    y = _y(upright, mean)
    bar = f"M{x:.1f} {_y(upright, low):.1f}V{_y(upright, high):.1f}" if low is not None and high is not None else ""
    shape = element("path", {"class": "halo", "d": f"M{x - 8:.1f} {y - 8:.1f}h16v16h-16z"})
    shape += mark(bar, "M-5-3L0 6L5-3Z" if mean < upright.low else marker(host_of(row), hosts), x, y)
    return point(number, row, shape, hosts)
