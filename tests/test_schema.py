"""Tests of dgmrec_pyg.schema."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import HeteroData

from dgmrec_pyg.schema import ITEM, build_data, cold_items, missing_mask, missing_matrix, modality_names


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
