"""Tests of dgmrec_pyg.nn.models.bm3."""

from __future__ import annotations

import pytest
import torch
from dense_models import interactions, light_gcn
from model_training import draw_batch
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.nn.models import BM3, BM3Config
from dgmrec_pyg.nn.models.features import filled_features


def make(data: HeteroData, **settings: object) -> BM3:
    return BM3.from_data(data, BM3Config().replace(**settings), torch.Generator().manual_seed(0))


def hidden(model: BM3, data: HeteroData, num_layers: int) -> tuple[Tensor, Tensor]:
    tables = model.user_embedding.weight, model.item_embedding.weight
    user, item = light_gcn(interactions(data), *tables, num_layers)
    return user, item + tables[1]


def distance(a: Tensor, b: Tensor) -> float:
    """1 - cos, averaged over pairs."""
    return sum(1 - (x @ y / (x.norm() * y.norm())).item() for x, y in zip(a, b, strict=True)) / len(a)


@pytest.mark.parametrize('num_layers', [1, 2])
def test_embed_equals_dense_formula(num_layers: int, small_data: HeteroData) -> None:
    model = make(small_data, num_layers=num_layers)
    expected = [table @ model.predictor.weight.t() + model.predictor.bias
                for table in hidden(model, small_data, num_layers)]
    for table, formula in zip(model.embed(), expected, strict=True):
        torch.testing.assert_close(table, formula)


def test_terms_equal_definition_without_dropout(small_data: HeteroData) -> None:
    model = make(small_data, dropout=0.0)
    user, item, negative = draw_batch(small_data)
    all_users, all_items = hidden(model, small_data, 1)
    of_user, of_item, predict = all_users[user], all_items[item], model.predictor
    projected = [x[item] @ model.projections[m].weight.t() + model.projections[m].bias
                 for m, x in filled_features(small_data).items()]
    expected = {
        'reconstruction': distance(predict(of_user), of_item) + distance(predict(of_item), of_user),
        'inter_modal': sum(distance(predict(x), of_item) for x in projected),
        'intra_modal': sum(distance(predict(x), x) for x in projected),
        'embedding_reg': (all_users.norm() + all_items.norm()).item() / 40,
    }
    terms = model.loss_terms(user, item, negative)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-4), name
    assert model.loss_terms(user, item, negative.flip(0))['reconstruction'].equal(terms['reconstruction'])


def test_targets_are_dropped_scaled_and_cut_off(small_data: HeteroData) -> None:
    model = make(small_data, dropout=0.25)
    model.generator = torch.Generator().manual_seed(0)
    x = torch.rand(200, 50, generator=torch.Generator().manual_seed(1)).requires_grad_()
    target = model._target(x)
    assert not target.requires_grad
    kept = target != 0
    torch.testing.assert_close(target[kept], x.detach()[kept] / 0.75)
    assert 1 - kept.float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert not model._target(x).equal(target)


def test_everything_dropped_is_no_error(small_data: HeteroData) -> None:
    assert make(small_data, dropout=1.0).loss(*draw_batch(small_data)).isfinite()


def test_no_gradient_flows_through_the_targets(small_data: HeteroData) -> None:
    """The intra-modal term is of a projection and its own target: with a frozen target only the prediction moves."""
    model = make(small_data, dropout=0.0)
    user, item, _ = draw_batch(small_data)
    model.loss_terms(user, item, item)['intra_modal'].backward()
    projected = [(m, model.projections[m](x[item])) for m, x in model.feature_tables.items()]
    losses = [(1 - torch.nn.functional.cosine_similarity(model.predictor(x), x.detach())).mean() for _, x in projected]
    expected = torch.autograd.grad(sum(losses), [model.projections[m].weight for m, _ in projected])
    for (m, _), gradient in zip(projected, expected, strict=True):
        torch.testing.assert_close(model.projections[m].weight.grad, gradient)
