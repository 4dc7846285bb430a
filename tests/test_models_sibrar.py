"""Tests of dgmrec_pyg.nn.models.SiBraR beyond those of every model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import make_data
from dense_models import interactions, row_means
from model_training import draw_batch
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.nn.losses import info_nce_loss
from dgmrec_pyg.nn.models import SiBraR, SiBraRConfig
from dgmrec_pyg.transforms import ImputeMissing


def make(data: HeteroData, config: SiBraRConfig | None = None) -> SiBraR:
    model = SiBraR.from_data(data, config, torch.Generator().manual_seed(0))
    with torch.no_grad():  # Not zero, so that its part in the formula is seen.
        model.interaction_bias.copy_(torch.linspace(-0.1, 0.1, model.interaction_bias.numel()))
    model.generator = torch.Generator().manual_seed(1)
    return model


def naive_modalities(model: SiBraR, data: HeteroData, item: int) -> dict[str, Tensor]:
    """What the branch makes of each thing that an item has."""
    inputs = {m: model.lin[m](data['item'][f'x_{m}'][item]) for m in model.modalities
              if not data['item'][f'missing_{m}'][item]}
    users = row_means(interactions(data).t())[item]
    if users.any():
        inputs['interactions'] = users @ model.interaction_weight.weight + model.interaction_bias
    return {m: model.branch(F.normalize(x, dim=0)) for m, x in inputs.items()}


@pytest.mark.parametrize('num_branch_layers', [0, 1, 2])
def test_an_item_is_the_mean_over_what_it_has(num_branch_layers: int, small_data: HeteroData) -> None:
    model = make(small_data, SiBraRConfig(num_branch_layers=num_branch_layers))
    user, item = model.embed()
    assert user.equal(model.user_embedding.weight)
    for row in range(40):
        parts = naive_modalities(model, small_data, row)
        torch.testing.assert_close(item[row], sum(parts.values()) / len(parts))


def test_an_item_without_anything_is_scored_zero(small_data: HeteroData) -> None:
    for m in ('audio', 'image', 'text'):
        small_data['item'][f'missing_{m}'][7] = True
    edges = small_data['user', 'interacts', 'item'].edge_index
    small_data['user', 'interacts', 'item'].edge_index = edges[:, edges[1] != 7]
    model = make(small_data)
    assert not model.embed()[1][7].any()
    assert model.embed()[1][8].any()
    user, positive, negative = draw_batch(small_data)
    terms = model.loss_terms(user, positive, torch.full_like(negative, 7))
    assert all(term.isfinite() for term in terms.values())


def test_imputed_modalities_count(small_data: HeteroData) -> None:
    available = make(ImputeMissing()(small_data)).available
    assert available[:, :-1].all()
    missing = torch.stack([small_data['item'][f'missing_{m}'] for m in ('audio', 'image', 'text')], dim=1)
    assert make(small_data).available[:, :-1].equal(~missing)


def test_modalities_are_drawn_among_those_that_an_item_has(small_data: HeteroData) -> None:
    model = make(small_data)
    items = torch.arange(40).repeat(200)
    drawn = model.draw_modalities(items)
    count = model.available.sum(dim=1)[items]
    assert model.available[items].gather(1, drawn).all()
    assert (drawn[:, 0] != drawn[:, 1]).equal(count > 1)
    for item in range(40):  # All of them, and every one about as often as the others.
        share = torch.bincount(drawn[items == item].flatten(), minlength=4) / 400
        expected = model.available[item] / model.available[item].sum()
        torch.testing.assert_close(share, expected.float(), atol=0.12, rtol=0.0)


def test_terms_equal_definition(small_data: HeteroData) -> None:
    model = make(small_data, SiBraRConfig(dropout=0.0))
    user, positive, negative = draw_batch(small_data)
    terms = model.loss_terms(user, positive, negative)
    model.generator = torch.Generator().manual_seed(1)
    items = torch.cat([positive, negative]).unique()
    names = [*model.modalities, 'interactions']
    first, second, pairs = torch.zeros(40, 64), torch.zeros(40, 64), []
    for item, (one, two) in zip(items.tolist(), model.draw_modalities(items).tolist(), strict=True):
        parts = naive_modalities(model, small_data, item)
        first[item], second[item] = parts[names[one]], parts[names[two]]
        if one != two and item in positive:
            pairs.append(item)
    item, of_user = (first + second) / 2, model.user_embedding(user)
    margin = (of_user * (item[positive] - item[negative])).sum(dim=1)
    torch.testing.assert_close(terms['bpr'], -F.logsigmoid(margin).mean())
    contrast = info_nce_loss(first[pairs], second[pairs], 0.1) + info_nce_loss(second[pairs], first[pairs], 0.1)
    torch.testing.assert_close(terms['contrastive'], contrast / 2)
    squares = sum(rows.square().sum() for rows in (of_user, item[positive], item[negative]))
    torch.testing.assert_close(terms['embedding_reg'], squares / (2 * user.numel()))


def test_dropout_is_for_training_alone(small_data: HeteroData) -> None:
    with_dropout, without = (make(small_data, SiBraRConfig(dropout=rate)) for rate in (0.5, 0.0))
    assert with_dropout.embed()[1].equal(without.embed()[1])
    batch = draw_batch(small_data)
    assert with_dropout.loss_terms(*batch)['bpr'] != without.loss_terms(*batch)['bpr']


def test_there_is_no_contrast_where_items_have_one_thing() -> None:
    data = make_data(modalities={'image': 5})
    data['item'].missing_image = torch.ones(40, dtype=torch.bool)
    terms = make(data).loss_terms(*draw_batch(data))
    assert terms['contrastive'].item() == 0.0
