"""Tests of what DGMRec does once per epoch: features are generated, item graphs refreshed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import make_data
from dgmrec_case import ENCODINGS, REFERENCE, make, tables, with_new_items
from model_training import all_scores, draw_batch, train
from torch_geometric.data import HeteroData

from dgmrec_pyg.config import DGMRecConfig
from dgmrec_pyg.regression import FeatureRegression
from dgmrec_pyg.schema import ITEM, build_data, feature_key, missing_matrix


@pytest.mark.parametrize('generate_for', ['single', 'all'])
@pytest.mark.parametrize('generate_from', ['features', 'encodings'])
def test_generation_writes_the_rows_that_it_should(generate_for: str, generate_from: str) -> None:
    small_data = make_data(num_users=90, num_items=120)
    model = make(small_data, DGMRecConfig(generate_for=generate_for, generate_from=generate_from))
    missing = missing_matrix(small_data)
    assert (missing.sum(dim=1) > 1).any()
    before = tables(model)
    model.generate_missing()
    for column, m in enumerate(model.modalities):
        rows = missing[:, column]
        if generate_for == 'single':
            rows = rows & (missing.sum(dim=1) == 1)
        assert rows.any()
        assert (model.features(m) != before[m]).any(dim=1).equal(rows)


def test_without_generation_what_was_imputed_stays(small_data: HeteroData) -> None:
    generating, imputing = (make(small_data, DGMRecConfig(generate_for=which, graph_refresh_every=1))
                            for which in ('all', 'none'))
    before, graph = tables(imputing), imputing.item_graph('audio')
    for model in (generating, imputing):
        model.start_epoch(1)
    for m in imputing.modalities:
        assert imputing.features(m).equal(before[m])
        assert not generating.features(m).equal(before[m])
    assert all(now.equal(then) for now, then in zip(imputing.item_graph('audio'), graph, strict=True))


@pytest.mark.parametrize('config', [ENCODINGS, REFERENCE.replace(generate_for='all')])
def test_a_modality_that_no_item_has_can_be_decoded(config: DGMRecConfig, small_data: HeteroData) -> None:
    small_data[ITEM].missing_audio = torch.ones(40, dtype=torch.bool)
    small_data[ITEM].x_audio = torch.full((40, 6), float('nan'))
    model = make(small_data, config)
    before = model.features('audio').clone()
    assert all(loss == loss for loss in train(model, small_data, epochs=5))
    assert model.features('audio').isfinite().all()
    assert (model.features('audio') != before).any(dim=1).all()
    assert all_scores(model).isfinite().all()


@pytest.mark.parametrize(('settings', 'expected'), [
    ({}, [1]), ({'train_features': True}, [1, 2, 3]), ({'generate_from': 'encodings'}, [1, 2, 3]),
    ({'generate_for': 'none'}, [])])
def test_what_does_not_change_is_generated_once(settings: dict, expected: list[int]) -> None:
    data = make_data(num_users=90, num_items=120)
    model = make(data, DGMRecConfig(**settings))
    optimizer = torch.optim.Adam(model.trainable_parameters(), lr=0.1)
    changed_at = []
    for epoch in (1, 2, 3):
        before = tables(model)
        model.start_epoch(epoch)
        if any(not model.features(m).equal(x) for m, x in before.items()):
            changed_at.append(epoch)
        optimizer.zero_grad()
        model.loss(*draw_batch(data)).backward()
        optimizer.step()
    assert changed_at == expected


@pytest.mark.parametrize('feature_scale', ['unit', 'given'])
def test_features_are_generated_by_regression(feature_scale: str) -> None:
    """In the model's own scale, too, it is what the regression makes of features as given."""
    data = with_new_items(make_data(num_users=90, num_items=200))
    data[ITEM].x_image = 50 * data[ITEM].x_audio.repeat(1, 2) + data[ITEM].x_image
    model = make(data, DGMRecConfig(feature_scale=feature_scale))
    model.generate_missing()
    for m, x in FeatureRegression.from_data(data).generate_all().items():
        torch.testing.assert_close(model.features(m), x, rtol=1e-3, atol=1e-3)


