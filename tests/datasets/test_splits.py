"""Draws: exact, stratified, disjoint, and a function of the seed alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snnsl_plugin.datasets._splits import draw_train, fold_of, hold_out, quotas
from snnsl_plugin.errors import BadOption


def labels_of(*sizes):
    return torch.tensor([label for label, size in enumerate(sizes) for _ in range(size)])


def test_quotas_worked_by_hand():
    assert quotas([10, 10, 10], 0.1) == [1, 1, 1]
    # 0.1 * 25 = 2.5 rounds to 2 (to even): exact shares 0.5, 0.7, 1.3; whole parts 0, 0, 1; the odd one goes to 0.7
    assert quotas([5, 7, 13], 0.1) == [0, 1, 1]
    # equal remainders: the first class first
    assert quotas([5, 5, 5, 5], 0.1) == [1, 1, 0, 0]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=12), st.floats(0.01, 0.99))
def test_quotas_sum_to_the_rounded_share_and_stay_within_one_of_it(sizes, share):
    taken = quotas(sizes, share)
    assert sum(taken) == round(share * sum(sizes))
    assert all(abs(n - share * size) < 1 and 0 <= n <= size for n, size in zip(taken, sizes, strict=True))


def test_held_out_samples_are_disjoint_cover_all_and_keep_class_shares():
    labels = labels_of(50, 100, 30)
    kept, held = hold_out(labels, ["a", "b", "c"], 0.2, 0, "validation")
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(180))
    assert torch.bincount(labels[held]).tolist() == [10, 20, 6]


def test_the_same_seed_draws_the_same_samples_and_another_seed_others():
    labels = labels_of(50, 50)
    first, again, other = (hold_out(labels, ["a", "b"], 0.2, seed, "validation")[1] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_class_draws_the_same_samples_whatever_other_classes_are_there():
    both = labels_of(40, 40)
    _, held = draw_train(both, ["a", "b"], validation=0.1, validation_per_class=5, per_class=10, seed=1)
    only = labels_of(40)
    _, alone = draw_train(only, ["b"], validation=0.1, validation_per_class=5, per_class=10, seed=1)
    assert (held[both[held] == 1] - 40).tolist() == alone.tolist()


def test_exact_numbers_per_class_for_training_and_validation():
    labels = labels_of(30, 50, 40)
    kept, held = draw_train(labels, list("abc"), validation=0.5, validation_per_class=7, per_class=20, seed=0)
    assert torch.bincount(labels[kept]).tolist() == [20, 20, 20]
    assert torch.bincount(labels[held]).tolist() == [7, 7, 7]
    assert not set(kept.tolist()) & set(held.tolist())


def test_a_share_for_validation_goes_with_a_number_for_training():
    labels = labels_of(30, 50)
    kept, held = draw_train(labels, list("ab"), validation=0.1, validation_per_class=None, per_class=20, seed=0)
    assert torch.bincount(labels[kept]).tolist() == [20, 20]
    assert torch.bincount(labels[held]).tolist() == [3, 5]


def test_folds_are_disjoint_stratified_and_cover_every_sample_once():
    labels = labels_of(13, 22, 8)
    tested = [fold_of(labels, list("abc"), 5, fold, 0)[1] for fold in range(5)]
    assert sorted(torch.cat(tested).tolist()) == list(range(43))
    assert {len(fold) for fold in tested} == {8, 9}
    for label, size in enumerate((13, 22, 8)):
        counts = [int((labels[fold] == label).sum()) for fold in tested]
        assert max(counts) - min(counts) <= 1
        assert sum(counts) == size
    rest, ours = fold_of(labels, list("abc"), 5, 2, 0)
    assert not set(rest.tolist()) & set(ours.tolist())


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_share_outside_zero_to_one_is_refused_with_its_value(share):
    with pytest.raises(BadOption, match=f"validation is {share}"):
        hold_out(labels_of(10, 10), ["a", "b"], share, 0, "validation")


def test_a_class_with_too_few_samples_is_named():
    with pytest.raises(BadOption, match="class 'b' has 5 training samples"):
        draw_train(labels_of(50, 5), ["a", "b"], validation=0.1, validation_per_class=3, per_class=4, seed=0)


@pytest.mark.parametrize(("option", "value"), [("per_class", 0), ("validation_per_class", -1)])
def test_a_number_per_class_below_one_is_refused(option, value):
    numbers = {"per_class": 5, "validation_per_class": 5, option: value}
    with pytest.raises(BadOption, match=f"{option} is {value}"):
        draw_train(labels_of(50, 50), ["a", "b"], validation=0.1, seed=0, **numbers)


def test_a_share_that_holds_out_nothing_is_refused():
    with pytest.raises(BadOption, match="0 held out"):
        hold_out(labels_of(2, 2), ["a", "b"], 0.05, 0, "validation")


@pytest.mark.parametrize(("folds", "fold"), [(1, 0), (50, 0), (5, 5), (5, -1)])
def test_impossible_folds_are_refused(folds, fold):
    with pytest.raises(BadOption, match="fold"):
        fold_of(labels_of(10, 10), ["a", "b"], folds, fold, 0)
