"""Tests of dgmrec_pyg.nn.models.item_knn."""

from __future__ import annotations

import pytest
import torch
from dense_models import interactions
from model_training import all_scores
from torch_geometric.data import HeteroData

from dgmrec_pyg.nn.models import ItemKNN, ItemKNNConfig
from dgmrec_pyg.schema import INTERACTS, build_data, feature_key


def test_by_hand() -> None:
    """Items 0 and 1 share users 0 and 1, items 1 and 2 share user 2."""
    edges = torch.tensor([[0, 0, 1, 1, 2, 2, 3], [0, 1, 0, 1, 1, 2, 3]])
    data = build_data(num_users=4, num_items=5, edge_index=edges, features={})
    scores = all_scores(ItemKNN.from_data(data, ItemKNNConfig(shrinkage=1.0)))
    first, second = 2 / (6**0.5 + 1), 1 / (3**0.5 + 1)  # 2 and 3 users, 3 and 1 users
    expected = [[first, first, second, 0, 0], [first, first, second, 0, 0], [first, second, second, 0, 0], [0] * 5]
    torch.testing.assert_close(scores, torch.tensor(expected))


@pytest.mark.parametrize('shrinkage', [0.0, 3.0])
@pytest.mark.parametrize('k', [2, 5, 100])
def test_scores_equal_dense_definition(k: int, shrinkage: float, small_data: HeteroData) -> None:
    matrix = interactions(small_data)
    common = matrix.t() @ matrix
    count = matrix.sum(0)
    similarity = (common / ((count[:, None] * count).sqrt() + shrinkage)).nan_to_num().fill_diagonal_(0)
    model = ItemKNN.from_data(small_data, ItemKNNConfig(knn_k=k, shrinkage=shrinkage))
    # Of equally similar items either may be kept; what is kept is read off and checked to be among the best.
    kept = torch.zeros(40, 40)
    source = torch.arange(40).repeat_interleave(model.source_pointer.diff())
    kept[model.target, source] = model.similarity
    torch.testing.assert_close(kept, torch.where(kept > 0, similarity, 0))
    torch.testing.assert_close(kept.sort(dim=1).values[:, -k:], similarity.sort(dim=1).values[:, -k:])
    assert (kept > 0).sum(dim=1).max() <= k
    torch.testing.assert_close(all_scores(model), matrix @ kept.t())


def test_users_in_any_order_and_twice(small_data: HeteroData) -> None:
    model = ItemKNN.from_data(small_data)
    table = all_scores(model)
    users = torch.tensor([7, 3, 7, 29, 0])
    assert model.scorer()(users).equal(table[users])
    assert model.scorer()(users[:0]).shape == (0, 40)


def test_repeated_interactions_count_once(small_data: HeteroData) -> None:
    expected = all_scores(ItemKNN.from_data(small_data))
    edges = small_data[INTERACTS].edge_index
    small_data[INTERACTS].edge_index = torch.cat([edges, edges[:, :20]], dim=1)
    assert all_scores(ItemKNN.from_data(small_data)).equal(expected)


def test_no_interactions_and_no_features_are_needed(small_data: HeteroData) -> None:
    expected = all_scores(ItemKNN.from_data(small_data))
    for m in ('audio', 'image', 'text'):
        del small_data['item'][feature_key(m)]
    assert all_scores(ItemKNN.from_data(small_data)).equal(expected)
    small_data[INTERACTS].edge_index = torch.empty(2, 0, dtype=torch.long)
    assert not all_scores(ItemKNN.from_data(small_data)).any()
