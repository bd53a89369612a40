"""Does a weaker, sparser guide teach? The arms that tell reverse distillation from longer training and from smoothing.

    SNNSL_DATA=... python tests/benchmarks/reverse_kd.py --guides FOLDER --learners sparse dense --workers 2

On CIFAR-100's bench task. Every arm has four trials, judged by validation on a seed of its own, and is then trained with
the setting that won on other seeds; only those runs read the test set. The rules of the verdict stand in `verdicts`, and
stood there before the first run. Guides are trained with seeds that no learner has, and kept below FOLDER. Adds to
docs/results/reverse_kd.json, prints the tables and draws reverse_kd.png; finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from hypotheses import interval_of

ROOT = Path(__file__).parents[2]
STORE = ROOT / "docs" / "results" / "reverse_kd.json"
TASK, TUNING_SEED, GUIDE_SEED = "bench/cifar100", 100, 1000
#: Who learns: the keys that its recipe changes, and the guides of its arms (e and f, g, h).
LEARNERS: dict[str, tuple[list[str], dict[str, str]]] = {
    "sparse": ([], {"sparser": "2 %", "same": "5 %", "dense": "dense"}),
    "dense": (["pruning={type: dense}"], {"sparser": "5 %", "same": "dense", "dense": "dense"}),
}
GUIDES: dict[str, list[str]] = {
    "1 %": ["pruning.density={name: cubic, first: 1.0, last: 0.01}"],
    "2 %": ["pruning.density={name: cubic, first: 1.0, last: 0.02}"],
    "5 %": [],
    "10 %": ["pruning.density={name: cubic, first: 1.0, last: 0.1}"],
    "dense": ["pruning={type: dense}"],
    "5 %, 2 epochs": ["train.epochs=2"],
}
CE = [["train.optimizer.lr=2e-3"], ["train.optimizer.lr=1e-3"], ["train.optimizer.lr=4e-3"], ["train.optimizer.weight_decay=0.1"]]  # fmt: skip
TAUGHT = [(weight, tau) for weight in (0.3, 0.6) for tau in (2, 4)]
LADDER = [each for each in GUIDES if each != "dense"]


@dataclass(frozen=True)
class Arm:
    """One arm: what it tries, and which guide it has."""

    word: str
    #: keys of each trial, on top of the setting that cross-entropy was best with
    trials: list[list[str]]
    #: whose trials choose its setting, where not its own
    like: str | None = None
    #: whether cross-entropy's own best setting is left out
    alone: bool = False
    #: the guide's role in LEARNERS, or its name in GUIDES
    guide: str | None = None


def taught(guide: str, role: str | None = None) -> list[list[str]]:
    """The four trials of an arm with a guide."""
    run = f", run: {{{role}}}" if role else ""
    return [
        [f"distillation={{guide: {{name: {guide}{run}}}, weight: {weight}, temperature: {tau}}}"]
        for weight, tau in TAUGHT
    ]


ARMS: dict[str, Arm] = {
    "a": Arm("labels alone", CE, alone=True),
    "b": Arm("labels alone, twice the epochs", [["train.epochs=32", *keys] for keys in CE], alone=True),
    "c": Arm("label smoothing", [[f"train.label_smoothing={each}"] for each in (0.05, 0.1, 0.2, 0.3)]),
    "d": Arm("virtual guide, tau > 1", taught("virtual")),
    "e": Arm("sparser guide", taught("sparse", "guide"), guide="sparser"),
    "f": Arm("sparser guide, wrong classes permuted", taught("permuted", "guide"), guide="sparser"),
    "g": Arm("guide of the same density", taught("sparse", "guide"), guide="same"),
    "h": Arm("dense guide", taught("dense", "guide"), guide="dense"),
} | {f"i, {name}": Arm(f"guide of {name}", taught("sparse", "guide"), like="e", guide=name) for name in LADDER}


def guide_of(learner: str, arm: str) -> str | None:
    """The name of an arm's guide in GUIDES."""
    guide = ARMS[arm].guide
    return LEARNERS[learner][1].get(guide, guide) if guide else None


