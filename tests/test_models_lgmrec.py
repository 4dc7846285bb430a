"""Tests of dgmrec_pyg.nn.models.LGMRec beyond those of every model."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from conftest import make_data
from dense_models import interactions, light_gcn, normalized_interactions, row_means
from model_training import draw_batch
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.imputation import impute
from dgmrec_pyg.nn.losses import info_nce_loss
from dgmrec_pyg.nn.models import LGMRec, LGMRecConfig


def dense_embeddings(model: LGMRec, data: HeteroData) -> tuple[Tensor, Tensor]:
    """The final embeddings by the formulas of the model's docstring, without noise."""
    config, normalized = model.config, normalized_interactions(interactions(data))
    user_id, item_id = light_gcn(interactions(data), model.user_embedding.weight, model.item_embedding.weight,
                                 config.num_layers)
    local, hyper = [user_id, item_id], [0.0, 0.0]
    for m in model.modalities:
        x = impute(data['item'][f'x_{m}'], data['item'][f'missing_{m}'])
        item = model.lin[m](x)
        user = row_means(interactions(data)) @ item
        for _ in range(config.num_modality_layers):
            user, item = normalized @ item, normalized.t() @ user
        local = [local[0] + F.normalize(user), local[1] + F.normalize(item)]
        logits = model.hyperedge[m](x)
        item_incidence = (logits / 0.2).softmax(dim=1)
        user_incidence = (interactions(data) @ logits / 0.2).softmax(dim=1)
        item = item_id
        for _ in range(config.num_hyperedge_layers):
            user = user_incidence @ item_incidence.t() @ item
            item = item_incidence @ item_incidence.t() @ item
        hyper = [hyper[0] + user, hyper[1] + item]
    user, item = (a + config.global_weight * F.normalize(b) for a, b in zip(local, hyper, strict=True))
    return user, item


@pytest.mark.parametrize('config', [
    LGMRecConfig(),
    LGMRecConfig(num_layers=1, num_modality_layers=3, num_hyperedge_layers=2, num_hyperedges=7, global_weight=2.0),
])
def test_embed_equals_dense_formulas(config: LGMRecConfig, small_data: HeteroData) -> None:
    model = LGMRec.from_data(small_data, config, torch.Generator().manual_seed(0))
    for embedded, expected in zip(model.embed(), dense_embeddings(model, small_data), strict=True):
        torch.testing.assert_close(embedded, expected)


def test_terms_equal_definition(small_data: HeteroData) -> None:
    model = LGMRec.from_data(small_data, generator=torch.Generator().manual_seed(0))
    user, positive, negative = draw_batch(small_data)
    model.generator = torch.Generator().manual_seed(1)
    terms = model.loss_terms(user, positive, negative)
    model.generator = torch.Generator().manual_seed(1)
    global_user, global_item = model.hypergraph(model.collaborative()[1], noisy=True)
    contrast = sum(info_nce_loss(x[a][index], x[b][index], 0.2)
                   for x, index in ((global_user, user), (global_item, positive)) for a, b in combinations(range(3), 2))
    torch.testing.assert_close(terms['contrastive'], contrast * user.numel())
    embeddings = [fused + local + 0.3 * F.normalize(hyper.sum(dim=0)) for fused, local, hyper in zip(
        model.collaborative(), model.modality_sum(), (global_user, global_item), strict=True)]
    rows = (embeddings[0][user], embeddings[1][positive], embeddings[1][negative])
    torch.testing.assert_close(terms['bpr'], -F.logsigmoid((rows[0] * (rows[1] - rows[2])).sum(dim=1)).mean())
    torch.testing.assert_close(terms['embedding_reg'], sum(x.square().sum() for x in rows) / (2 * user.numel()))


def test_there_is_no_contrast_with_one_modality() -> None:
    data = make_data(modalities={'image': 5})
    terms = LGMRec.from_data(data).loss_terms(*draw_batch(data))
    assert terms['contrastive'].item() == 0.0
    assert all(term.isfinite() for term in terms.values())


def test_new_items_take_no_part_in_hyperedges(small_data: HeteroData) -> None:
    item = int((interactions(small_data).sum(dim=0) > 0).nonzero()[0])
    edges = small_data['user', 'interacts', 'item'].edge_index
    small_data['user', 'interacts', 'item'].edge_index = edges[:, edges[1] != item]
    small_data['item'].is_new = torch.arange(40) == item
    model = LGMRec.from_data(small_data, generator=torch.Generator().manual_seed(0))
    before = [rows.clone() for rows in model.hypergraph(model.item_embedding.weight, noisy=False)]
    values = model.item_embedding.weight.detach().clone()
    values[item] += 5.0
    after = model.hypergraph(values, noisy=False)
    assert all(old.equal(new) for old, new in zip(before, after, strict=True))
