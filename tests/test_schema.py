"""Tests of dgmrec_pyg.schema."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import HeteroData

from dgmrec_pyg.datasets import data_hash
from dgmrec_pyg.datasets.statistics import set_sizes
from dgmrec_pyg.evaluation import item_slices
from dgmrec_pyg.schema import (
    INTERACTS,
    ITEM,
    REV_INTERACTS,
    build_data,
    cold_items,
    feature_key,
    item_features,
    missing_key,
    missing_mask,
    missing_matrix,
    modality_names,
    without_features,
)
from dgmrec_pyg.transforms import HoldOutNewItems


def bought(popularity: list[int]) -> HeteroData:
    """Item i is bought by as many users as the list says."""
    item = torch.arange(len(popularity)).repeat_interleave(torch.tensor(popularity))
    return build_data(num_users=item.numel(), num_items=len(popularity), features={},
                      edge_index=torch.stack([torch.arange(item.numel()), item]))


@pytest.mark.parametrize(('popularity', 'cold'), [
    ([3, 0, 2, 1, 1, 0, 1, 5, 1, 1], [1, 3, 4, 5, 6, 8, 9]),  # by popularity: 1 5 | 3 4 6 8 9 | 2 0 7
    ([2, 1, 1, 1, 1, 1, 1, 1, 1, 1], [1, 2, 3, 4, 5, 6, 7]),  # of equally popular items those of lower ids
    ([0] * 10, [0, 1, 2, 3, 4, 5, 6]),
    ([0, 0], [0]),
])
def test_cold_items_are_the_least_popular(popularity: list[int], cold: list[int]) -> None:
    assert cold_items(bought(popularity)).nonzero().view(-1).tolist() == cold


def test_cold_items_go_by_the_stored_popularity() -> None:
    data = bought([5, 4, 3, 2, 1])
    assert cold_items(data).tolist() == [False, True, True, True, True]
    data[ITEM].popularity = torch.tensor([1, 2, 3, 4, 5])
    assert cold_items(data).tolist() == [True, True, True, True, False]


def test_missing_matrix_has_the_masks_as_columns(small_data: HeteroData) -> None:
    matrix = missing_matrix(small_data)
    for column, name in enumerate(modality_names(small_data)):
        assert matrix[:, column].equal(missing_mask(small_data, name))
    assert missing_matrix(bought([1, 2, 3])).shape == (3, 0)


def test_without_features_all_but_their_values_is_there(small_data: HeteroData) -> None:
    small_data.raw_id = {'item': list(range(40))}
    data = HoldOutNewItems()(small_data)
    before = data_hash(data)
    slim = without_features(data)
    assert data_hash(data) == before
    assert set_sizes(slim) == set_sizes(data)
    for edges in (INTERACTS, REV_INTERACTS):
        assert slim[edges].edge_index is data[edges].edge_index
    assert slim.raw_id is data.raw_id
    assert slim[ITEM].is_new is data[ITEM].is_new
    assert slim[ITEM].popularity is data[ITEM].popularity
    slices, expected = item_slices(slim), item_slices(data)
    assert slices.keys() == expected.keys()
    assert all(mask.equal(expected[name]) for name, mask in slices.items())


def test_values_of_features_that_were_let_go_are_refused(small_data: HeteroData) -> None:
    slim = without_features(small_data)
    for name in modality_names(small_data):
        assert item_features(slim, name).dtype == torch.float32
        with pytest.raises(RuntimeError, match='meta'):
            item_features(slim, name).sum().item()
    with pytest.raises(NotImplementedError, match='meta'):
        data_hash(slim)


def test_without_features_a_modality_without_a_mask_is_complete(small_data: HeteroData) -> None:
    del small_data[ITEM][missing_key('text')]
    slim = without_features(small_data)
    assert missing_matrix(slim).equal(missing_matrix(small_data))
    assert missing_key('text') not in small_data[ITEM]
    assert slim[ITEM][feature_key('text')].device != small_data[ITEM][feature_key('text')].device
