import pytest
import torch

from snnsl_plugin.datasets.digits import digits
from snnsl_plugin.errors import BadOption


@pytest.fixture(scope="module")
def splits():
    return digits()


def everything(part):
    return part.batch(torch.arange(len(part)))


def test_the_parts_have_the_sizes_that_the_shares_ask_for(splits):
    # round(0.2 * 1797) = 359 to test on, round(0.1 * 1438) = 144 to validate on
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (1294, 144, 359)
    assert splits.shape == (1, 8, 8) == tuple(splits.train[0][0].shape)
    assert splits.classes == [str(digit) for digit in range(10)]
    assert not splits.events
    assert splits.skipped == 0


def test_the_three_parts_together_are_scikit_learns_scans_each_once(splits):
    from sklearn.datasets import load_digits

    parts = [everything(part) for part in (splits.train, splits.validation, splits.test)]
    rows = [(*(x.flatten() * 16).int().tolist(), int(y)) for xs, ys in parts for x, y in zip(xs, ys, strict=True)]
    scans = load_digits()
    expected = [
        (*image.astype(int).flatten().tolist(), int(y)) for image, y in zip(scans.images, scans.target, strict=True)
    ]
    assert sorted(rows) == sorted(expected)


def test_every_part_has_about_a_tenth_of_each_digit(splits):
    for part in (splits.train, splits.validation, splits.test):
        counts = torch.bincount(everything(part)[1], minlength=10)
        assert (counts - len(part) / 10).abs().max() <= 0.005 * 1797


def test_the_split_depends_on_its_seed_alone(splits):
    assert torch.equal(digits().test.images, splits.test.images)
    assert not torch.equal(digits(split_seed=1).test.images, splits.test.images)


def test_values_are_in_zero_to_one(splits):
    x, _ = everything(splits.train)
    assert (float(x.min()), float(x.max())) == (0.0, 1.0)


def test_a_share_outside_its_range_is_refused_by_name():
    with pytest.raises(BadOption, match=r"test is 1\.2"):
        digits(test=1.2)
    with pytest.raises(BadOption, match=r"validation is 0\.0"):
        digits(validation=0.0)