def test_what_is_generated_from_features_reaches_the_scores() -> None:
    data = make_data(num_users=90, num_items=120)
    generating, imputing = (make(data, DGMRecConfig(generate_for=which)) for which in ('all', 'none'))
    assert all_scores(generating).equal(all_scores(imputing))
    for model in (generating, imputing):
        model.start_epoch(1)
    assert not all_scores(generating).allclose(all_scores(imputing))


def test_a_loaded_model_generates_for_new_items_without_having_generated() -> None:
    data = make_data(num_users=90, num_items=120)
    trained, loaded = (make(data) for _ in range(2))
    trained.start_epoch(1)
    loaded.load_state_dict(trained.state_dict())
    features = {m: torch.full((1, data[ITEM][feature_key(m)].size(1)), float('nan')) for m in trained.modalities}
    features['text'] = torch.ones(1, 8)
    assert loaded.embed_new_items(features, data).equal(trained.embed_new_items(features, data))


def test_graphs_are_refreshed_every_fifth_epoch(small_data: HeteroData) -> None:
    model = make(small_data)
    changed_at = []
    for epoch in range(1, 12):
        before = {m: model.item_graph(m) for m in model.modalities}
        model.start_epoch(epoch)
        after = {m: model.item_graph(m) for m in model.modalities}
        same = [before[m][0].equal(after[m][0]) and before[m][1].equal(after[m][1]) for m in model.modalities]
        assert len(set(same)) == 1
        changed_at += [] if same[0] else [epoch]
    assert changed_at == [5, 10]


def test_refresh_follows_generation_in_the_same_epoch(small_data: HeteroData) -> None:
    model, other = (make(small_data, DGMRecConfig(noise_scale=0.0, graph_refresh_every=1)) for _ in range(2))
    model.start_epoch(1)
    other.generate_missing()
    other.refresh_graphs()
    assert all_scores(model).equal(all_scores(other))


def test_nothing_is_generated_where_nothing_is_missing() -> None:
    model = make(make_data(missing_rate=0.0))
    before = tables(model)
    scores = all_scores(model)
    model.start_epoch(5)
    assert all(model.features(m).equal(before[m]) for m in model.modalities)
    assert all_scores(model).equal(scores)


def test_inference_graph_is_a_setting(small_data: HeteroData) -> None:
    models = [make(small_data, DGMRecConfig(noise_scale=0.0, inference_graph=graph))
              for graph in ('refreshed', 'initial')]
    assert all_scores(models[0]).equal(all_scores(models[1]))
    for model in models:
        model.generate_missing()
        model.refresh_graphs()
    assert not all_scores(models[0]).equal(all_scores(models[1]))


def test_training_for_generation_brings_generated_features_nearer_to_the_truth() -> None:
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(200, 2, generator=generator)
    features = {m: shared @ torch.randn(2, 6, generator=generator) for m in ('image', 'text')}
    edges = torch.stack([torch.randint(50, (600,), generator=generator), torch.arange(600) % 200]).unique(dim=1)
    data = build_data(num_users=50, num_items=200, edge_index=edges, features=features,
                      missing={'image': torch.arange(200) % 4 == 0, 'text': torch.zeros(200, dtype=torch.bool)})

    def error(weight: float) -> float:
        model = make(data, ENCODINGS.replace(feature_generation_weight=weight, knn_k=1))
        train(model, data, epochs=100, learning_rate=0.001)  # At 0.01 the error swings from epoch to epoch.
        model.eval().generate_missing()
        hidden = data[ITEM].missing_image
        return float(F.mse_loss(model.features('image')[hidden], features['image'][hidden]))

    variance = float(features['image'].var())  # the error of imputing the mean
    assert error(1.0) < 0.1 * variance < variance < error(0.0)