def guide_folder(guide: str, seed: int) -> str:
    """Where a guide is kept, below FOLDER."""
    return f"seed-{GUIDE_SEED + seed}/{guide.replace(' ', '').replace('%', 'pct').replace(',', '-')}"


def keys(learner: str, arm: str, trial: int, base: int, seed: int) -> list[str]:
    """All keys of a run: the learner's, cross-entropy's best setting, the trial's, the seed."""
    guide = guide_of(learner, arm)
    chosen = [key.replace("{guide}", guide_folder(guide, seed)) if guide else key for key in ARMS[arm].trials[trial]]
    return [*LEARNERS[learner][0], *([] if ARMS[arm].alone else CE[base]), *chosen, f"seed={seed}"]


def train(changed: list[str], judge: str, run_dir: str | None = None) -> dict[str, Any]:
    """One run, in a process of its own."""
    from snnsl_plugin.recipe import folder
    from snnsl_plugin.recipe.load import load
    from snnsl_plugin.recipe.runner import run

    with tempfile.TemporaryDirectory() as scratch:
        where = Path(run_dir or f"{scratch}/run")
        interrupted = folder.identity(where) is not None  # only a guide has a folder that stays
        result = run(load(TASK, changed), run_dir=where, judge=judge, resume=interrupted)
    measured = result if judge == "test" else result["validation"]
    return {
        "digest": result["digest"],
        "validation": result["accuracy"]["validation"],
        "test": result["accuracy"]["test"],
        "synops": measured["synops_per_sample"],
        "connections": result["density"]["connections"]["live"],
        "seconds": result["wall_s"],
    }


class Store:
    """What has been measured, in one file that is written after each run."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = json.loads(STORE.read_text("utf-8"))["runs"] if STORE.is_file() else {}

    def add(self, key: str, run: dict[str, Any]) -> None:
        self.runs[key] = run
        text = json.dumps({"date": date.today().isoformat(), "runs": dict(sorted(self.runs.items()))}, indent=1)
        STORE.with_suffix(".part").write_text(text + "\n", "utf-8")
        STORE.with_suffix(".part").replace(STORE)

    def best(self, learner: str, arm: str) -> int:
        """The trial that validation chose; the first of equals."""
        done = [self.runs[f"tune | {learner} | {arm} | {trial}"]["validation"] for trial in range(4)]
        return done.index(max(done))


def together(jobs: dict[str, tuple[Any, ...]], store: Store, workers: int) -> None:
    """Trains what is not there yet; arms that come to the same run share it."""
    from snnsl_plugin.recipe.digest import digest
    from snnsl_plugin.recipe.load import load

    wanted: dict[str, list[str]] = {}
    for key, job in jobs.items():
        kept = job[2] if len(job) > 2 else None  # a guide must lie there as well
        same = store.runs.get(key, {}).get("digest") == digest(load(TASK, job[0]))
        if not same or (kept and not (Path(kept) / "result.json").is_file()):
            wanted.setdefault(repr(job), []).append(key)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        pending = {pool.submit(train, *jobs[alike[0]]): alike for alike in wanted.values()}
        failed = []
        for count, future in enumerate(as_completed(pending), start=1):
            if error := future.exception():  # the others are kept, and a later call repeats this one alone
                failed.append(f"{', '.join(pending[future])}: {error}")
                continue
            done = future.result()
            for key in pending[future]:
                store.add(key, done)
                print(f"{count}/{len(pending)} {key}: {done['validation']:.4f}, test {done['test']}", flush=True)
    if failed:
        raise SystemExit("these runs failed:\n" + "\n".join(failed))


def teachers(names: list[str], seeds: list[int]) -> dict[str, tuple[Any, ...]]:
    """The runs that make guides."""
    return {
        f"guide | {name} | {seed}": (
            [*GUIDES[name], f"seed={GUIDE_SEED + seed}"],
            "validation",
            guide_folder(name, seed),
        )
        for seed in seeds
        for name in names
    }


def tuned(learner: str, arms: list[str], store: Store) -> dict[str, tuple[Any, ...]]:
    """The trials of arms."""
    base = 0 if arms == ["a"] else store.best(learner, "a")
    return {
        f"tune | {learner} | {arm} | {trial}": (keys(learner, arm, trial, base, TUNING_SEED), "validation")
        for arm in arms
        for trial in range(4)
        if ARMS[arm].like is None
    }


def finals(learner: str, seeds: list[int], store: Store) -> dict[str, tuple[Any, ...]]:
    """The runs that the verdict is read from."""
    base = store.best(learner, "a")
    return {
        f"final | {learner} | {arm} | {seed}": (
            keys(learner, arm, store.best(learner, ARMS[arm].like or arm), base, seed),
            "test",
        )
        for seed in seeds
        for arm in ARMS
    }


def of(store: Store, learner: str, arm: str, what: str = "test") -> dict[int, float]:
    """One measure of an arm's finals, by seed."""
    start = f"final | {learner} | {arm} | "
    return {int(key.removeprefix(start)): run[what] for key, run in store.runs.items() if key.startswith(start)}


