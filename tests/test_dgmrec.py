"""Tests of dgmrec_pyg.nn.DGMRec beyond those of every model: modalities and features. Its numbers are held in
test_parity.py."""

from __future__ import annotations

import pytest
import torch
from conftest import make_data
from dgmrec_case import ALL_TERMS, ENCODINGS, REFERENCE, make, tables
from model_training import all_scores, draw_batch, train
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.config import DGMRecConfig
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.nn import DGMRec, LightGCN
from dgmrec_pyg.nn.models import LightGCNConfig
from dgmrec_pyg.schema import (
    INTERACTS,
    ITEM,
    REV_INTERACTS,
    USER,
    feature_key,
    missing_key,
    missing_matrix,
    modality_names,
)


@pytest.mark.parametrize('config', [DGMRecConfig(), ALL_TERMS, REFERENCE], ids=['default', 'all_terms', 'reference'])
def test_values_of_missing_features_are_never_used(config: DGMRecConfig, small_data: HeteroData) -> None:
    poisoned = small_data.clone()
    for m in modality_names(poisoned):
        poisoned[ITEM][feature_key(m)][poisoned[ITEM][missing_key(m)]] = float('nan')
    model, other = make(small_data, config), make(poisoned, config)
    assert train(model, small_data, epochs=5) == train(other, poisoned, epochs=5)
    assert all_scores(model).equal(all_scores(other))
    assert all_scores(model).isfinite().all()


def test_order_of_modalities_does_not_matter(small_data: HeteroData) -> None:
    turned = HeteroData()
    turned[USER].num_nodes, turned[ITEM].num_nodes = 30, 40
    for key in reversed(list(small_data[ITEM].keys())):
        turned[ITEM][key] = small_data[ITEM][key]
    for kind in (REV_INTERACTS, INTERACTS):
        turned[kind].edge_index = small_data[kind].edge_index
    model, other = make(small_data, ALL_TERMS), make(turned, ALL_TERMS)
    assert train(model, small_data, epochs=5) == train(other, small_data, epochs=5)
    assert all_scores(model).equal(all_scores(other))


@pytest.mark.parametrize('modalities', [
    {'items': 4, 'keys': 5, 'type': 3},
    {'a.b': 4, 'vggish': 5},
    {'a': 2, 'b': 3, 'c': 4, 'd': 5},
])
def test_modalities_may_have_any_name_and_number(modalities: dict[str, int]) -> None:
    data = make_data(modalities=modalities)
    model = make(data, ALL_TERMS)
    assert all(loss == loss for loss in train(model, data, epochs=5))
    assert model.modalities == sorted(modalities)
    for m, size in modalities.items():
        assert model.features(m).shape == (40, size)
        assert model.general(m).shape == model.specific(m).shape == (40, model.config.hidden_channels)


@pytest.mark.parametrize('ranking_loss', ['softmax', 'bpr'])
def test_without_modality_weight_scores_are_those_of_light_gcn(ranking_loss: str, small_data: HeteroData) -> None:
    both = {'hidden_channels': 8, 'num_layers': 2, 'ranking_loss': ranking_loss}
    model = make(small_data, DGMRecConfig(modality_weight=0.0, **both))
    light_gcn = LightGCN.from_data(small_data, LightGCNConfig(**both))
    light_gcn.user_embedding, light_gcn.item_embedding = model.user_embedding, model.item_embedding
    torch.testing.assert_close(all_scores(model), all_scores(light_gcn))


def test_twice_the_modality_weight_is_twice_the_share_of_the_modalities(small_data: HeteroData) -> None:
    once, twice = (make(small_data, DGMRecConfig(modality_weight=weight, ranking_loss='bpr')) for weight in (4.0, 8.0))
    for of_once, of_twice, alone in zip(once.embed(), twice.embed(), once.collaborative(), strict=True):
        assert (of_once - alone).abs().max() > 0.01
        torch.testing.assert_close(of_twice - alone, 2.0 * (of_once - alone))


@pytest.mark.parametrize('modalities', [{}, {'image': 4}])
def test_fewer_than_two_modalities_are_an_error(modalities: dict[str, int]) -> None:
    data = make_data(modalities={'image': 4, 'text': 3})
    for m in {'image', 'text'} - modalities.keys():
        del data[ITEM][feature_key(m)]
    with pytest.raises(UserError, match='needs two or more modalities'):
        DGMRec.from_data(data)


def test_observed_features_that_are_not_finite_are_an_error(small_data: HeteroData) -> None:
    item = int((~small_data[ITEM].missing_image).nonzero()[2])
    small_data[ITEM].x_image[item, 0] = float('inf')
    with pytest.raises(UserError, match=rf"feature 'image' of 1 items is not finite \(first: item {item}\)"):
        DGMRec.from_data(small_data)


