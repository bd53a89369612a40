"""The part of a report that shows an evolution: what moved from one generation to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from snnsl_plugin.recipe import figures

Generation = Mapping[str, Any]
#: The columns of the table: title, and the cell of a candidate that is finished.
COLUMNS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "validation": lambda row: f"{100 * row['accuracy']:.2f} %",
    "connections": lambda row: f"{row['connections']:,}",
    "density": lambda row: f"{100 * row['density']:.2f} %",
    "SynOps": lambda row: f"{row['synops_per_sample']:,.0f}",
    "depth": lambda row: str(row["depth"]),
    "blocks": lambda row: f"{row['blocks'] - len(row['dead_blocks'])} of {row['blocks']}" if row["blocks"] else "-",
}


def table(generations: list[Generation]) -> list[tuple[str, ...]]:
    """A line a candidate: its name, with a star on those that were chosen, and the cells of `COLUMNS`."""
    lines = []
    for generation in generations:
        for number, row in enumerate(generation["candidates"]):
            name = f"{generation['generation']}.{number}" + (" *" if number == generation["best"] else "")
            if row["status"] == "finished":
                lines.append((name, *(cell(row) for cell in COLUMNS.values())))
            else:
                lines.append((name, f"failed: {row['error']}", *("" for _ in list(COLUMNS)[1:])))
    return lines


def dead_blocks(generations: list[Generation]) -> list[str]:
    """A sentence for each residual block without a live connection in the network that was chosen last."""
    if not generations:
        return []
    last = generations[-1]
    found = last["candidates"][last["best"]]["dead_blocks"]
    return [
        f"{name} has no live connection; given random spikes, it gives "
        + ("exactly these: it is an identity" if same else "something else: it is no identity")
        for name, same in found.items()
    ]


def charts(generations: list[Generation]) -> dict[str, tuple[str, str, str]]:
    """SVG, title and note of each picture, by the word of its file; none before a generation is over."""
    if not generations:
        return {}
    best = [generation["candidates"][generation["best"]] for generation in generations]
    return {
        "generations-accuracy": (
            _moving(generations, best, "accuracy", 100.0, "validation accuracy, %"),
            "Accuracy",
            "validation part; the line joins the networks that were chosen",
        ),
        "generations-connections": (
            _moving(generations, best, "connections", 1.0, "connections on a live path"),
            "Connections",
            "the line joins the networks that were chosen",
        ),
        "generations-synops": (
            _moving(generations, best, "synops_per_sample", 1.0, "SynOps per sample"),
            "SynOps",
            "validation part; the line joins the networks that were chosen",
        ),
        "generations-depth": (_depth(best), "Depth", "longest chain of layers, and residual blocks that are alive"),
        "generations-layers": (_layers(best), "Density of each layer", "of the networks that were chosen, in %"),
    }


def _moving(generations: list[Generation], best: list[Any], key: str, scale: float, label: str) -> str:
    def draw(axes: Axes) -> None:
        numbers = [generation["generation"] for generation in generations]
        axes.plot(numbers, [scale * row[key] for row in best], color=figures.SPARSE, zorder=2)
        for generation in generations:
            for number, row in enumerate(generation["candidates"]):
                if row["status"] != "finished":
                    continue
                chosen = number == generation["best"]
                colour = figures.SPARSE if chosen else figures.DENSE
                axes.scatter(generation["generation"], scale * row[key], s=46 if chosen else 24, color=colour, zorder=3)
        if key != "accuracy":
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_ylabel(label)
        _over_generations(axes)

    return figures.svg(draw)


def _depth(best: list[Any]) -> str:
    def draw(axes: Axes) -> None:
        numbers = range(len(best))
        axes.plot(numbers, [row["depth"] for row in best], color=figures.SPARSE, marker="o", label="layers deep")
        if any(row["blocks"] for row in best):
            alive = [row["blocks"] - len(row["dead_blocks"]) for row in best]
            axes.plot(numbers, alive, color=figures.BORN, marker="s", linestyle=(0, (2, 2)), label="residual blocks")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        _over_generations(axes)

    return figures.svg(draw)


def _layers(best: list[Any]) -> str:
    names = list(best[0]["layers"])
    shares = np.array([[row["layers"][name] for row in best] for name in names])

    def draw(axes: Axes) -> None:
        tone = np.broadcast_to(figures.MASK_TONE, (*shares.shape, 3))
        # By the square root, so that layers of 2 % and of 5 % are told apart beside full ones.
        axes.imshow(np.concatenate([tone, np.sqrt(shares)[..., None]], axis=2), aspect="auto", interpolation="nearest")
        axes.set_yticks(range(len(names)), names, fontsize=8 if len(names) <= 12 else 6)
        if shares.size <= 80:
            for (row, column), share in np.ndenumerate(shares):
                axes.text(column, row, f"{100 * share:.3g}", ha="center", va="center", fontsize=8)
        axes.grid(False)
        _over_generations(axes)

    return figures.svg(draw, height=max(1.6, 0.8 + (0.32 if len(names) <= 12 else 0.17) * len(names)))


def _over_generations(axes: Axes) -> None:
    axes.set_xlabel("generation")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
