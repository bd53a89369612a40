"""scikit-learn's handwritten digits: 1,797 real scans of 8x8, in the package, no download."""

from __future__ import annotations

import torch

from snnsl_plugin.datasets._splits import Splits, draw_train, hold_out
from snnsl_plugin.datasets._tensors import TensorImages
from snnsl_plugin.errors import MissingExtra


def digits(*, test: float = 0.2, validation: float = 0.1, split_seed: int = 0) -> Splits:
    """1,797 scans of handwritten digits (Alpaydin and Kaynak 1998), 8x8 pixels of 17 grey levels, made 0 to 1.

    There is no official split in scikit-learn's copy, so a seed makes one, stratified by digit.

    Args:
        test: share of all scans held out for the test, in (0, 1).
        validation: share of the remaining scans held out for validation, in (0, 1).
        split_seed: seed of both draws; the seed of a run does not touch them.

    Returns:
        Splits with samples of (1, 8, 8) in [0, 1].

    Raises:
        BadOption: a share outside (0, 1).
        MissingExtra: scikit-learn cannot be imported here.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as cause:
        raise MissingExtra(f"digits come with scikit-learn, which cannot be imported here: {cause}") from cause

    scans = load_digits()
    samples = TensorImages(
        images=torch.from_numpy(scans.images).to(torch.uint8)[:, None],
        labels=torch.from_numpy(scans.target).to(torch.int64),
        scale=16.0,
    )
    classes = [str(name) for name in scans.target_names]
    rest, tested = hold_out(samples.labels, classes, test, split_seed, "test")
    remaining = samples.subset(rest)
    kept, held = draw_train(
        remaining.labels,
        classes,
        validation=validation,
        validation_per_class=None,
        per_class=None,
        seed=split_seed,
    )
    return Splits(
        train=remaining.subset(kept),
        validation=remaining.subset(held),
        test=samples.subset(tested),
        classes=classes,
        shape=(1, 8, 8),
        events=False,
        source="scikit-learn's load_digits: 1,797 scans from UCI's Optical Recognition of Handwritten Digits",
    )
