"""Tests of dgmrec_pyg.nn.models.MGCN beyond those of every model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from dense_models import cosines, interactions, light_gcn, nearest_mask, normalized_interactions, symmetric
from model_training import draw_batch
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.imputation import impute
from dgmrec_pyg.nn.losses import info_nce_loss
from dgmrec_pyg.nn.models import MGCN, MGCNConfig


def dense_parts(model: MGCN, data: HeteroData) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Behavior and fused modality embeddings of users, then of items, by the paper's equations."""
    config, matrix = model.config, interactions(data)
    user, item = model.user_embedding.weight, model.item_embedding.weight
    behavior = light_gcn(matrix, user, item, config.num_layers)
    of_users, of_items = [], []
    for m in model.modalities:
        x = impute(data['item'][f'x_{m}'], data['item'][f'missing_{m}'])
        purified = item * torch.sigmoid(model.gate[m](model.lin[m](x)))
        graph = symmetric(nearest_mask(cosines(x), config.knn_k) * cosines(x).clamp(min=0))
        of_items.append(torch.linalg.matrix_power(graph, config.num_modality_layers) @ purified)
        of_users.append(normalized_interactions(matrix) @ of_items[-1])
    fused = []
    for own, views in zip(behavior, (of_users, of_items), strict=True):
        attention = torch.cat([model.attention(view) for view in views], dim=1).softmax(dim=1)
        common = sum(attention[:, [column]] * view for column, view in enumerate(views))
        rest = [torch.sigmoid(model.preference[m](own)) * (view - common)
                for m, view in zip(model.modalities, views, strict=True)]
        fused.append(common + sum(rest) / len(rest))
    return behavior[0], fused[0], behavior[1], fused[1]


# Imputed rows are equal, so which of them are nearest is not defined: either all are among the k, or none is missing.
@pytest.mark.parametrize(('num_modality_layers', 'knn_k', 'complete'), [(1, 5, True), (2, 40, False)])
def test_embed_equals_dense_formulas(num_modality_layers: int, knn_k: int, complete: bool,
                                     small_data: HeteroData) -> None:
    if complete:
        for m in ('audio', 'image', 'text'):
            small_data['item'][f'missing_{m}'] = torch.zeros(40, dtype=torch.bool)
    config = MGCNConfig(num_modality_layers=num_modality_layers, knn_k=knn_k)
    model = MGCN.from_data(small_data, config, torch.Generator().manual_seed(0))
    user, fused_user, item, fused_item = dense_parts(model, small_data)
    embedded = model.embed()
    torch.testing.assert_close(embedded[0], user + fused_user)
    torch.testing.assert_close(embedded[1], item + fused_item)


def test_terms_equal_definition(small_data: HeteroData) -> None:
    model = MGCN.from_data(small_data, MGCNConfig(knn_k=40), torch.Generator().manual_seed(0))
    behavior_user, fused_user, behavior_item, fused_item = dense_parts(model, small_data)
    user, positive, negative = draw_batch(small_data)
    rows = ((behavior_user + fused_user)[user], (behavior_item + fused_item)[positive],
            (behavior_item + fused_item)[negative])
    terms = model.loss_terms(user, positive, negative)
    margin = (rows[0] * (rows[1] - rows[2])).sum(dim=1)
    torch.testing.assert_close(terms['bpr'], -F.logsigmoid(margin).mean())
    torch.testing.assert_close(terms['embedding_reg'], sum(x.square().sum() for x in rows) / (2 * user.numel()))
    expected = (info_nce_loss(fused_user[user], behavior_user[user], 0.2)
                + info_nce_loss(fused_item[positive], behavior_item[positive], 0.2))
    torch.testing.assert_close(terms['contrastive'], expected)


def test_features_are_trained_on_demand(small_data: HeteroData) -> None:
    for train_features in (True, False):
        model = MGCN.from_data(small_data, MGCNConfig(train_features=train_features))
        model.loss(*draw_batch(small_data)).backward()
        assert all((x.grad is not None and bool(x.grad.any())) == train_features
                   for x in model.feature_tables.parameters())


def test_one_modality_has_nothing_beyond_the_common_part(small_data: HeteroData) -> None:
    for m in ('audio', 'text'):
        del small_data['item'][f'x_{m}'], small_data['item'][f'missing_{m}']
    model = MGCN.from_data(small_data)
    behavior, views = model.behavior()[1], model.modality_views()[1]
    torch.testing.assert_close(model.fuse(behavior, views), views)
