"""The report of a run: one HTML file that needs nothing beside it, drawn from the files of the run folder."""

from __future__ import annotations

import base64
import json
import os
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from safetensors import SafetensorError, safe_open
from torch import Tensor

from snnsl_plugin.errors import BadCheckpoint, BadData, MissingData
from snnsl_plugin.metrics.definitions import DEFINITIONS
from snnsl_plugin.recipe import evolution_report, figures
from snnsl_plugin.tracking.journal import read

Result: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Picture:
    """One figure of the report: its title, its alternative text, what is seen, and the markup."""

    title: str
    alt: str
    markup: Markup
    note: str = ""


def write(run_dir: Path) -> Path:
    """Draws `RUN_DIR/figures/` and writes `RUN_DIR/report.html`, each file all or nothing.

    Draws what is there: a run that failed or still goes on has no table, but its curves.

    Args:
        run_dir: a run folder with `result.json`, `metrics.jsonl` or both.

    Returns:
        The path of the report.

    Raises:
        MissingData: the folder holds neither.
        BadData: one of them is damaged.
        BadCheckpoint: the checkpoint is damaged.
    """
    result, run, dense = _result(run_dir), _journal(run_dir), _journal(run_dir / "dense")
    if not result and not run:
        raise MissingData(
            f"{run_dir} holds neither result.json nor metrics.jsonl, so it is no run folder; give RUN_DIR"
        )
    order = list((result.get("density") or {}).get("layers", {}))
    masks = _masks(run_dir / "checkpoint.safetensors", order)
    (run_dir / "figures").mkdir(exist_ok=True)
    baseline = result.get("dense") or {}
    page = _environment().get_template("report.html.jinja").render(
        result=result,
        name=result.get("recipe") or result.get("name") or run_dir.resolve().name,
        status=result.get("status", "unfinished"),
        error=result.get("error", ""),
        cards=_cards(result, baseline) if "accuracy" in result else [],
        rows=_rows(result, baseline) if "accuracy" in result else [],
        dense=bool(baseline),
        charts=_charts(run_dir, run, dense, result, baseline),
        evolution=_evolution(run_dir, (result.get("evolution") or {}).get("generations", [])),
        masks=_mask_pictures(run_dir, masks),
        layers=_layers(result),
        neurons=_neurons(result),
        definitions=DEFINITIONS,
        recipe=(run_dir / "recipe.yaml").read_text("utf-8") if (run_dir / "recipe.yaml").is_file() else "",
    )  # fmt: skip
    _put(run_dir / "report.html", page.encode())
    return run_dir / "report.html"


# ---- what is on the page --------------------------------------------------


def _charts(
    run_dir: Path, run: list[figures.Line], dense: list[figures.Line], result: Result, baseline: Result
) -> list[Picture]:
    total = (result.get("density") or {}).get("weights", {}).get("total")
    energies = {"dense": baseline.get("energy_pj_per_sample") or {}, "sparse": result.get("energy_pj_per_sample") or {}}
    drawn = {
        "accuracy": (figures.curve(run, dense, "accuracy"), "Accuracy", "solid: validation, dashed: training"),
        "loss": (figures.curve(run, dense, "loss"), "Loss", "solid: validation, dashed: training"),
        "density": (figures.density(run, total), "Density", "share of all weights"),
        "turnover": (figures.turnover(run), "Connections born and dropped", "at each mask update, all layers"),
        "rates": (figures.rates(run), "Firing rate per layer", "validation part, share of neurons per step"),
        "energy": (figures.energy(energies), "Energy", "a model, not a measurement"),
    }
    return [
        _chart(run_dir, word, svg, title, note, _summary(word, run))
        for word, (svg, title, note) in drawn.items()
        if svg is not None
    ]


def _chart(run_dir: Path, word: str, svg: str, title: str, note: str, summary: str) -> Picture:
    _put(run_dir / "figures" / f"{word}.svg", svg.encode())
    alt = f"{title}: {note}. {summary}".strip()
    labelled = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
    return Picture(title, alt, Markup(labelled), note)


def _evolution(run_dir: Path, generations: list[Any]) -> dict[str, Any]:
    """What the page shows of an evolution; empty where the run is none."""
    if not generations:
        return {}
    drawn = evolution_report.charts(generations)
    return {
        "columns": ["candidate", *evolution_report.COLUMNS],
        "table": evolution_report.table(generations),
        "dead": evolution_report.dead_blocks(generations),
        "charts": [_chart(run_dir, word, *each, "The table has the numbers.") for word, each in drawn.items()],
    }


def _summary(word: str, run: list[figures.Line]) -> str:
    """The last value of a chart in words, for those who cannot see it."""
    name = {"accuracy": "accuracy/validation", "loss": "loss/validation", "density": "density"}.get(word)
    values = [line["metrics"][name] for line in run if name in line["metrics"]] if name else []
    return f"From {values[0]:.3f} to {values[-1]:.3f}." if values else ""


def _mask_pictures(run_dir: Path, masks: Mapping[str, Tensor]) -> list[Picture]:
    pictures = []
    for parameter, mask in masks.items():
        layer = parameter.removesuffix(".weight")
        png = figures.mask_png(mask)
        _put(run_dir / "figures" / f"mask-{layer.replace('/', '_')}.png", png)
        kept, shape = int(mask.count_nonzero()), " x ".join(map(str, mask.shape))
        note = f"{shape}, {kept:,} of {mask.numel():,} kept ({kept / max(mask.numel(), 1):.1%})"
        alt = f"Mask of {layer}: {note}; rows are output channels, columns inputs"
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        pictures.append(Picture(layer, alt, Markup('<img src="{}" alt="{}">').format(source, alt), note))
    return pictures


