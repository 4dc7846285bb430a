from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.datasets.synthetic import SyntheticMultimodal
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.schema import INTERACTS, REV_INTERACTS, item_features, missing_matrix, modality_names, training_edges
from dgmrec_pyg.transforms import MissingModality

LABELS = ('edge_index', 'val_edge_label_index', 'test_edge_label_index')


@pytest.fixture(scope='module')
def data() -> HeteroData:
    return SyntheticMultimodal()[0]


def small(**arguments: Any) -> HeteroData:
    return SyntheticMultimodal(**{'num_users': 40, 'num_items': 30, **arguments})[0]


def dense(data: HeteroData, key: str) -> Tensor:
    """The pairs as a matrix ``[num_users, num_items]`` of counts."""
    user, item = data[INTERACTS][key]
    size = (data['user'].num_nodes, data['item'].num_nodes)
    return torch.zeros(size).index_put((user, item), torch.ones(user.numel()), accumulate=True)


def test_schema(data: HeteroData) -> None:
    data.validate()
    assert (data['user'].num_nodes, data['item'].num_nodes) == (1000, 800)
    assert {name: item_features(data, name).size(1) for name in modality_names(data)} == {
        'audio': 32, 'image': 64, 'text': 48}
    for name in modality_names(data):
        x = item_features(data, name)
        assert x.dtype == torch.float32
        assert x.size(0) == 800
        assert x.isfinite().all()
    assert not missing_matrix(data).any()
    assert data[REV_INTERACTS].edge_index.equal(training_edges(data).flip(0))


def test_dataset_and_its_transform() -> None:
    dataset = SyntheticMultimodal(40, 30, transform=MissingModality(0.5))
    assert len(dataset) == 1
    assert repr(dataset) == 'SyntheticMultimodal()'
    assert int(missing_matrix(dataset[0]).any(dim=1).sum()) == 15
    assert not missing_matrix(small()).any()


def test_split(data: HeteroData) -> None:
    train, val, test = (dense(data, key) for key in LABELS)
    assert (train + val + test).max() == 1  # no pair twice, in one part or in two
    count = (train + val + test).sum(dim=1)
    assert count.min() >= 5
    assert count.mean().item() == pytest.approx(8, abs=0.5)
    held_out = (count / 10).round().clamp(min=1)
    assert val.sum(dim=1).equal(held_out)
    assert test.sum(dim=1).equal(held_out)
    assert train.sum(dim=1).min() >= 3


def test_users_in_several_blocks() -> None:
    data = SyntheticMultimodal(2100, 20)[0]
    count = sum(dense(data, key) for key in LABELS)
    assert count.max() == 1
    assert count.sum(dim=1).min() >= 5
    assert count.sum(dim=1).max() <= 10  # half of the items


def test_seed() -> None:
    first, again, other = small(seed=1), small(seed=1), small(seed=2)
    assert all(first[INTERACTS][key].equal(again[INTERACTS][key]) for key in LABELS)
    assert all(item_features(first, name).equal(item_features(again, name)) for name in modality_names(first))
    assert not training_edges(first).equal(training_edges(other))
    assert not item_features(first, 'text').equal(item_features(other, 'text'))


def test_order_of_modalities_does_not_matter() -> None:
    first, turned = small(modalities={'a': 4, 'b': 6}), small(modalities={'b': 6, 'a': 4})
    assert modality_names(first) == ['a', 'b']
    assert training_edges(first).equal(training_edges(turned))
    assert item_features(first, 'b').equal(item_features(turned, 'b'))


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    small()
    assert torch.get_rng_state().equal(before)


def test_popularity_skew() -> None:
    flat, skewed = (dense(SyntheticMultimodal(popularity_skew=skew)[0], 'edge_index').sum(dim=0) for skew in (0, 1))
    assert skewed.sort(descending=True).values[:80].sum() > 1.3 * flat.sort(descending=True).values[:80].sum()


def test_noise() -> None:
    clear, noisy = (item_features(small(noise=noise), 'text') for noise in (0, 0.5))
    assert clear.abs().max() <= 1
    assert (noisy - clear).std().item() == pytest.approx(0.5, rel=0.1)


def test_modalities_tell_about_each_other_but_not_all(data: HeteroData) -> None:
    """A linear map from text explains a good part of image on other items; image itself explains more."""
    image, text = (item_features(data, name).double() for name in ('image', 'text'))
    image = image - image.mean(dim=0)

    def explained(x: Tensor) -> float:
        x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
        ridge = x[:600].t() @ x[:600] + torch.eye(x.size(1))
        guess = x[600:] @ torch.linalg.solve(ridge, x[:600].t() @ image[:600])
        return 1 - ((guess - image[600:]).square().sum() / image[600:].square().sum()).item()

    _, _, basis = torch.pca_lowrank(image, q=10, niter=5)
    assert 0.2 < explained(text) < explained(image @ basis) - 0.2


def recall_at_20(scores: Tensor, data: HeteroData) -> float:
    train, test = dense(data, 'edge_index'), dense(data, 'test_edge_label_index')
    top = scores.masked_fill(train > 0, -torch.inf).topk(20).indices
    return (test.gather(1, top).sum(dim=1) / test.sum(dim=1)).mean().item()


def standardize(x: Tensor, dim: int) -> Tensor:
    return (x - x.mean(dim=dim, keepdim=True)) / x.std(dim=dim, keepdim=True)


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_modalities_matter(seed: int) -> None:
    """Content beats popularity and adds to co-occurrence, and co-occurrence beats popularity."""
    data = SyntheticMultimodal(seed=seed)[0]
    train = dense(data, 'edge_index')
    popularity = train.sum(dim=0)
    content = torch.zeros_like(train)
    for name in modality_names(data):
        x = torch.nn.functional.normalize(standardize(item_features(data, name), dim=0))
        content += standardize(torch.nn.functional.normalize(train @ x) @ x.t(), dim=1)
    together = train.t() @ train / (popularity[:, None] * popularity).sqrt().clamp(min=1)
    collaborative = train @ together.fill_diagonal_(0)
    both = standardize(content, dim=1) + standardize(collaborative, dim=1)

    by_popularity = recall_at_20(popularity.expand_as(train), data)
    by_collaboration = recall_at_20(collaborative, data)
    assert recall_at_20(content, data) > 1.5 * by_popularity
    assert by_collaboration > 1.25 * by_popularity
    assert recall_at_20(both, data) > 1.3 * by_collaboration


@pytest.mark.parametrize(('arguments', 'message'), [
    ({'num_users': 0}, 'num_users is 0; give 1 or more'),
    ({'num_items': 9}, 'num_items is 9; give 10 or more'),
    ({'modalities': {}}, 'num_modalities is 0'),
    ({'modalities': {'audio': 0}}, r'modalities\[audio\] is 0'),
    ({'interactions_per_user': 2}, 'interactions_per_user is 2; give 5 or more'),
    ({'noise': -1}, 'noise is -1; give 0 or more'),
    ({'popularity_skew': float('nan')}, 'popularity_skew is nan'),
    ({'taste_strength': float('inf')}, 'taste_strength is inf'),
    ({'num_shared': 0}, 'num_shared is 0'),
    ({'num_specific': 0}, 'num_specific is 0'),
])
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small(**arguments)
