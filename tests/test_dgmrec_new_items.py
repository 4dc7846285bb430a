"""Tests of DGMRec with held-out new items."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import make_data
from dgmrec_case import ALL_TERMS, REFERENCE, make, with_new_items
from model_training import all_scores, train
from torch_geometric.data import HeteroData

from dgmrec_pyg.config import DGMRecConfig
from dgmrec_pyg.nn.models.dgmrec_fold_in import LENDERS
from dgmrec_pyg.nn.models.dgmrec_terms import Side
from dgmrec_pyg.regression import EmbeddingRegression
from dgmrec_pyg.schema import ITEM, build_data, feature_key, missing_key, modality_names
from dgmrec_pyg.transforms import HoldOutNewItems


def test_id_embedding_of_new_items_does_not_matter(small_data: HeteroData) -> None:
    data = with_new_items(small_data)
    model = make(data)
    expected = all_scores(model)
    with torch.no_grad():
        model.item_embedding.weight[data[ITEM].is_new] += 10.0
    assert all_scores(model).equal(expected)


def test_new_items_can_be_recommended(small_data: HeteroData) -> None:
    data = with_new_items(small_data)
    model = make(data)
    train(model, data, epochs=5)
    assert all_scores(model).isfinite().all()
    ids, _ = model.recommend([0, 1, 2], k=5, items=data[ITEM].is_new.nonzero().view(-1))
    assert (ids >= 0).all()
    assert data[ITEM].is_new[ids].all()
    new_items = model.embed()[1][data[ITEM].is_new]
    assert new_items.unique(dim=0).size(0) == new_items.size(0)  # told apart by their features alone


@pytest.mark.parametrize('config', [DGMRecConfig(), ALL_TERMS, REFERENCE, DGMRecConfig(feature_channels=3)],
                         ids=['default', 'all_terms', 'reference', 'narrow'])
def test_new_items_take_no_part_in_training(config: DGMRecConfig, small_data: HeteroData) -> None:
    data = with_new_items(small_data)
    other = data.clone()
    is_new = data[ITEM].is_new
    for m in modality_names(data):
        other[ITEM][feature_key(m)] = torch.where(is_new[:, None], 3.0 - data[ITEM][feature_key(m)],
                                                  data[ITEM][feature_key(m)])
    models = [make(data, config), make(other, config)]
    for model in models:
        train(model, data, epochs=6)
    parameters = [dict(model.named_parameters()) for model in models]
    for name, parameter in parameters[0].items():
        rows = ~is_new if name.startswith('feature_tables') else slice(None)
        assert parameter[rows].equal(parameters[1][name][rows]), name
    assert not models[0].embed()[1][is_new].equal(models[1].embed()[1][is_new])
    assert models[0].embed()[1][~is_new].equal(models[1].embed()[1][~is_new])


def test_training_leaves_the_features_of_new_items_as_they_are(small_data: HeteroData) -> None:
    data = with_new_items(small_data)
    model = make(data)
    train(model, data, epochs=5)
    for m in model.modalities:
        known = data[ITEM].is_new & ~data[ITEM][missing_key(m)]
        assert model.features(m)[known].equal(data[ITEM][feature_key(m)][known])


@pytest.mark.parametrize('config', [DGMRecConfig(), REFERENCE], ids=['default', 'reference'])
def test_new_items_get_the_mean_of_the_old_ones_that_their_features_place_nearest(config: DGMRecConfig,
                                                                                  small_data: HeteroData) -> None:
    data = with_new_items(small_data)
    model = make(data, config)
    train(model, data, epochs=3)
    is_new = data[ITEM].is_new
    without = model.parts(model._role()).items  # Old rows are what they are, new ones untrained.
    regression = EmbeddingRegression(model.feature_tables, ~is_new)
    columns = regression.columns(model.feature_tables)
    place = F.normalize(regression.fit(columns, model.embed()[1])(columns))
    similarity = (place @ place.t()).masked_fill(is_new, -torch.inf)
    for item in is_new.nonzero().view(-1).tolist():
        nearest = similarity[item].topk(min(LENDERS, int((~is_new).sum()))).indices
        weight = similarity[item, nearest].clamp(min=0)
        weight = weight / weight.sum()
        borrowed = Side(weight[None] @ without.collaborative[nearest],
                        tuple(weight[None] @ x[nearest] for x in without.filtered), config.modality_weight)
        expected = borrowed.fused()[0]
        expected = expected if config.ranking_loss == 'bpr' else F.normalize(expected, dim=0)
        torch.testing.assert_close(model.embed()[1][item], expected.detach(), rtol=1e-4, atol=1e-5)


def test_without_old_items_new_ones_get_nothing(small_data: HeteroData) -> None:
    model = make(HoldOutNewItems(ratio=1.0)(small_data))
    assert not model.embed()[1].any()


def test_features_that_tell_nothing_give_the_mean_of_all_old_items(small_data: HeteroData) -> None:
    data = with_new_items(small_data)
    for m in modality_names(data):
        data[ITEM][feature_key(m)] = torch.ones_like(data[ITEM][feature_key(m)])
    model = make(data, DGMRecConfig(ranking_loss='bpr'))
    items, is_new = model.embed()[1], data[ITEM].is_new
    torch.testing.assert_close(items[is_new], items[~is_new].mean(dim=0).expand(int(is_new.sum()), -1))


def test_a_loaded_model_places_new_items_as_the_trained_one_did() -> None:
    """Wide features are read by principal components, which must not be those of what training made of them."""
    data = with_new_items(make_data(num_users=40, num_items=400, modalities={'image': 300, 'text': 8}))
    config = DGMRecConfig(train_features=True, generate_from='encodings')
    trained, loaded = make(data, config), make(data, config)
    before = trained.embed()[1]
    train(trained, data, epochs=3)
    loaded.load_state_dict(trained.state_dict())
    assert loaded.embed()[1].equal(trained.embed()[1])
    assert not trained.embed()[1].equal(before)


def test_what_a_fused_step_has_changed_is_read_anew() -> None:
    """It changes tables without counting up their versions; nothing is missing, so nothing else touches them."""
    data = with_new_items(make_data(missing_rate=0.0))
    config = DGMRecConfig(train_features=True, generate_from='encodings')
    trained, loaded = make(data, config), make(data, config)
    trained.embed()
    optimizer = torch.optim.Adam(trained.trainable_parameters(), lr=0.1, fused=True)
    user, item = data['user', 'interacts', 'item'].edge_index[:, :20]
    trained.loss(user, item, item.flip(0)).backward()
    optimizer.step()
    loaded.load_state_dict(trained.state_dict())
    assert trained.embed()[1].equal(loaded.embed()[1])


@pytest.mark.parametrize('inference_graph', ['refreshed', 'initial'])
def test_new_items_are_ranked_by_their_features(inference_graph: str) -> None:
    """Users like the items whose first feature has their sign; new items can be told apart by it alone."""
    generator = torch.Generator().manual_seed(0)
    sign = torch.arange(40) % 2 * 2.0 - 1.0
    liked = (torch.arange(30) % 2 * 2.0 - 1.0)[:, None] == sign
    edges = (liked & (torch.rand(30, 40, generator=generator) < 0.7)).nonzero().t()
    features = {m: 3 * sign[:, None] * torch.ones(40, 4) + torch.randn(40, 4, generator=generator)
                for m in ('image', 'text')}
    data = with_new_items(build_data(num_users=30, num_items=40, edge_index=edges, features=features,
                                     missing={'image': torch.arange(40) % 3 == 0}))
    model = make(data, DGMRecConfig(inference_graph=inference_graph))
    train(model, data, epochs=40)
    ids, _ = model.recommend(torch.arange(30), k=5, items=data[ITEM].is_new.nonzero().view(-1))
    assert liked.gather(1, ids).float().mean() > 0.9
