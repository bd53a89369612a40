"""What a comparison excludes, and what it cannot tell: sentences that stand on the page beside the numbers."""

from __future__ import annotations

from snnsl_plugin.comparison import statistics, wording
from snnsl_plugin.comparison.wording import Comparison

#: source of unfairness -> how it is kept out
EXCLUDED: dict[str, str] = {
    "Unequal budgets": (
        "Every pruner of a table is set to end at the same budget; what it really kept stands in the columns, and a"
        " budget that was missed is named in the column strength and gets no verdict."
    ),
    "Unequal training": (
        "Data, initial weights, order of batches, augmentation, optimizer and length of training (epochs or seconds)"
        " are the same for one seed, whoever prunes; warm-up, pre-training and fine-tuning are part of that length."
    ),
    "Hidden cost": (
        "Training cost counts every epoch, dense phases included; trial runs that looked for a strength are named in"
        " the column strength."
    ),
    "Unequal tuning": (
        "No setting is chosen by accuracy; a strength is searched on the budget alone. Each pruner has the settings"
        " written in the recipe."
    ),
    "Choosing on test data": (
        "Epochs are selected on validation data; the test set is read once, when a run ends, and decides nothing."
    ),
    "Unequal judging": "One piece of code measures every pruner of every host, on the network as it was trained.",
}


def threats(comparison: Comparison) -> list[str]:
    """What limits the answer, from the comparison's own numbers.

    Args:
        comparison: what `comparison.json` holds.
    """
    given, machine = comparison["terms"], comparison["machine"]
    found = [
        f"{len(given['seeds'])} seeds: an interval holds for other seeds on the same data, and an effect smaller than"
        " the detectable difference stays unseen."
    ]
    part = comparison["judge"]
    for task in comparison["tasks"]:
        samples = task["samples"].get(part)
        best = max(
            (wording.measure(row, "accuracy") or 0.0 for row in comparison["rows"] if row["task"] == task["name"]),
            default=0.0,
        )
        if samples and 0 < best < 1:
            error = statistics.sampling_error(best, samples, given["confidence"])
            found.append(
                f"{task['name']} is judged on {samples:,} {part} samples: one sample is {100 / samples:.2g} points,"
                f" and at {100 * best:.1f} % the choice of samples alone leaves ± {100 * error:.1f} points open. All"
                " pruners share them, so differences suffer less than levels do."
            )
    if part == "validation":
        found.append(
            "Judged on validation data, a number is the best of as many epochs as a pruner leaves after its last"
            " update, and those that prune early have more to choose from."
        )
    found += [
        f"Seconds and memory were measured with {given['workers']} workers at once on {machine['cores']} cores: good"
        " for orders of magnitude, not for ranking.",
        "Settings are those written in the recipe, for most the published or default ones, not the best that a search"
        " on this task would find.",
        "Small networks and short training favour pruners that settle early; another task may order them otherwise.",
    ]
    return found