def _cards(result: Result, dense: Result) -> list[tuple[str, str, str]]:
    """The few numbers on top: label, value, what it is compared with."""
    cards = [("test accuracy", _percent(result["accuracy"]["test"]), "")]
    if dense:
        cards[0] = (*cards[0][:2], f"dense {_percent(dense['accuracy']['test'])}")
    weights, live = result["density"]["weights"], result["density"]["connections"]
    cards.append(("density", _percent(weights["achieved"]), f"{_percent(weights['requested'])} requested"))
    cards.append(("live connections", _count(live["live"]), f"of {_count(weights['total'])} weights"))
    for label, key, show in (
        ("SynOps per sample", "synops_per_sample", _count),
        ("energy model", "energy", _nanojoule),
    ):
        value, reference = _get(result, key), _get(dense, key)
        against = f"{value / reference:.2g} x dense" if value is not None and reference else ""
        cards.append((label, show(value), against))
    return cards


def _rows(result: Result, dense: Result) -> list[tuple[str, str, str, str, str]]:
    """The table: definition's key, label, dense, this run, and their ratio where it says something."""
    rows: list[tuple[str, str, Callable[[Any], str], str]] = [
        ("accuracy", "accuracy, test", _percent, "accuracy.test"),
        ("accuracy", "accuracy, test, last epoch", _percent, "accuracy.test_last"),
        ("accuracy", "accuracy, validation", _percent, "accuracy.validation"),
        ("density", "density requested", _percent, "density.weights.requested"),
        ("density", "density achieved", _percent, "density.weights.achieved"),
        ("density", "weights kept", _count, "density.weights.kept"),
        ("connections", "connections on a live path", _count, "density.connections.live"),
        ("connections", "connections reached from the input", _count, "density.connections.forward"),
        ("regrown", "connections regrown", _count, "regrown"),
        ("synops_per_sample", "SynOps per sample", _count, "synops_per_sample"),
        ("macs_per_sample", "MACs per sample", _count, "macs_per_sample"),
        ("energy_pj_per_sample", "energy model per sample", _nanojoule, "energy"),
        ("firing_rate", "firing rate, mean of layers", _percent, "firing_rate"),
        ("silent", "silent neurons, mean of layers", _percent, "silent"),
        ("parameters", "parameters", _count, "parameters.kept"),
        ("seconds_per_epoch", "seconds per epoch", _number, "seconds_per_epoch"),
        ("wall_s", "seconds in all", _number, "wall_s"),
        ("peak_memory_mib", "peak memory, MiB", _count, "peak_memory_mib"),
    ]
    ratios = {"synops_per_sample", "macs_per_sample", "energy", "firing_rate", "density.connections.live",
              "density.weights.kept", "parameters.kept"}  # fmt: skip
    table = []
    for key, label, show, path in rows:
        value, reference = _get(result, path), _get(dense, path)
        ratio = f"{value / reference:.3g} x" if path in ratios and value is not None and reference else ""
        table.append((key, label, show(reference), show(value), ratio))
    return table


def _layers(result: Result) -> list[tuple[str, str, str, str]]:
    layers = (result.get("density") or {}).get("layers", {})
    return [
        (name, _percent(entry["requested"]), _percent(entry["achieved"]), f"{entry['kept']:,} of {entry['total']:,}")
        for name, entry in layers.items()
    ]


def _neurons(result: Result) -> list[tuple[str, str, str]]:
    silent = result.get("silent") or {}
    return [
        (name, _percent(rate), _percent(silent.get(name))) for name, rate in (result.get("firing_rate") or {}).items()
    ]


# ---- numbers as text ------------------------------------------------------


def _get(result: Result, path: str) -> Any:
    """A number of a result by its dotted path; per-layer numbers as their mean; None where there is none."""
    if path == "energy":
        return (result.get("energy_pj_per_sample") or {}).get("total")
    node: Any = result
    for word in path.split("."):
        node = node.get(word) if isinstance(node, Mapping) else None
    if isinstance(node, Mapping):
        return statistics.fmean(node.values()) if node else None
    return node


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}"


def _nanojoule(value: float | None) -> str:
    return "–" if value is None else f"{value / 1000:,.2f} nJ"


# ---- files ----------------------------------------------------------------


def _result(run_dir: Path) -> Result:
    path = run_dir / "result.json"
    try:
        return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}
    except ValueError as error:
        raise BadData(f"{path}: not JSON ({error}); restore it, or remove it to draw the journal alone") from error


def _journal(run_dir: Path) -> list[figures.Line]:
    path = run_dir / "metrics.jsonl"
    return list(read(path)) if path.is_file() else []


def _masks(path: Path, order: list[str]) -> dict[str, Tensor]:
    """The masks of a checkpoint, in the order of the layers where that is known (the file sorts by name)."""
    if not path.is_file():
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith("masks/")]  # noqa: SIM118  (no iterator)
            found = {name.removeprefix("masks/"): file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise BadCheckpoint(
            f"{path}: cannot be read as a checkpoint ({error}); resume the run, or remove it"
        ) from error
    place = {f"{layer}.weight": number for number, layer in enumerate(order)}
    return dict(sorted(found.items(), key=lambda entry: place.get(entry[0], len(place))))


def _put(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
