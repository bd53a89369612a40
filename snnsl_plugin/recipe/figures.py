"""The pictures of a run: SVG whose colours follow the page's light or dark theme, and masks as PNG.

Charts are drawn with matplotlib's object interface, in placeholder colours that are then replaced by CSS variables with
a mid-tone as fallback, so the same file is legible in the report, alone, and on either background.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import matplotlib
import numpy as np
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor

Line: TypeAlias = Mapping[str, Any]

INK, MUTED, GRID = "#010101", "#020202", "#030303"
SERIES = [f"#0a0a{number:02x}" for number in range(1, 9)]
SPARSE, DENSE, BORN, DROPPED = SERIES[0], SERIES[7], SERIES[2], SERIES[1]
_FALLBACK = ["#3b82f6", "#d97706", "#0d9488", "#db2777", "#8b5cf6", "#65a30d", "#ef4444", "#7b8794"]
_VARIABLES = {INK: "var(--ink, #7b8794)", MUTED: "var(--muted, #7b8794)", GRID: "var(--grid, #7b879455)"} | {
    placeholder: f"var(--s{number}, {tone})"
    for number, (placeholder, tone) in enumerate(zip(SERIES, _FALLBACK, strict=True), start=1)
}
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "snnsl",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
_MOST_ROWS, _MOST_COLUMNS = 192, 576
MASK_TONE = (0.231, 0.51, 0.965)


def of_event(lines: Iterable[Line], event: str) -> list[Line]:
    """The journal's lines of one event."""
    return [line for line in lines if line["event"] == event]


def curve(run: Sequence[Line], dense: Sequence[Line], what: str) -> str | None:
    """`loss` or `accuracy` over epochs, of the training (dashed) and the validation part, dense beside sparse.

    Args:
        run: the journal of the run.
        dense: the journal of its dense baseline; may be empty.
        what: the metric's name before the slash.

    Returns:
        SVG, or None if the journal holds no epoch.
    """
    epochs, baseline = of_event(run, "epoch"), of_event(dense, "epoch")
    if not epochs:
        return None

    def draw(axes: Axes) -> None:
        for lines, colour, name in ((baseline, DENSE, "dense"), (epochs, SPARSE, "sparse" if baseline else "run")):
            for part, style in (("validation", "-"), ("train", (0, (2, 2)))):
                points = _points(lines, f"{what}/{part}")
                if points[1]:
                    numbers = [line.get("epoch", number) for number, line in enumerate(lines, 1)][: len(points[1])]
                    dot, label = "o" if len(numbers) == 1 else "", name if style == "-" else ""
                    axes.plot(numbers, points[1], color=colour, linestyle=style, marker=dot, label=label)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if what == "accuracy":
            axes.yaxis.set_major_formatter(FuncFormatter(_percent))

    return svg(draw)


def density(run: Sequence[Line], total: int | None) -> str | None:
    """Density over steps, and connections on a live path as a share of all weights where `total` is known."""
    updates = of_event(run, "mask_update")
    # Between two updates a budget stands still; where a threshold moves at every step, both curves are seen at updates.
    lines = updates or [line for line in of_event(run, "epoch") if "density" in line["metrics"]]
    if not lines:
        return None

    def draw(axes: Axes) -> None:
        steps, values = _points(lines, "density")
        axes.step(steps, values, where="post", color=SPARSE, label="kept")
        steps, live = _points(updates, "connections")
        if total and live:
            share = [count / total for count in live]
            axes.step(steps, share, where="post", color=BORN, linestyle=(0, (2, 2)), label="on a live path")
        axes.set_xlabel("step")
        axes.set_xlim(left=0)
        axes.set_ylim(0, max(values) * 1.04)
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))

    return svg(draw)


def turnover(run: Sequence[Line]) -> str | None:
    """Connections born (up) and dropped (down) at each mask update, all layers together."""
    updates = of_event(run, "mask_update")
    if not updates:
        return None

    def draw(axes: Axes) -> None:
        steps = [line["step"] for line in updates]
        width = 0.75 * min((b - a for a, b in pairwise(steps)), default=1)
        for word, sign, colour in (("born", 1, BORN), ("dropped", -1, DROPPED)):
            counts = [
                sign * sum(v for name, v in line["metrics"].items() if name.startswith(f"{word}/")) for line in updates
            ]
            axes.bar(steps, counts, width=width, color=colour, label=word)
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set_xlabel("step")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):,.0f}"))

    return svg(draw)


