"""Tests of dgmrec_pyg.nn.models.slmrec."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from dense_models import interactions, light_gcn
from model_training import draw_batch
from torch import Tensor
from torch.nn import Linear
from torch_geometric.data import HeteroData

from dgmrec_pyg.nn.models import SLMRec, SLMRecConfig
from dgmrec_pyg.nn.models.features import filled_features


def make(data: HeteroData, **settings: object) -> SLMRec:
    return SLMRec.from_data(data, SLMRecConfig().replace(**settings), torch.Generator().manual_seed(0))


def linear(layer: Linear, x: Tensor) -> Tensor:
    return x @ layer.weight.t() + layer.bias


def dense_hidden(model: SLMRec, data: HeteroData) -> list[tuple[Tensor, Tensor]]:
    """Users and items by id and by each modality."""
    inputs = [model.item_embedding.weight]
    for m, x in filled_features(data).items():
        inputs.append(linear(model.projections[m], x / x.norm(dim=1, keepdim=True)))
    return [light_gcn(interactions(data), model.user_embedding.weight, x, model.config.num_layers) for x in inputs]


@pytest.mark.parametrize('num_layers', [0, 3])
def test_embed_equals_dense_formula(num_layers: int, small_data: HeteroData) -> None:
    model = make(small_data, num_layers=num_layers)
    users, items = zip(*dense_hidden(model, small_data), strict=True)
    user, item = model.embed()
    torch.testing.assert_close(user, linear(model.fuse_users, torch.cat(users, dim=1)))
    torch.testing.assert_close(item, linear(model.fuse_items, torch.cat(items, dim=1)))


def naive_info_nce(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    logits = F.normalize(a) @ F.normalize(b).t() / temperature
    return F.cross_entropy(logits, torch.arange(a.size(0)))


def test_terms_equal_definition(small_data: HeteroData) -> None:
    model = make(small_data, temperature=0.3, self_supervised_temperature=0.7)
    user, item, negative = draw_batch(small_data)
    all_users, all_items = model.embed()
    rows = [items[item] for _, items in dense_hidden(model, small_data)]
    x, task = rows[0], 0.0
    for m, of_modality in zip(('audio', 'image', 'text'), rows[1:], strict=True):
        x = linear(model.coarser[m], x)
        task += naive_info_nce(x, linear(model.own[m], of_modality), 0.7)
    ids = torch.cat([model.user_embedding.weight[user], model.item_embedding.weight[item]])
    expected = {
        'info_nce': naive_info_nce(all_users[user], all_items[item], 0.3),
        'self_supervised': task,
        'embedding_reg': ids.square().sum() / (2 * user.numel()),
    }
    terms = model.loss_terms(user, item, negative)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, msg=name)


def test_the_task_reaches_every_layer_that_it_uses(small_data: HeteroData) -> None:
    model = make(small_data)
    model.loss_terms(*draw_batch(small_data))['self_supervised'].backward()
    for name, parameter in model.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.any())
        assert reached == (not name.startswith('fuse')), name


def test_a_new_item_is_scored_without_its_id(small_data: HeteroData) -> None:
    is_new = torch.arange(40) == 4
    small_data['item'].is_new = is_new
    model = make(small_data)
    _, expected = model.embed()
    with torch.no_grad():
        model.item_embedding.weight[4] += 1.0
    assert model.embed()[1].equal(expected)