def difference(store: Store, learner: str, one: str, other: str) -> tuple[float, float, float]:
    """Points of test accuracy between two arms, paired by seed: mean and 95 % interval."""
    first, second = of(store, learner, one), of(store, learner, other)
    return interval_of([100 * (first[seed] - second[seed]) for seed in sorted(first.keys() & second.keys())])


def rows(store: Store, learner: str) -> Iterator[str]:
    """The finals as Markdown."""
    yield f"| {learner} learner, arm | setting that validation chose | test accuracy, % | points to (a), 95 % | SynOps | seeds |"
    yield "|---|---|---:|---:|---:|---:|"
    for arm, what in ARMS.items():
        accuracy = of(store, learner, arm)
        if not accuracy:
            continue
        best = store.best(learner, ARMS[arm].like or arm)
        setting = "weight {}, tau {}".format(*TAUGHT[best])
        if arm in ("a", "b", "c"):
            setting = ", ".join(f"`{key}`" for key in what.trials[best])
        low = "reference" if arm == "a" else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*difference(store, learner, arm, "a"))
        synops = statistics.mean(of(store, learner, arm, "synops").values())
        yield (
            f"| ({arm}) {what.word} | {setting} | {100 * statistics.mean(accuracy.values()):.1f} | {low} | "
            f"{synops:,.0f} | {len(accuracy)} |"
        )


def draw(store: Store) -> None:
    """Every arm's points to (a), a panel a learner, beside what its guide can do itself."""
    from matplotlib import pyplot

    learners = [each for each in LEARNERS if len(of(store, each, "e")) > 1]
    if not learners:
        return
    figure, panels = pyplot.subplots(
        1, len(learners), figsize=(6.5 * len(learners), 4.6), layout="constrained", squeeze=False, sharex=True
    )
    for axes, learner in zip(panels[0], learners, strict=True):
        arms = [arm for arm in ARMS if arm != "a" and of(store, learner, arm)]
        for line, arm in enumerate(arms):
            mean, low, high = difference(store, learner, arm, "a")
            colour = "#1b6ca8" if guide_of(learner, arm) else "#6c757d"
            axes.plot([low, high], [line, line], color=colour, linewidth=1.5)
            axes.plot([mean], [line], "o", color=colour)
        axes.set_yticks(range(len(arms)), [label(store, learner, arm) for arm in arms])
        axes.invert_yaxis()
        axes.axvline(0, color="#c8553d", linewidth=1, linestyle=(0, (4, 3)))
        alone = 100 * statistics.mean(of(store, learner, "a").values())
        axes.set_xlabel("points of test accuracy to (a), 95 % interval", loc="right")
        axes.set_title(f"{learner} learner; (a), labels alone: {alone:.1f} %", loc="right")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(STORE.with_suffix(".png"), dpi=150)
    pyplot.close(figure)


def label(store: Store, learner: str, arm: str) -> str:
    """An arm in a few words, with the validation accuracy of its guide where it has one."""
    guide = guide_of(learner, arm)
    words = f"({arm}) {ARMS[arm].word}" if not arm.startswith("i") else f"({arm}) guide"
    if not guide:
        return words
    seeds = of(store, learner, arm)
    return f"{words}, itself {100 * itself(store, guide, seeds):.0f} %"


