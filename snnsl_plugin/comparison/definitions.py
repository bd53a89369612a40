"""One sentence for every column of a comparison: the measures' own, and those that only a comparison has."""

from __future__ import annotations

from snnsl_plugin.metrics.definitions import DEFINITIONS as MEASURES

#: by the word that is the column's anchor on the page
DEFINITIONS: dict[str, str] = {
    "accuracy": MEASURES["accuracy"] + " The table shows the mean over seeds and its confidence interval.",
    "interval": (
        "Student's t interval of the mean over seeds. It says how far the mean could move with other seeds, not with"
        " another test set; with three seeds its half width is 2.5 standard deviations."
    ),
    "difference": (
        "Accuracy minus the reference's, in percentage points, averaged over seeds that both finished (paired where"
        " the seeds are the same), with its confidence interval."
    ),
    "verdict": (
        "Better or worse: the test rejects equality after Holm's correction over the table. Undecided: it would have"
        " done so alone, but not among so many tests; more seeds decide. Inside the noise: it does not, which is no"
        " proof that both are equal. Not tested: too few finished runs, or a budget that was missed."
    ),
    "budget": (
        "What every pruner of a table may keep: a density is a share of all weights (of weights on a live path where"
        " whole channels go), a SynOps budget a share of the dense network's SynOps per sample."
    ),
    "density": MEASURES["density"],
    "connections": MEASURES["connections"] + " Here as a share of all weights of the dense network.",
    "synops": MEASURES["synops_per_sample"],
    "macs": MEASURES["macs_per_sample"],
    "energy": MEASURES["energy_pj_per_sample"],
    "training_cost": (
        "Multiply-accumulates of the whole training, masked weights left out, as a share of the dense training's;"
        " epochs spent dense before or between prunings count in full. A model: dense kernels save no time."
    ),
    "seconds": MEASURES["wall_s"] + " Measured while other workers ran.",
    "seconds_per_epoch": MEASURES["seconds_per_epoch"],
    "peak_memory": MEASURES["peak_memory_mib"],
    "runs": "Finished runs of those planned, and how many of them an earlier comparison had left behind.",
    "strength": (
        "The pruner's own setting that meets the budget: planned from the budget alone, found by a search over trial"
        " runs that looks at the budget and never at accuracy, or given in the recipe."
    ),
    "kind": (
        "Unstructured pruners mask single weights; structured pruners silence or remove whole channels. At one density"
        " they leave networks of different shape and use, so they are never in one table."
    ),
    "rank": (
        "Place by mean accuracy in each table, 1 is best, averaged over tables with every task weighing the same; ties"
        " share a place."
    ),
}