def test_unknown_modality_is_an_error(small_data: HeteroData) -> None:
    model = make(small_data)
    for ask in (model.features, model.general, model.specific, model.item_graph):
        with pytest.raises(UserError, match=r"unknown modality 'video' \(known: audio, image, text\)"):
            ask('video')


@pytest.mark.parametrize('train_features', [True, False])
def test_whether_features_are_trained_is_a_setting(train_features: bool, small_data: HeteroData) -> None:
    model = make(small_data, DGMRecConfig(train_features=train_features))
    missing = missing_matrix(small_data)
    trained = {id(parameter) for parameter in model.trainable_parameters()}
    before = tables(model)
    train(model, small_data, epochs=2)
    for column, m in enumerate(model.modalities):
        assert (id(dict(model.named_parameters())[f'feature_tables.{m}']) in trained) == train_features
        observed = ~missing[:, column]
        assert model.features(m)[observed].equal(before[m][observed]) != train_features
        assert not model.features(m)[~observed].equal(before[m][~observed])


def test_filled_features_are_not_imputed_again(small_data: HeteroData) -> None:
    small_data[ITEM].imputed = 'mean'
    before = small_data.clone()
    model = make(small_data)
    for m in model.modalities:
        assert model.features(m).equal(before[ITEM][feature_key(m)])
    train(model, small_data, epochs=2)
    for m in model.modalities:
        assert small_data[ITEM][feature_key(m)].equal(before[ITEM][feature_key(m)])


@pytest.mark.parametrize('channels', [3, 100])
def test_features_may_be_made_narrow(channels: int, small_data: HeteroData) -> None:
    model = make(small_data, ENCODINGS.replace(feature_channels=channels))
    plain = make(small_data, ENCODINGS)
    for m in model.modalities:
        assert model.feature_tables[m].size(1) == min(channels, plain.feature_tables[m].size(1))
        assert model.features(m).shape == plain.features(m).shape
        if channels == 100:  # Nothing is lost then.
            torch.testing.assert_close(model.features(m), plain.features(m), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(sorted(model.item_graph(m)[0].t().tolist()),
                                   sorted(plain.item_graph(m)[0].t().tolist()))
    model.start_epoch(5)
    before = model.loss_terms(*draw_batch(small_data))
    train(model, small_data, 8)
    after = model.loss_terms(*draw_batch(small_data))
    # Not the whole loss: the alignments rise at first.
    assert all(after[term] < before[term] for term in ('softmax', 'generation', 'feature_generation'))
    again = make(small_data, DGMRecConfig(feature_channels=channels))
    again.load_state_dict(model.state_dict())
    assert torch.equal(all_scores(again), all_scores(model))


@pytest.mark.parametrize('factor', [2.0 ** -30, 2.0 ** 7, 2.0 ** 30])
def test_scale_of_a_modality_changes_nothing_but_its_features(factor: float, small_data: HeteroData) -> None:
    scaled = small_data.clone()
    scaled[ITEM].x_image = small_data[ITEM].x_image * factor
    models = [make(data) for data in (small_data, scaled)]
    losses = [train(model, small_data, 6) for model in models]
    assert losses[0] == losses[1]
    assert torch.equal(all_scores(models[0]), all_scores(models[1]))
    assert torch.equal(models[0].features('image') * factor, models[1].features('image'))
    assert torch.equal(models[0].features('text'), models[1].features('text'))


def test_a_modality_with_a_large_mean_does_not_rule_the_loss(small_data: HeteroData) -> None:
    small_data[ITEM].x_image = small_data[ITEM].x_image + 128.0
    small_data[ITEM].x_text = small_data[ITEM].x_text * 1e-8
    user, positive, negative = draw_batch(small_data)
    terms = make(small_data, ENCODINGS).loss_terms(user, positive, negative)
    assert terms['reconstruction'] < 10.0
    released = make(small_data, REFERENCE).loss_terms(user, positive, negative)
    assert released['reconstruction'] > 10_000.0  # on the scale of the features, as released


def test_all_items_of_a_forward_pass_have_their_own_gradient(small_data: HeteroData) -> None:
    model = make(small_data, DGMRecConfig())
    items = torch.tensor([3, 1, 5])

    def gradient(only_some: bool) -> Tensor:
        parts = model.parts(items=items) if only_some else model.parts()
        rows = parts.items if only_some else parts.items.select(items)
        loss = parts.all_items.fused().square().sum() + rows.fused().sum() + parts.users.fused().square().sum()
        return torch.autograd.grad(loss, model.user_embedding.weight)[0]

    torch.testing.assert_close(gradient(True), gradient(False))