def itself(store: Store, guide: str, seeds: Iterable[int]) -> float:
    """Validation accuracy of a guide, the mean over seeds, in 0 to 1."""
    return statistics.mean(store.runs[f"guide | {guide} | {seed}"]["validation"] for seed in seeds)


def verdicts(store: Store, learner: str) -> Iterator[str]:
    """What the rules say that were written down before the first run."""
    by_seed = {arm: of(store, learner, arm) for arm in ARMS}
    seeds = set.intersection(*(set(each) for each in by_seed.values()))
    if not seeds:
        yield "no seed has all arms yet"
        return
    mean = {arm: statistics.mean(each[seed] for seed in seeds) for arm, each in by_seed.items()}
    rival = max("abc", key=mean.__getitem__)
    gap, low, high = difference(store, learner, "e", rival)
    helps = low > 0
    yield f"KD helps: {'yes' if helps else 'not shown'}; e - {rival} = {gap:+.1f} [{low:+.1f}, {high:+.1f}] points"
    knowledge = mean["e"] > mean["f"] and mean["e"] > mean["d"]
    yield f"knowledge, not smoothing: {'yes' if knowledge else 'no'}; e {mean['e']:.4f}, f {mean['f']:.4f}, d {mean['d']:.4f}"
    near = mean["e"] >= max(mean["g"], mean["h"]) - 0.003
    weaker = mean["i, 5 %, 2 epochs"] >= mean["i, 5 %"]
    yield (
        f"reverse specifically: {'yes' if near or weaker else 'no'}; g {mean['g']:.4f}, h {mean['h']:.4f}, "
        f"badly trained {mean['i, 5 %, 2 epochs']:.4f} against {mean['i, 5 %']:.4f}"
    )
    yield f"the word is {'knowledge' if helps and knowledge else 'regularisation'}"


def looked_at_afterwards(store: Store, learner: str) -> Iterator[str]:
    """What no rule asks for: intervals of the rules' differences, and points of the learner by what its guide can do."""
    seeds = sorted(of(store, learner, "i, 10 %"))
    if len(seeds) < 2:
        return
    for one, other in [("e", "f"), ("e", "d"), ("e", "h"), ("h", "d"), ("i, 5 %, 2 epochs", "i, 5 %")]:
        yield "({}) - ({}): {:+.1f} [{:+.1f}, {:+.1f}] points".format(
            one, other, *difference(store, learner, one, other)
        )
    guides = [itself(store, name, seeds) for name in LADDER]
    learners = [of(store, learner, f"i, {name}") for name in LADDER]
    slopes = [10 * statistics.linear_regression(guides, [each[seed] for each in learners]).slope for seed in seeds]
    yield "points by ten points of the guide, over (i): {:+.2f} [{:+.2f}, {:+.2f}]".format(*interval_of(slopes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guides", type=Path, required=True)
    parser.add_argument("--learners", nargs="+", choices=list(LEARNERS), default=list(LEARNERS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--print", action="store_true", help="print the tables, train nothing")
    given = parser.parse_args()
    store = Store()
    if not given.print:
        given.guides.mkdir(parents=True, exist_ok=True)
        os.chdir(given.guides)  # guides are named as seen from there, so digests are the same on any machine
        for learner in given.learners:
            guides = sorted({guide_of(learner, arm) for arm in "efgh"} - {None})
            together(tuned(learner, ["a"], store), store, given.workers)
            together(teachers(guides, [TUNING_SEED]) | tuned(learner, ["c", "d"], store), store, given.workers)
            together(tuned(learner, ["e", "f", "g", "h", "b"], store), store, given.workers)
            together(teachers(list(GUIDES), given.seeds), store, given.workers)
            together(finals(learner, given.seeds, store), store, given.workers)
    for learner in given.learners:
        print("\n".join(rows(store, learner)))
        print("\n".join([*verdicts(store, learner), *looked_at_afterwards(store, learner)]))
    draw(store)


if __name__ == "__main__":
    main()
