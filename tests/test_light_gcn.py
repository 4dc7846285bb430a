"""Tests of dgmrec_pyg.nn.LightGCN and BPRMF."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from model_training import all_scores, draw_batch, with_few_and_many
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.nn.models import LightGCN as PyGLightGCN

from dgmrec_pyg.nn import BPRMF, LightGCN
from dgmrec_pyg.nn.models import LightGCNConfig
from dgmrec_pyg.schema import training_edges


def interactions(data: HeteroData) -> Tensor:
    matrix = torch.zeros(data['user'].num_nodes, data['item'].num_nodes)
    matrix[tuple(training_edges(data))] = 1.0
    return matrix


@pytest.mark.parametrize('num_layers', [0, 1, 3])
def test_embed_equals_dense_formula(num_layers: int, small_data: HeteroData) -> None:
    model = LightGCN.from_data(small_data, LightGCNConfig(num_layers=num_layers))
    matrix = interactions(small_data)
    normalized = matrix / matrix.sum(1, keepdim=True).clamp(min=1).sqrt() / matrix.sum(0).clamp(min=1).sqrt()
    adjacency = torch.zeros(70, 70)
    adjacency[:30, 30:], adjacency[30:, :30] = normalized, normalized.t()
    x = torch.cat([model.user_embedding.weight, model.item_embedding.weight])
    layers = [torch.linalg.matrix_power(adjacency, layer) @ x for layer in range(num_layers + 1)]
    torch.testing.assert_close(torch.cat(model.embed()), torch.stack(layers).mean(dim=0))


def test_embed_equals_that_of_pyg(small_data: HeteroData) -> None:
    model = LightGCN.from_data(small_data)
    other = PyGLightGCN(num_nodes=70, embedding_dim=64, num_layers=3)
    with torch.no_grad():
        other.embedding.weight.copy_(torch.cat([model.user_embedding.weight, model.item_embedding.weight]))
    edges = training_edges(small_data) + torch.tensor([[0], [30]])
    expected = other.get_embedding(torch.cat([edges, edges.flip(0)], dim=1))
    torch.testing.assert_close(torch.cat(model.embed()), expected)


def test_steps_equal_those_of_pyg(small_data: HeteroData) -> None:
    """From the same weights, by the same batches: the same scores, losses and parameters after each step of Adam.

    PyG's loss has no half before the squared norm, and adds it up over the rows that it is given.
    """
    model = LightGCN.from_data(small_data, LightGCNConfig(hidden_channels=16, embedding_reg_weight=0.02))
    other = PyGLightGCN(num_nodes=70, embedding_dim=16, num_layers=3)
    with torch.no_grad():
        other.embedding.weight.copy_(torch.cat([model.user_embedding.weight, model.item_embedding.weight]))
    initial = other.embedding.weight.detach().clone()
    edges = training_edges(small_data) + torch.tensor([[0], [30]])
    edge_index = torch.cat([edges, edges.flip(0)], dim=1)
    optimizers = [torch.optim.Adam(one.parameters(), lr=0.01) for one in (model, other)]
    for seed in range(5):
        user, positive, negative = draw_batch(small_data, seed=seed)
        pairs = torch.stack([user.repeat(2), torch.cat([positive, negative]) + 30])
        of_positives, of_negatives = other(edge_index, pairs).chunk(2)
        nodes = torch.cat([user, positive + 30, negative + 30])
        losses = [model.loss(user, positive, negative),
                  other.recommendation_loss(of_positives, of_negatives, nodes, lambda_reg=0.01)]
        torch.testing.assert_close(*losses, atol=1e-5, rtol=0)
        for optimizer, loss in zip(optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        trained = torch.cat([model.user_embedding.weight, model.item_embedding.weight])
        torch.testing.assert_close(trained, other.embedding.weight, atol=1e-5, rtol=0)
        embedding = other.get_embedding(edge_index)
        torch.testing.assert_close(torch.cat(model.embed()), embedding, atol=1e-5, rtol=0)
        torch.testing.assert_close(all_scores(model), embedding[:30] @ embedding[30:].t(), atol=1e-5, rtol=0)
    assert (trained - initial).abs().max() > 0.03


def test_bprmf_multiplies_the_tables_as_they_are(small_data: HeteroData) -> None:
    model = BPRMF.from_data(small_data)
    user, item = model.embed()
    assert user.equal(model.user_embedding.weight)
    assert item.equal(model.item_embedding.weight)


def test_one_layer_sends_both_ways_and_to_neighbors_only(small_data: HeteroData) -> None:
    model = LightGCN.from_data(small_data, LightGCNConfig(num_layers=1))
    matrix = interactions(small_data).bool()
    user, item = model.embed()
    with torch.no_grad():
        model.user_embedding.weight[7] += 1.0
    new_user, new_item = model.embed()
    assert (new_item != item).any(dim=1).equal(matrix[7])
    assert (new_user != user).any(dim=1).nonzero().view(-1).tolist() == [7]
    with torch.no_grad():
        model.item_embedding.weight[9] += 1.0
    newest_user, newest_item = model.embed()
    assert (newest_user != new_user).any(dim=1).equal(matrix[:, 9])
    assert (newest_item != new_item).any(dim=1).nonzero().view(-1).tolist() == [9]


def test_terms_equal_definition(small_data: HeteroData) -> None:
    model = LightGCN.from_data(small_data)
    user_embedding, item_embedding = model.embed()
    batch = draw_batch(small_data)
    bpr, penalty = 0.0, 0.0
    for user, positive, negative in torch.stack(batch, dim=1).tolist():
        margin = user_embedding[user] @ (item_embedding[positive] - item_embedding[negative])
        bpr -= torch.log(torch.sigmoid(margin)).item()
        ids = (model.user_embedding.weight[user], model.item_embedding.weight[positive],
               model.item_embedding.weight[negative])
        penalty += sum(row.square().sum().item() for row in ids) / 2
    terms = model.loss_terms(*batch)
    assert terms['bpr'].item() == pytest.approx(bpr / len(batch[0]), rel=1e-4)
    assert terms['embedding_reg'].item() == pytest.approx(penalty / len(batch[0]), rel=1e-4)


def test_softmax_tells_items_from_all_negatives_of_the_batch(small_data: HeteroData) -> None:
    plain, model = (LightGCN.from_data(small_data, LightGCNConfig(ranking_loss=loss, ranking_temperature=0.3),
                                       torch.Generator().manual_seed(0)) for loss in ('bpr', 'softmax'))
    users, items = (F.normalize(x) for x in plain.embed())
    for found, expected in zip(model.embed(), (users, items), strict=True):
        torch.testing.assert_close(found, expected)
    user, positive, negative = draw_batch(small_data)
    scores = torch.cat([(users[user] * items[positive]).sum(dim=1, keepdim=True),
                        users[user] @ items[negative.unique()].t()], dim=1) / 0.3
    terms = model.loss_terms(user, positive, negative)
    assert terms.keys() == {'softmax', 'embedding_reg'}
    torch.testing.assert_close(terms['softmax'], F.cross_entropy(scores, torch.zeros_like(user)))


@pytest.mark.parametrize(('spread', 'balance'), [(2.0, 0.0), (0.0, 0.5), (1.0, 1.0)])
def test_softmax_may_tell_users_with_few_interactions_from_those_with_many(spread: float, balance: float,
                                                                           small_data: HeteroData) -> None:
    config = LightGCNConfig(ranking_loss='softmax', ranking_temperature=0.3, ranking_temperature_spread=spread,
                            user_balance=balance)
    data = with_few_and_many(small_data)
    model = LightGCN.from_data(data, config)
    users, items = model.embed()
    user, positive, negative = (ids[30:] for ids in draw_batch(data))  # Not of the first users.
    count = training_edges(data)[0].bincount()[user]
    scores = torch.cat([(users[user] * items[positive]).sum(dim=1, keepdim=True),
                        users[user] @ items[negative.unique()].t()], dim=1) / (0.3 * (1 + spread / count))[:, None]
    losses, weight = F.cross_entropy(scores, torch.zeros_like(user), reduction='none'), count ** -balance
    torch.testing.assert_close(model.loss_terms(user, positive, negative)['softmax'],
                               (losses * weight).sum() / weight.sum())


def test_bpr_may_count_users_alike(small_data: HeteroData) -> None:
    data = with_few_and_many(small_data)
    model = LightGCN.from_data(data, LightGCNConfig(user_balance=1.0))
    users, items = model.embed()
    user, positive, negative = draw_batch(data)
    losses = -F.logsigmoid((users[user] * (items[positive] - items[negative])).sum(dim=1))
    of_user = torch.stack([losses[user == one].mean() for one in user.unique()])
    torch.testing.assert_close(model.loss_terms(user, positive, negative)['bpr'], of_user.mean())


def test_two_equal_steps_give_equal_gradients(small_data: HeteroData) -> None:
    model = LightGCN.from_data(small_data)
    gradients = []
    for _ in range(2):
        model.zero_grad()
        model.loss(*draw_batch(small_data)).backward()
        gradients.append(model.user_embedding.weight.grad.clone())
    assert gradients[0].equal(gradients[1])
