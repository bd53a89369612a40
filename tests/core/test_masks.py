import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snnsl_plugin.core.masks import density, grown, keep_top, masked_first
from snnsl_plugin.errors import BadOption, Diverged
from snnsl_plugin.testing import slow_keep_top


def test_keeps_the_largest_and_breaks_ties_by_flat_index() -> None:
    scores = torch.tensor([[0.0, 2.0, 1.0], [1.0, 1.0, 0.0]])
    assert keep_top(scores, 3).tolist() == [[False, True, True], [True, False, False]]


def test_fifty_of_a_hundred_with_ten_active_are_fifty() -> None:
    scores = torch.zeros(100)
    scores[::10] = 1.0
    mask = keep_top(scores, 50)
    assert int(mask.sum()) == 50
    assert bool(mask[::10].all())
    assert bool(mask[:45].all())  # the lowest forty silent ones lie among the first 45


@given(
    st.lists(st.sampled_from([0.0, -0.0, 0.5, 1.0, -1.0, float("inf")]), min_size=1, max_size=60),
    st.data(),
)
def test_equals_a_stable_sort_on_tied_scores(values: list[float], data: st.DataObject) -> None:
    scores = torch.tensor(values)
    among = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    n_keep = data.draw(st.integers(0, int(among.sum())))
    mask = keep_top(scores, n_keep, among)
    assert int(mask.sum()) == n_keep
    assert torch.equal(mask, slow_keep_top(scores, n_keep, among))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_is_exact_in_every_precision(dtype: torch.dtype) -> None:
    scores = torch.randn(7, 11, generator=torch.Generator().manual_seed(0)).to(dtype)
    for n_keep in range(78):
        assert torch.equal(keep_top(scores, n_keep), slow_keep_top(scores.double(), n_keep))


def test_nan_and_impossible_counts_raise_with_a_way_out() -> None:
    with pytest.raises(Diverged, match="a score is NaN"):
        keep_top(torch.tensor([1.0, float("nan")]), 1)
    with pytest.raises(BadOption, match="cannot keep 3 of 2 candidates"):
        keep_top(torch.ones(2), 3)
    with pytest.raises(BadOption, match="cannot keep -1"):
        keep_top(torch.ones(2), -1)


def test_a_nan_among_the_others_is_nobodys_business() -> None:
    among = torch.tensor([True, False])
    assert keep_top(torch.tensor([1.0, float("nan")]), 1, among).tolist() == [True, False]


def test_infinities_of_both_signs_are_no_nan() -> None:
    assert keep_top(torch.tensor([float("inf"), float("-inf")]), 1).tolist() == [True, False]


def test_density_and_grown_by_hand() -> None:
    before, after = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    assert density([before, after]) == 4 / 6
    assert grown(before, after).tolist() == [False, True, False]
    with pytest.raises(BadOption, match="no weights at all"):
        density([])


def test_ranks_of_scores_that_are_nan_are_refused_where_they_count():
    alive = torch.tensor([True, False, False])
    scores, growth = torch.tensor([1.0, torch.nan, torch.nan]), torch.tensor([torch.nan, 2.0, 3.0])
    assert masked_first(growth, scores, alive).tolist() == [1.0, 5.0, 6.0]
    with pytest.raises(Diverged, match="scores are NaN"):
        masked_first(growth, scores, ~alive)
