"""NNI's evolution searches a sparse spiking network for handwritten digits: width, depth, time steps, density.

About a minute on two cores. Stop it and start it again: it goes on where it stopped.

    python docs/examples/nni_nas.py --candidates 16 --seed 0
"""

import argparse
import json
from pathlib import Path

import torch

from snnsl_plugin.datasets.digits import digits
from snnsl_plugin.for_nni.nas import SpikingSpace, StructureLearningEvaluator, explore, load_best, table


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=16, help="networks to train")
    parser.add_argument("--population", type=int, default=6, help="networks the evolution keeps")
    parser.add_argument("--epochs", type=int, default=6, help="passes over the training part, each candidate")
    parser.add_argument("--seed", type=int, default=0, help="of weights, batch order and evolution")
    parser.add_argument(
        "--synops-weight", type=float, default=0.05, help="accuracy that a tenth of the operations is worth"
    )
    parser.add_argument("--folder", type=Path, default=Path("nni_nas"), help="where the search is kept")
    return parser.parse_args()


def main() -> None:
    """Search, show, rebuild."""
    asked = arguments()
    torch.set_num_threads(1)  # networks this small gain nothing from a second, and figures depend on their number
    data = digits()
    space = SpikingSpace(data.shape, len(data.classes), widths=[4, 8, 16, 32], hidden=64, seed=asked.seed)
    evaluator = StructureLearningEvaluator(
        data, asked.folder, epochs=asked.epochs, synops_weight=asked.synops_weight, seed=asked.seed
    )
    candidates = explore(
        space,
        evaluator,
        candidates=asked.candidates,
        population=asked.population,
        sample_size=min(3, asked.population),
        mutation=0.15,
        seed=asked.seed,
    )
    print(table(candidates))

    network, candidate, masks = load_best(asked.folder, space)
    kept = sum(int(mask.sum()) for mask in masks.values())
    print(f"\nbest sample: {json.dumps(candidate.sample)}")
    print(f"space.freeze(sample) builds it: {len(network)} modules, {kept:,} of {candidate.weights:,} weights kept")


if __name__ == "__main__":
    main()
