"""Pictures of a study, from its plain data: the front as we draw it, and Optuna's own plots."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import matplotlib
import optuna
from matplotlib import pyplot
from matplotlib.figure import Figure
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState
from pydantic import TypeAdapter

from snnsl_plugin.recipe.tune_types import AnyParameter
from snnsl_plugin.tuning.ledger import quiet
from snnsl_plugin.tuning.measures import directions
from snnsl_plugin.tuning.proposals import distribution, label

_COLOURS = {"front": "#d1495b", "complete": "#30638e", "beyond a limit": "#9aa5b1", "stopped": "#edae49"}
_STYLE: dict[Any, Any] = {"svg.hashsalt": "snnsl", "svg.fonttype": "none", "font.size": 9.0, "axes.spines.top": False,
          "axes.spines.right": False}  # fmt: skip


def draw(found: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Every picture that the study has enough trials for: file name, title, SVG.

    Args:
        found: the content of `study.json`.
    """
    objectives = list(found["objectives"])
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", UserWarning)  # of layouts and of log axes
        for cost in [name for name in objectives if name != "accuracy"]:
            if "accuracy" in objectives and _points(found):
                yield f"front-{cost}.svg", f"Accuracy against {cost}", _svg(_front(found, cost))
        if len([row for row in found["trials"] if row["state"] == "complete"]) < 2:
            return
        plots = optuna.visualization.matplotlib
        for name in objectives:
            # One at a time: only then does Optuna know which way is good, draw the best so far, and the good dark.
            study = as_study(found, [name])
            for word, title, plot in (
                ("history", f"History of {name}", plots.plot_optimization_history),
                ("importances", f"What decides {name}", plots.plot_param_importances),
                ("parallel", f"Parallel coordinates of {name}", plots.plot_parallel_coordinate),
            ):
                made = _tried(plot, study, name)
                if made:
                    yield f"{word}-{name}.svg", title, made


def as_study(found: Mapping[str, Any], objectives: list[str] | None = None) -> optuna.Study:
    """A study in memory with the trials of `study.json`, for anything of Optuna's that takes one.

    Those that are not complete are failed there, so that every trial keeps its number.

    Args:
        found: the content of `study.json`.
        objectives: some of its objectives; all where omitted.
    """
    objectives = objectives or list(found["objectives"])
    space = TypeAdapter(dict[str, AnyParameter]).validate_python(found["space"])
    with quiet():
        study = optuna.create_study(directions=directions(objectives))
        study.set_metric_names(objectives)
    for row in found["trials"]:  # all of them, so that their numbers stay
        complete = row["state"] == "complete"
        study.add_trial(
            optuna.create_trial(
                state=TrialState.COMPLETE if complete else TrialState.FAIL,
                params={key: label(value) for key, value in row["params"].items()},
                distributions={key: distribution(space[key]) for key in row["params"]},
                values=[row["measures"][name] for name in objectives] if complete else None,
            )
        )
    return study


def _front(found: Mapping[str, Any], cost: str) -> Figure:
    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axes = figure.subplots()
    for kind, points in _points(found).items():
        x, y = [each[cost] for _, each in points], [100 * each["accuracy"] for _, each in points]
        size, marker = (42, "o") if kind == "front" else (24, "x" if kind == "stopped" else "o")
        axes.scatter(x, y, s=size, marker=marker, color=_COLOURS[kind], label=kind, zorder=3 if kind == "front" else 2)
        if kind == "front":
            for number, each in points:
                at = (each[cost], 100 * each["accuracy"])
                axes.annotate(str(number), at, xytext=(4, 4), textcoords="offset points", fontsize=8)
    if min(each[cost] for points in _points(found).values() for _, each in points) > 0:
        axes.set_xscale("log")
    axes.set_xlabel(cost)
    axes.set_ylabel("validation accuracy, %")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _points(found: Mapping[str, Any]) -> dict[str, list[tuple[int, Mapping[str, float]]]]:
    kinds: dict[str, list[tuple[int, Mapping[str, float]]]] = {}
    for row in found["trials"]:
        if not row["measures"] or row["state"] not in ("complete", "stopped"):
            continue
        kind = row["state"]
        if row["number"] in found["front"]:
            kind = "front"
        elif kind == "complete" and max(row["constraints"].values(), default=0.0) > 0:
            kind = "beyond a limit"
        kinds.setdefault(kind, []).append((row["number"], row["measures"]))
    return kinds


def _tried(plot: Callable[..., Any], study: optuna.Study, name: str) -> str | None:
    """One of Optuna's plots as SVG; None where these trials do not make one, e.g. with one value of everything."""
    try:
        axes = plot(study, target_name=name)
    except (ValueError, RuntimeError, ZeroDivisionError):
        return None
    figure = axes.figure
    figure.set_size_inches(8.0, 4.2)
    figure.tight_layout()
    made = _svg(figure)
    pyplot.close(figure)
    return made


def _svg(figure: Any) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