def rates(run: Sequence[Line]) -> str | None:
    """Firing rate of each neuron layer over epochs: lines, or a heat map where there are more than eight layers."""
    epochs = of_event(run, "epoch")
    layers = [
        name.removeprefix("rate/") for name in (epochs[0]["metrics"] if epochs else {}) if name.startswith("rate/")
    ]
    if not layers:
        return None
    table = np.array([[line["metrics"].get(f"rate/{layer}", np.nan) for line in epochs] for layer in layers])
    numbers = [line.get("epoch", number) for number, line in enumerate(epochs, 1)]

    def draw_lines(axes: Axes) -> None:
        for layer, row, colour in zip(layers, table, SERIES, strict=False):
            axes.plot(numbers, row, color=colour, marker="o" if len(numbers) == 1 else "", label=layer)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))

    def draw_map(axes: Axes) -> None:
        peak = float(np.nanmax(table)) or 1.0
        pixels = np.concatenate(
            [np.broadcast_to(MASK_TONE, (*table.shape, 3)), np.nan_to_num(table)[..., None] / peak], axis=2
        )
        extent = (numbers[0] - 0.5, numbers[-1] + 0.5, len(layers) - 0.5, -0.5)
        axes.imshow(pixels, aspect="auto", interpolation="nearest", extent=extent)
        axes.set_yticks(range(len(layers)), layers, fontsize=6.5)
        axes.grid(False)
        axes.set_title(f"full colour = {peak:.1%} per step", fontsize=8, loc="left", color=MUTED)

    def draw(axes: Axes) -> None:
        (draw_lines if len(layers) <= len(SERIES) else draw_map)(axes)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return svg(draw, height=2.8 if len(layers) <= len(SERIES) else max(2.8, 0.16 * len(layers) + 0.8))


def energy(parts: Mapping[str, Mapping[str, float]]) -> str | None:
    """The energy model's parts as stacked bars, one bar a network, in nJ per sample.

    Args:
        parts: by network name ("dense", "sparse"), each an `energy_pj_per_sample`.
    """
    parts = {name: energies for name, energies in parts.items() if energies}
    if not parts:
        return None
    words = {"input_times_T": "input layer x T", "mac": "other MACs", "ac": "accumulates", "neuron": "neurons"}

    def draw(axes: Axes) -> None:
        left = np.zeros(len(parts))
        for (key, label), colour in zip(words.items(), (SERIES[1], SERIES[3], SERIES[0], SERIES[2]), strict=True):
            sizes = np.array([energies.get(key, 0.0) / 1000 for energies in parts.values()])
            if sizes.any():
                axes.barh(list(parts), sizes, left=left, color=colour, height=0.55, label=label)
            left += sizes
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.set_xlabel("nJ per sample (a model)")
        axes.xaxis.set_major_locator(MaxNLocator(5))

    return svg(draw, height=1.9 if len(parts) > 1 else 1.5)


def mask_png(mask: Tensor) -> bytes:
    """A mask as a PNG with a transparent ground: rows are output channels, columns input channels x kernel.

    Args:
        mask: bool, (out, ...). Larger than 192 x 576, several weights share a pixel, whose opacity is their density
            relative to the densest pixel.
    """
    flat = mask.detach().cpu().float().flatten(1) if mask.dim() > 1 else mask.detach().cpu().float()[None]
    size = (min(flat.shape[0], _MOST_ROWS), min(flat.shape[1], _MOST_COLUMNS))
    share = F.adaptive_avg_pool2d(flat[None, None], size)[0, 0].numpy()
    alpha = share / max(float(share.max()), 1e-9)
    pixels = np.concatenate([np.broadcast_to(MASK_TONE, (*alpha.shape, 3)), alpha[..., None]], axis=2)
    out = io.BytesIO()
    imsave(out, pixels, format="png")
    return out.getvalue()


def _points(lines: Iterable[Line], name: str) -> tuple[list[int], list[float]]:
    found = [(line["step"], line["metrics"][name]) for line in lines if name in line["metrics"]]
    return [step for step, _ in found], [value for _, value in found]


def _percent(value: float, _: object = None) -> str:
    return f"{100 * value:.3g} %"


def svg(draw: Any, *, height: float = 2.8) -> str:
    """A picture in the page's colours.

    Args:
        draw: is given the axes, and draws in the colours of this module.
        height: in inches; the width is 4.8.
    """
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(4.8, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        draw(axes)
        handles, labels = axes.get_legend_handles_labels()
        if labels:
            figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), 4), fontsize=8)
        out = io.StringIO()
        figure.savefig(
            out, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    text = out.getvalue()
    text = text[text.index("<svg") :]
    for placeholder, variable in _VARIABLES.items():
        text = text.replace(placeholder, variable)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", text)
    # matplotlib fixes the size in points; without it the picture fits its column.
    head = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="\\1">'
    return re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', head, text, count=1)
