"""Rows of a comparison in; their measures, the judged tables and the overall ranks out, as plain data.

A verdict needs equal terms, so three kinds of rows get none: a failed one, for the seeds it survived may be the easy
ones; one with runs still open, or a comparison could be stopped at the moment it looks best; and one that missed its
budget, for more weights are an advantage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from snnsl_plugin.comparison import statistics
from snnsl_plugin.errors import BadData, BadOption

Row = Mapping[str, Any]


def measures(runs: Sequence[Row], confidence: float = 0.95) -> dict[str, dict[str, Any]]:
    """Mean, t interval, standard deviation and n of every number that a finished run has.

    Args:
        runs: a row's runs: `seed`, `status`, and `numbers` (or None) for each.
        confidence: of the interval, in (0, 1).

    Returns:
        Key -> `mean`, `low`, `high`, `sd`, `n`, in the order the keys first appear; all None and n = 0 for a key
        that no run has a number for. Empty where no run finished.

    Raises:
        BadData: a number that is not finite.
    """
    found = [run for run in runs if run["status"] == "finished" and run["numbers"]]
    answer: dict[str, dict[str, Any]] = {}
    for key in dict.fromkeys(key for run in found for key in run["numbers"]):
        values = [_finite(run, key) for run in found if run["numbers"].get(key) is not None]
        answer[key] = dict(statistics.summary(values, confidence)) if values else dict(_UNKNOWN)
    return answer


def tables(
    rows: Sequence[Row],
    pruners: Sequence[Row],
    references: Sequence[str],
    terms: Row,
    resolution_by_task: Mapping[str, float],
) -> list[dict[str, Any]]:
    """One judged table for each task, kind and budget, in the order in which the rows first name them.

    Every other row is compared with the table's reference: the first of `references` that met its budget, did not
    fail and has a finished run there. All tests of one table are one family for Holm's correction. An interval is that
    of its one difference, without the correction: it may leave out zero where the verdict is "inside the noise".

    Two rows planned with common seeds are paired over those that finished in both; two planned with disjoint seeds
    are compared by Welch's test.

    Args:
        rows: `task`, `pruner`, `kind`, `budget`, `status`, `error`, `strength`, `runs` of each.
        pruners: `name` and `seeds` (None: the terms' seeds) of every pruner with a row.
        references: names of pruners, the preferred one first.
        terms: `seeds`, `alpha`, `confidence`, `power`.
        resolution_by_task: task -> the step of its accuracy, 1 / (number of samples that judge).

    Returns:
        For each table `task`, `kind`, `budget`, `reference`, `order` (best mean accuracy first, equal ones by name;
        then the rows that missed the budget, the failed ones, those without any finished run), `differences`, `dense`
        (dense minus reference, without a verdict, or None) and `power`. A difference without a verdict has a `reason`;
        one over fewer seeds than planned says so there.

    Raises:
        BadData: an accuracy that is not finite.
        BadOption: a pruner that is not in `pruners` or stands twice in a table, a seed that stands twice in a row, or
            a task without a resolution.
    """
    planned = {pruner["name"]: frozenset(pruner.get("seeds") or terms["seeds"]) for pruner in pruners}
    dense = {row["task"]: row for row in reversed(rows) if row["kind"] == "dense"}
    answer = []
    for block, table in _blocks(rows).items():
        task, kind = block[:2]
        unknown = sorted({row["pruner"] for row in table} - planned.keys())
        if unknown or task not in resolution_by_task:
            raise BadOption(
                f"task {task}: pass its resolution, and the entries of {', '.join(unknown) or 'its pruners'}"
            )
        ordered = sorted(table, key=_place)
        usable = {row["pruner"]: row for row in ordered if _place(row)[0] == 0}
        reference = next((usable[name] for name in references if name in usable), None)
        compared = partial(
            _difference, reference=reference, planned=planned, terms=terms, resolution=resolution_by_task[task]
        )
        others = [row for row in ordered if row is not reference]
        differences = _with_verdicts({row["pruner"]: compared(row) for row in others}, terms["alpha"])
        to_dense = compared(dense[task]) if task in dense else {"mean": None}
        answer.append(
            {
                "task": task,
                "kind": kind,
                "budget": table[0]["budget"],
                "reference": reference and reference["pruner"],
                "order": [row["pruner"] for row in ordered],
                "differences": differences,
                "dense": None
                if to_dense["mean"] is None
                else {key: to_dense[key] for key in ("mean", "low", "high", "n")},
                "power": _power(differences, terms),
            }
        )
    return answer


def overall(tables: Sequence[Row], rows: Sequence[Row], alpha: float = 0.05) -> list[dict[str, Any]]:
    """Mean ranks over blocks (task x budget) for each kind with at least two blocks and two pruners in all of them.

    Only pruners that finished within the budget in every block are ranked. Budgets of one task share their data, so
    each task counts once: its ranks are averaged over its budgets, and both tests run over tasks.

    Args:
        tables: as `tables` gives them.
        rows: the rows they were made from.
        alpha: level of the critical difference.

    Returns:
        For each kind `kind`, `blocks` (their names), `mean_rank` (best first), `friedman_p` and
        `critical_difference` (None below three pruners or two tasks), and a `sentence`.
    """
    by_block = _blocks(rows)
    answer = []
    for kind in dict.fromkeys(table["kind"] for table in tables):
        blocks = [table for table in tables if table["kind"] == kind]
        means = [
            {
                row["pruner"]: statistics.summary(list(_accuracies(row).values()))["mean"]
                for row in by_block[_block(block)]
                if row["status"] == "finished" and _place(row)[0] == 0
            }
            for block in blocks
        ]
        everyone = {name for block in blocks for name in block["order"]}
        complete = sorted(name for name in everyone if all(name in block for block in means))
        if len(blocks) < 2 or len(complete) < 2:
            continue
        tasks = [block["task"] for block in blocks]
        found = statistics.ranks([{name: block[name] for name in complete} for block in means], tasks, alpha)
        best_first = sorted(complete, key=lambda name: (found["mean_rank"][name], name))
        answer.append(
            {
                "kind": kind,
                "blocks": [
                    f"{block['task']}, {block['budget']['kind']} {block['budget']['value']:g}" for block in blocks
                ],
                **found,
                "mean_rank": {name: found["mean_rank"][name] for name in best_first},
                "sentence": _ranks_sentence(found, tasks, sorted(everyone.difference(complete)), alpha),
            }
        )
    return answer


_UNKNOWN = {"mean": None, "low": None, "high": None, "sd": None, "n": 0}


def _finite(run: Row, key: str) -> float:
    value = float(run["numbers"][key])
    if not math.isfinite(value):
        where = run.get("folder") or f"seed {run['seed']}"
        raise BadData(f"{where}: {key} is {value}; mark the run as failed, or drop this number from it")
    return value


def _accuracies(row: Row) -> dict[int, float]:
    seeds = [run["seed"] for run in row["runs"]]
    if len(set(seeds)) < len(seeds):
        raise BadOption(f"row {row['pruner']} of {row['task']}: seeds {seeds} name a run twice; give each its own seed")
    finished = [run for run in row["runs"] if run["status"] == "finished" and run["numbers"]]
    return {run["seed"]: _finite(run, "accuracy") for run in finished if run["numbers"].get("accuracy") is not None}


def _block(row: Row) -> tuple[str, str, str, float]:
    return row["task"], row["kind"], row["budget"]["kind"], row["budget"]["value"]


def _blocks(rows: Sequence[Row]) -> dict[tuple[str, str, str, float], list[Row]]:
    blocks: dict[tuple[str, str, str, float], list[Row]] = {}
    for row in rows:
        if row["kind"] == "dense":
            continue
        block = blocks.setdefault(_block(row), [])
        if any(row["pruner"] == other["pruner"] for other in block):
            raise BadOption(f"pruner {row['pruner']} stands twice in {_block(row)}: give the second another name")
        block.append(row)
    return blocks


def missed(row: Row) -> bool:
    """Whether a row ended too far from its budget to get a verdict."""
    return bool(row["strength"] and row["strength"]["missed"])


def _place(row: Row) -> tuple[int, float, str]:
    """Where a row stands in its table; the first number is 0 for a row that may be judged."""
    accuracies = list(_accuracies(row).values())
    if not accuracies:
        return 3, 0.0, row["pruner"]
    trouble = 2 if row["status"] == "failed" else int(missed(row))
    return trouble, -round(statistics.summary(accuracies)["mean"], 12), row["pruner"]


def _difference(
    row: Row, reference: Row | None, planned: Mapping[str, frozenset[int]], terms: Row, resolution: float
) -> dict[str, Any]:
    """A row minus the reference; `p` is None, and `reason` says why, where there must be no verdict."""
    empty = dict.fromkeys(("mean", "low", "high", "sd", "p", "p_holm")) | {"n": 0, "paired": None}
    empty |= {"verdict": "not tested"}
    if reference is None:
        return {**empty, "reason": "no reference of this comparison finished here"}
    for side, name in ((row, row["pruner"]), (reference, f"the reference {reference['pruner']}")):
        if side["status"] == "failed":
            return {**empty, "reason": f"{name} failed: {side['error'] or 'no reason was recorded'}"}
        if side["status"] != "finished":
            return {**empty, "reason": f"{name} is not finished"}
    first, second = _accuracies(row), _accuracies(reference)
    paired = bool(planned[row["pruner"]] & planned[reference["pruner"]])
    if paired:
        pairs = first.keys() & second.keys()
        first, second = {seed: first[seed] for seed in pairs}, {seed: second[seed] for seed in pairs}
    n = min(len(first), len(second))
    if n < 2:
        what = "seeds that finished in both" if paired else "seeds that finished on one side"
        return {**empty, "n": n, "paired": paired, "reason": f"{what}: {n}; a test needs 2"}
    found = statistics.difference(first, second, resolution=resolution, confidence=terms["confidence"])
    if missed(row):
        return {**empty, **found, "p": None, "reason": f"{row['pruner']} missed the budget, so the terms are not equal"}
    fewer = paired and n < max(len(planned[each["pruner"]]) for each in (row, reference))
    return {**empty, **found, "reason": f"over the {n} seeds that finished in both" if fewer else ""}


def _with_verdicts(differences: dict[str, dict[str, Any]], alpha: float) -> dict[str, dict[str, Any]]:
    tested = {name: entry for name, entry in differences.items() if entry["p"] is not None}
    adjusted = dict(zip(tested, statistics.holm([entry["p"] for entry in tested.values()]), strict=True))
    answer = dict(differences)
    for name, p_holm in adjusted.items():
        sign = "better" if tested[name]["mean"] > 0 else "worse"
        # Alone it would count; among so many tests it may be luck. To call that noise would hide it.
        alone = "undecided" if tested[name]["p"] < alpha else "inside the noise"
        answer[name] = {**tested[name], "p_holm": p_holm, "verdict": sign if p_holm < alpha else alone}
    return answer


def _power(differences: Mapping[str, Row], terms: Row) -> dict[str, Any]:
    """What the table could have seen: the typical spread of its differences, at the level of Holm's first step."""
    tested = [entry for entry in differences.values() if entry["p"] is not None]
    answer = {"detectable": None, "n": 0, "sd": None, "alpha": terms["alpha"], "power": terms["power"]}
    if not tested:
        return {**answer, "sentence": "No row was tested here."}
    # Three seeds give each row a poor standard deviation, so the rows lend each other theirs; by the median, for a
    # pruner that fails erratically says nothing of the others.
    sd = statistics.typical_sd([(entry["sd"], entry["n"] - 1) for entry in tested])
    n, alpha = min(entry["n"] for entry in tested), terms["alpha"] / len(tested)
    paired = any(entry["paired"] for entry in tested)
    found = statistics.detectable(sd, n, paired=paired, alpha=alpha, power=terms["power"])
    times = f"{100 * terms['power']:.0f} of 100 repetitions"
    if found is None or found > 1:
        found, seen = None, f"would have seen no difference at all in {times}: run more seeds."
    else:
        seen = f"would have seen a difference of {100 * found:.1f} points in {times}; smaller ones "
        seen += "are missed more often."
    answer |= {"detectable": found, "n": n, "sd": sd, "alpha": alpha}
    return {**answer, "sentence": f"With {n} seeds this table {seen}"}


def _ranks_sentence(found: statistics.Ranks, tasks: Sequence[str], left_out: Sequence[str], alpha: float) -> str:
    p, distance, count = found["friedman_p"], found["critical_difference"], len(set(tasks))
    said = f"Mean rank of {len(found['mean_rank'])} pruners over {len(tasks)} tables, every task weighing the same"
    if p is None or distance is None:
        said += f"; too few {'tasks' if count < 2 else 'pruners'} for a test, so the order only describes these runs."
    elif p >= alpha:
        said += f"; over {count} tasks no pruner is shown to differ (Friedman's p = {p:.2g})."
    else:
        said += f"; over {count} tasks the pruners differ (Friedman's p = {p:.2g}), two of them where their mean ranks "
        said += f"are more than {distance:.2f} apart (Nemenyi)."
    if left_out:
        said += f" Not ranked, for they did not finish within the budget in every table: {', '.join(left_out)}."
    return said
