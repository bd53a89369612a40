"""The search: NNI's experiment, its sequential engine and its regularized evolution, in this process."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from nni.nas.experiment import NasExperiment, NasExperimentConfig
from nni.nas.strategy import RegularizedEvolution

from snnsl_plugin.errors import BadOption, RunFolderInUse
from snnsl_plugin.for_nni.nas.candidate import Candidate
from snnsl_plugin.for_nni.nas.evaluator import StructureLearningEvaluator
from snnsl_plugin.for_nni.nas.ranges import is_real, is_whole, must
from snnsl_plugin.for_nni.nas.space import SpikingSpace

_logger = logging.getLogger(__name__)


def explore(
    space: SpikingSpace,
    evaluator: StructureLearningEvaluator,
    *,
    candidates: int,
    population: int = 8,
    sample_size: int = 3,
    mutation: float = 0.1,
    seed: int = 0,
) -> list[Candidate]:
    """Explores a space with NNI's `RegularizedEvolution` (Real et al. 2019), one candidate after another.

    The first `population` samples are random. Each further one is a mutated copy of the best of `sample_size` members
    drawn from the population, which it joins while the oldest member leaves. NNI's engine runs in this process: no
    server is started and no port opened. Nothing is written outside the evaluator's folder.

    After a kill or an error, the same call goes on where it stopped: samples found in the folder are not trained again.
    More `candidates` extend a finished search.

    Args:
        space: what to choose from.
        evaluator: trains and keeps the candidates; its folder is held for the time of the search.
        candidates: how many samples to try, from `population` on, no more than the space has.
        population: members of the population, >= 1.
        sample_size: members of a tournament, from 1 to `population`.
        mutation: probability that a mutable of a child is drawn anew (the same value may come), in (0, 1].
        seed: of the evolution, in [0, 2**32).

    Returns:
        The candidates in the order they were tried; see `best` and `table`.

    Raises:
        BadOption: a number out of range, or a space in which a layer would keep no weight.
        RunFolderInUse: the folder belongs to another search, or another process holds it.
        KeyboardInterrupt: where the user interrupts; NNI alone would swallow it.
    """
    for option, whole in (("candidates", candidates), ("population", population), ("sample_size", sample_size)):
        must(is_whole(whole), option, whole, "it is a whole number")
    size = math.prod(len(values) for values in space.choices.values())
    if not 1 <= sample_size <= population <= candidates <= size:
        raise BadOption(
            f"sample_size {sample_size}, population {population} and candidates {candidates} must be in this order, "
            f"from 1 to the {size} samples of this space"
        )
    likely = is_real(mutation) and 0.0 < mutation <= 1.0
    must(likely, "mutation", mutation, "a probability in (0, 1] leads anywhere, 0.1 is usual")
    must(is_whole(seed) and 0 <= seed < 2**32, "seed", seed, "it is a whole number in [0, 2**32)")
    evaluator.check(space)
    strategy = RegularizedEvolution(
        population_size=population, sample_size=sample_size, mutation_prob=mutation, dedup=True, seed=seed
    )
    config = NasExperimentConfig("sequential", "simplified")
    config.max_trial_number = candidates
    config.experiment_working_directory = str(evaluator.folder / "nni")
    experiment = _FolderExperiment(space, evaluator, strategy, config)
    with _held(evaluator.folder):
        try:
            if experiment.run() is None:  # NNI's way to say that the user interrupted
                raise KeyboardInterrupt
            tried = [evaluator.found(model.sample or {}) for model in strategy.list_models(sort=False)]
        finally:
            experiment.stop()
    if len(tried) < candidates:
        _logger.warning(
            "NNI's strategy found no new sample after 500 tries: %d of %d candidates were explored; a larger mutation "
            "than %g, or another seed, reaches more",
            len(tried),
            candidates,
            mutation,
        )
    return tried


class _FolderExperiment(NasExperiment):
    """NNI's experiment without its list of experiments in the home folder.

    The list serves `nnictl`, which shows nothing of an experiment without a server, and NNI's resume, which today's
    torch refuses; its lock hangs for ever with filelock 3.12 and later.
    """

    def _start_without_nni_manager(self) -> None:
        pass

    def _stop_without_nni_manager(self) -> None:
        pass

    def _stop_logging(self) -> None:
        # NNI takes its log file off the logger and leaves it open.
        folder = Path(self.config.canonical_copy().experiment_working_directory) / self.id
        files = [each for each in logging.getLogger("nni").handlers if isinstance(each, logging.FileHandler)]
        super()._stop_logging()
        for each in files:
            if Path(each.baseFilename).is_relative_to(folder.absolute()):
                each.close()


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(folder / ".lock"))  # it dies with its process
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunFolderInUse(f"{folder} is held by another search: wait for it, or search in another folder") from error
    try:
        yield
    finally:
        lock.release()
