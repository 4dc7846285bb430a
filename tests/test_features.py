"""Tests of dgmrec_pyg.nn.models.features."""

from __future__ import annotations

import pytest
import torch
from conftest import make_data
from dense_models import cosines, nearest_mask, symmetric
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.errors import UserError
from dgmrec_pyg.nn.models.features import (
    borrow_for_new,
    filled_features,
    nearest_items,
    normalized_weight,
    sum_neighbors,
    unfilled,
    without_new,
)
from dgmrec_pyg.schema import missing_mask, missing_matrix
from dgmrec_pyg.transforms import ImputeMissing


@pytest.fixture
def x() -> Tensor:
    return torch.randn(40, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def is_new() -> Tensor:
    return torch.arange(40) % 7 == 3


def dense(neighbor: Tensor, weight: Tensor) -> Tensor:
    return torch.zeros(40, 40).scatter(1, neighbor, weight)


def test_missing_rows_get_the_mean_of_the_observed_old_items(small_data: HeteroData, is_new: Tensor) -> None:
    small_data['item'].is_new = is_new
    filled = filled_features(small_data)
    assert list(filled) == ['audio', 'image', 'text']
    for m, table in filled.items():
        missing, before = missing_mask(small_data, m), small_data['item'][f'x_{m}']
        assert table[~missing].equal(before[~missing])
        expected = before[~missing & ~is_new].mean(dim=0).expand(int(missing.sum()), -1)
        torch.testing.assert_close(table[missing], expected)


def test_what_a_transform_has_filled_in_is_kept(small_data: HeteroData) -> None:
    small_data['item'].imputed = 'something'
    filled = filled_features(small_data)
    for m, table in filled.items():
        assert table.equal(small_data['item'][f'x_{m}'])
        table += 1.0  # A copy: this must not reach the data.
        assert not table.equal(small_data['item'][f'x_{m}'])


def test_method_is_passed_on(small_data: HeteroData) -> None:
    filled = filled_features(small_data, 'zero')
    assert not filled['text'][missing_mask(small_data, 'text')].any()


def test_no_features(small_data: HeteroData) -> None:
    for m in ('audio', 'image', 'text'):
        del small_data['item'][f'x_{m}']
    with pytest.raises(UserError, match='needs features of the items, and the set has none'):
        filled_features(small_data)


def test_observed_features_that_are_not_finite() -> None:
    data = make_data(missing_rate=0.0)
    data['item'].x_text[[5, 8], 0] = float('nan')
    with pytest.raises(UserError, match=r"feature 'text' of 2 items is not finite \(first: item 5\)"):
        filled_features(data)


@pytest.mark.parametrize('block_size', [1, 7, 256])
@pytest.mark.parametrize('k', [1, 6, 50])
def test_nearest_items_equal_dense(x: Tensor, k: int, block_size: int) -> None:
    neighbor, similarity = nearest_items(x, k, block_size=block_size)
    mask = nearest_mask(cosines(x), k)
    torch.testing.assert_close(dense(neighbor, similarity), mask * cosines(x))
    assert neighbor[:, 0].equal(torch.arange(40))


def test_new_items_are_nobodys_neighbors(x: Tensor, is_new: Tensor) -> None:
    neighbor, similarity = nearest_items(x, 6, is_new)
    allowed = cosines(x).masked_fill(is_new, -2.0)
    torch.testing.assert_close(dense(neighbor, similarity), nearest_mask(allowed, 6) * cosines(x))
    assert not is_new[neighbor].any()


def test_normalized_weight_equals_dense(x: Tensor) -> None:
    neighbor, similarity = nearest_items(x, 6)
    weight = similarity.clamp(min=0)
    torch.testing.assert_close(dense(neighbor, normalized_weight(neighbor, weight)), symmetric(dense(neighbor, weight)))


def test_rows_without_weight_stay_without() -> None:
    weight = normalized_weight(torch.tensor([[0, 1], [1, 0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    assert weight.tolist() == [[0.0, 0.0], [1.0, 0.0]]


def test_sum_neighbors_and_its_gradients_equal_dense(x: Tensor) -> None:
    neighbor, weight = nearest_items(x, 6)
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    out, expected = sum_neighbors(x, neighbor, weight), dense(neighbor, weight) @ x
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(torch.autograd.grad(out.square().sum(), (x, weight)),
                               torch.autograd.grad(expected.square().sum(), (x, weight)))


def test_where_all_items_are_new_there_are_no_neighbors(x: Tensor) -> None:
    neighbor, similarity = nearest_items(x, 6, torch.ones(40, dtype=torch.bool))
    assert neighbor.shape == similarity.shape == (40, 0)
    assert sum_neighbors(x, neighbor, normalized_weight(neighbor, similarity)).equal(torch.zeros_like(x))


def test_without_new(x: Tensor, is_new: Tensor) -> None:
    assert without_new(x, None) is x
    kept = without_new(x, is_new)
    assert not kept[is_new].any()
    assert kept[~is_new].equal(x[~is_new])


def test_a_new_item_borrows_by_the_modalities_that_it_has() -> None:
    """Item 3 is like item 0 in image and like item 1 in text; item 4 has image alone, item 5 nothing."""
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, 1.0], [9.0, 9.0], [1.0, 0.0]])
    values = torch.tensor([[2.0], [4.0], [100.0], [-7.0], [-7.0], [-7.0]])
    missing = torch.tensor([[False, False]] * 4 + [[False, True], [True, True]])
    is_new = torch.tensor([False] * 3 + [True] * 3)
    borrowed = borrow_for_new(values, {'image': image, 'text': text}, missing, is_new, k=1)
    assert borrowed.view(-1).tolist() == [2.0, 4.0, 100.0, 3.0, 4.0, 3.0]
    assert borrow_for_new(values, {'image': image, 'text': text}, missing, None) is values
    assert values[3:].view(-1).tolist() == [-7.0] * 3


def test_nobody_lends_what_it_lacks() -> None:
    image = torch.tensor([[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]])
    missing = torch.tensor([[True], [False], [False]])
    borrowed = borrow_for_new(torch.tensor([[2.0], [4.0], [0.0]]), {'image': image}, missing,
                              torch.tensor([False, False, True]), k=1)
    assert borrowed[2].item() == 4.0


def test_unfilled_are_the_missing_ones_until_a_transform_has_imputed_them(small_data: HeteroData) -> None:
    missing = missing_matrix(small_data)
    assert missing.any()
    assert unfilled(small_data).equal(missing)
    assert unfilled(ImputeMissing()(small_data)).equal(torch.zeros_like(missing))
