from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import Compose

from dgmrec_pyg.errors import UserError
from dgmrec_pyg.schema import INTERACTS, REV_INTERACTS, build_data, training_edges
from dgmrec_pyg.transforms import HoldOutNewItems, MissingModality

LABELS = ('edge_index', 'val_edge_label_index', 'test_edge_label_index')


def pairs(edge_index: Tensor) -> list[tuple[int, int]]:
    return sorted(map(tuple, edge_index.t().tolist()))


def test_every_pair_stands_where_it_belongs(small_data: HeteroData) -> None:
    data = HoldOutNewItems(0.3)(small_data)
    is_new = data['item'].is_new
    train, val, test = (pairs(small_data[INTERACTS][key]) for key in LABELS)
    new = {item for item in range(40) if is_new[item]}
    moved = [pair for pair in train + val if pair[1] in new]
    assert moved
    assert pairs(data[INTERACTS].edge_index) == [pair for pair in train if pair[1] not in new]
    assert pairs(data[INTERACTS].val_edge_label_index) == [pair for pair in val if pair[1] not in new]
    assert pairs(data[INTERACTS].test_edge_label_index) == sorted(test + moved)


def test_no_pair_is_lost_or_doubled(small_data: HeteroData) -> None:
    before, after = (torch.cat([graph[INTERACTS][key] for key in LABELS], dim=1)
                     for graph in (small_data, HoldOutNewItems()(small_data)))
    assert pairs(before) == pairs(after)


def test_both_directions_are_in_step(small_data: HeteroData) -> None:
    data = HoldOutNewItems()(small_data)
    assert data[REV_INTERACTS].edge_index.equal(data[INTERACTS].edge_index.flip(0))
    assert training_edges(data).size(1) < training_edges(small_data).size(1)


@pytest.mark.parametrize('ratio', [0, 0.2, 0.35, 1])
def test_shares_of_cold_and_warm_items(ratio: float) -> None:
    item = torch.arange(100)
    degree = item + 1
    edge_index = torch.stack([torch.cat([torch.arange(n) for n in degree]), item.repeat_interleave(degree)])
    data = HoldOutNewItems(ratio)(build_data(num_users=100, num_items=100, edge_index=edge_index, features={}))
    is_new = data['item'].is_new
    assert is_new.dtype == torch.bool
    assert int(is_new.sum()) == round(ratio * 100)
    assert abs(int(is_new[:70].sum()) - ratio * 70) < 1
    assert abs(int(is_new[70:].sum()) - ratio * 30) < 1
    assert data['item'].popularity.tolist() == degree.tolist()  # as it was before


def test_all_items_tie() -> None:
    edge_index = torch.zeros(2, 0, dtype=torch.long)
    draws = {tuple(HoldOutNewItems(0.2, seed)(build_data(num_users=1, num_items=50, edge_index=edge_index, features={}))
                   ['item'].is_new.nonzero().view(-1).tolist()) for seed in range(5)}
    assert len(draws) == 5
    # Of equally popular items the 35 of lower ids are cold.
    assert all(len(draw) == 10 and sum(item < 35 for item in draw) == 7 for draw in draws)


def test_seed(small_data: HeteroData) -> None:
    first, again, other = (HoldOutNewItems(seed=seed)(small_data)['item'].is_new for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)


def test_inputs_are_not_written_to(small_data: HeteroData) -> None:
    before = copy.deepcopy(small_data)
    HoldOutNewItems()(small_data)
    assert list(small_data['item'].keys()) == list(before['item'].keys())
    for key in LABELS:
        assert small_data[INTERACTS][key].equal(before[INTERACTS][key])
    assert small_data[REV_INTERACTS].edge_index.equal(before[REV_INTERACTS].edge_index)


def test_missing_modality_finds_the_popularity_from_before(small_data: HeteroData) -> None:
    data = Compose([HoldOutNewItems(), MissingModality(0.5)])(small_data)
    degree = training_edges(small_data)[1].bincount(minlength=40)
    assert data['item'].popularity.equal(degree)
    assert data['item'].popularity[data['item'].is_new].sum() > 0


def test_second_time_is_refused(small_data: HeteroData) -> None:
    with pytest.raises(UserError, match='only once'):
        Compose([HoldOutNewItems(), HoldOutNewItems()])(small_data)


@pytest.mark.parametrize('ratio', [-0.1, 1.1, float('nan')])
def test_wrong_ratio(ratio: float) -> None:
    with pytest.raises(UserError, match='between 0 and 1'):
        HoldOutNewItems(ratio)


def test_repr() -> None:
    assert repr(HoldOutNewItems()) == 'HoldOutNewItems(ratio=0.2, seed=1111)'
