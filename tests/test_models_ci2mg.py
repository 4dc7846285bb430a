"""Tests of dgmrec_pyg.nn.models.CI2MG beyond those of every model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import make_data
from dense_models import interactions, light_gcn, row_means
from model_training import draw_batch, train
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.nn.losses import info_nce_loss
from dgmrec_pyg.nn.models import CI2MG, CI2MGConfig
from dgmrec_pyg.nn.optimal_transport import sinkhorn_plan
from dgmrec_pyg.transforms import ImputeMissing


def make(data: HeteroData, config: CI2MGConfig | None = None) -> CI2MG:
    return CI2MG.from_data(data, config, torch.Generator().manual_seed(0))


def naive_means(model: CI2MG, data: HeteroData, m: str) -> tuple[Tensor, Tensor, Tensor]:
    """Own embeddings of items, means over users' items that have the modality, and means over items' users."""
    has = ~data['item'][f'missing_{m}']
    own = model.lin[m](data['item'][f'x_{m}'])
    user = torch.zeros(30, own.size(1))
    for u in range(30):
        items = (interactions(data)[u].bool() & has).nonzero().view(-1)
        if items.numel() > 0:
            user[u] = own[items].mean(dim=0)
    return own, user, row_means(interactions(data).t()) @ user


def naive_generation(model: CI2MG, data: HeteroData) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """By modality what is generated within it, from the others, and of both."""
    parts = {m: naive_means(model, data, m) for m in model.modalities}
    known = {m: torch.where(data['item'][f'missing_{m}'].unsqueeze(1), behavior, own)
             for m, (own, _, behavior) in parts.items()}
    made = {}
    for m, (_, _, behavior) in parts.items():
        prototype = model.prototype[m].weight
        incidence = (F.cosine_similarity(behavior.unsqueeze(1), prototype, dim=2) / 0.1).softmax(dim=1)
        convolution = incidence @ torch.diag(1 / incidence.sum(dim=0)) @ incidence.t()
        layers = [torch.linalg.matrix_power(convolution, layer) @ behavior
                  for layer in range(model.config.num_hyperedge_layers + 1)]
        within = sum(layers) / len(layers)
        others = [known[other] for other in model.modalities if other != m]
        source = sum(others) / len(others)
        cost = 1 - F.cosine_similarity(source.unsqueeze(1), prototype, dim=2)
        across = sinkhorn_plan(cost, model.config.transport_temperature) @ prototype
        made[m] = (within, across, model.merge[m](torch.cat([within, across], dim=1)))
    return made


@pytest.mark.parametrize('config', [CI2MGConfig(), CI2MGConfig(num_layers=1, num_hyperedges=3, num_hyperedge_layers=1)])
def test_embed_equals_dense_formulas(config: CI2MGConfig, small_data: HeteroData) -> None:
    model = make(small_data, config)
    user, item = ([rows] for rows in light_gcn(interactions(small_data), model.user_embedding.weight,
                                               model.item_embedding.weight, config.num_layers))
    for m, (_, _, merged) in naive_generation(model, small_data).items():
        own, of_users, _ = naive_means(model, small_data, m)
        user.append(F.normalize(of_users))
        item.append(F.normalize(torch.where(small_data['item'][f'missing_{m}'].unsqueeze(1), merged, own)))
    embedded = model.embed()
    torch.testing.assert_close(embedded[0], torch.cat(user, dim=1))
    torch.testing.assert_close(embedded[1], torch.cat(item, dim=1))


def test_terms_equal_definition(small_data: HeteroData) -> None:
    model = make(small_data)
    user, positive, negative = draw_batch(small_data)
    terms = model.loss_terms(user, positive, negative)
    of_users, of_items = model.embed()
    margin = (of_users[user] * (of_items[positive] - of_items[negative])).sum(dim=1)
    torch.testing.assert_close(terms['bpr'].detach(), -F.logsigmoid(margin).mean())
    errors, contrast = [], 0.0
    items = torch.cat([positive, negative]).unique()
    for m, (within, across, merged) in naive_generation(model, small_data).items():
        has = ~small_data['item'][f'missing_{m}']
        errors.append((merged - naive_means(model, small_data, m)[0])[items[has[items]]].square().flatten())
        rows = positive.unique()[has[positive.unique()]]
        contrast += info_nce_loss(within[rows], across[rows], 0.2)
    torch.testing.assert_close(terms['generation'], torch.cat(errors).mean())
    torch.testing.assert_close(terms['contrastive'], contrast)


def test_training_makes_what_is_generated_like_what_items_have() -> None:
    data = make_data(missing_rate=0.0)
    model = make(data)

    def error() -> float:
        with torch.no_grad():
            own, _, behavior = model.encode()
            made = model.generate(own, behavior)[2]
        return float((made - own).square().mean() / own.var())

    before = error()
    train(model, data, epochs=60)
    assert error() < 0.5 * before


def test_imputed_modalities_are_not_generated(small_data: HeteroData) -> None:
    assert make(ImputeMissing()(small_data)).has.all()
    missing = torch.stack([small_data['item'][f'missing_{m}'] for m in ('audio', 'image', 'text')])
    assert make(small_data).has.squeeze(2).equal((~missing).float())


def test_a_modality_that_no_item_has_is_generated(small_data: HeteroData) -> None:
    small_data['item'].missing_audio = torch.ones(40, dtype=torch.bool)
    model = make(small_data)
    assert all(loss == loss for loss in train(model, small_data, epochs=5))
    assert model.embed()[1].isfinite().all()
