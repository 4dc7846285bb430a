"""What every model in dgmrec_pyg.nn.MODELS must do."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from model_training import all_scores, draw_batch, make_checkerboard, train
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.config import DGMRecConfig
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.nn import MODELS, DGMRec, LightGCN, Popularity, Recommender
from dgmrec_pyg.schema import training_edges

NAMES = list(MODELS)
TRAINABLE = [name for name, model in MODELS.items() if model.trainable]
EMBEDDING = [name for name in NAMES if MODELS[name].trainable]


def make(name: str, data: HeteroData, seed: int = 0) -> Recommender:
    return MODELS[name].from_data(data, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(('model', 'config', 'message'), [
    (DGMRec, LightGCN.config_class(), r'DGMRec takes its settings as DGMRecConfig \(got LightGCNConfig\)'),
    (LightGCN, DGMRecConfig(), r'LightGCN takes its settings as LightGCNConfig \(got DGMRecConfig\)'),
    (DGMRec, {'knn_k': 3}, r'DGMRec takes its settings as DGMRecConfig \(got dict\)'),
])
def test_settings_of_another_model_are_refused(small_data: HeteroData, model: type[Recommender], config: object,
                                               message: str) -> None:
    with pytest.raises(UserError, match=message):
        model.from_data(small_data, config)


def seen_matrix(data: HeteroData) -> Tensor:
    seen = torch.zeros(data['user'].num_nodes, data['item'].num_nodes, dtype=torch.bool)
    seen[tuple(training_edges(data))] = True
    return seen


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('exclude_seen', [True, False])
@pytest.mark.parametrize('items', [None, [3, 7, 8, 20, 21, 35]])
def test_recommend_ranks_by_score(name: str, exclude_seen: bool, items: list[int] | None,
                                  small_data: HeteroData) -> None:
    model, k = make(name, small_data), 12
    ids, scores = model.recommend(torch.tensor([4, 0, 29]), k, exclude_seen, items)
    assert ids.shape == scores.shape == (3, k)
    table, seen = all_scores(model), seen_matrix(small_data)
    for row, user in enumerate([4, 0, 29]):
        allowed = [i for i in (range(40) if items is None else items) if not (exclude_seen and seen[user, i])]
        allowed.sort(key=lambda i: (-float(table[user, i]), i))
        expected = (allowed + [-1] * k)[:k]
        assert ids[row].tolist() == expected
        values = [float(table[user, i]) if i >= 0 else -math.inf for i in expected]
        assert scores[row].tolist() == pytest.approx(values, abs=1e-5)


@pytest.mark.parametrize('name', NAMES)
def test_recommend_for_one_user_is_a_row(name: str, small_data: HeteroData) -> None:
    model = make(name, small_data)
    many = model.recommend([5, 6], k=7)
    for one in (model.recommend(6, k=7), model.recommend(torch.tensor(6), k=7)):
        assert one[0].shape == one[1].shape == (7,)
        assert one[0].equal(many[0][1])
        torch.testing.assert_close(one[1], many[1][1])


@pytest.mark.parametrize('name', NAMES)
def test_recommend_more_than_there_is(name: str, small_data: HeteroData) -> None:
    ids, scores = make(name, small_data).recommend(0, k=50)
    assert (ids >= 0).sum() == 34  # 40 items, 6 of them seen
    assert ids[34:].tolist() == [-1] * 16
    assert scores[34:].tolist() == [-math.inf] * 16


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('users', [[], torch.empty(0, dtype=torch.long)])
def test_recommend_for_nobody(name: str, users: list[int] | Tensor, small_data: HeteroData) -> None:
    ids, scores = make(name, small_data).recommend(users, k=4)
    assert ids.shape == scores.shape == (0, 4)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize(('arguments', 'message'), [
    ({'users': 30}, 'unknown user 30: user ids are 0 to 29'),
    ({'users': [0, -1]}, 'unknown user -1'),
    ({'users': 0, 'items': [1, 40]}, 'unknown item 40: item ids are 0 to 39'),
    ({'users': 0, 'k': 0}, 'k must be at least 1'),
])
def test_recommend_with_wrong_arguments(name: str, arguments: dict[str, object], message: str,
                                        small_data: HeteroData) -> None:
    with pytest.raises(UserError, match=message):
        make(name, small_data).recommend(**arguments)


@pytest.mark.parametrize('name', NAMES)
def test_state_survives_a_file(name: str, small_data: HeteroData, tmp_path: Path) -> None:
    model = make(name, small_data)
    if model.trainable:
        train(model, small_data, epochs=5)  # the fifth refreshes DGMRec's item graphs
    torch.save(model.state_dict(), tmp_path / 'model.pt')
    other = make(name, small_data, seed=1)
    other.load_state_dict(torch.load(tmp_path / 'model.pt', weights_only=True))
    assert all_scores(other).equal(all_scores(model))


@pytest.mark.parametrize('name', NAMES)
def test_data_is_not_written_to(name: str, small_data: HeteroData) -> None:
    before = small_data.clone()
    model = make(name, small_data)
    if model.trainable:
        train(model, small_data, epochs=5)
    model.recommend([0, 1])
    for store, old in zip(small_data.stores, before.stores, strict=True):
        assert list(store.keys()) == list(old.keys())
        for key, value in store.items():
            assert torch.equal(value, old[key]) if isinstance(value, Tensor) else value == old[key], key


@pytest.mark.parametrize('name', TRAINABLE)
def test_generators_make_models_and_training_reproducible(name: str, small_data: HeteroData) -> None:
    first, second, other = (make(name, small_data, seed) for seed in (3, 3, 4))
    assert all_scores(first).equal(all_scores(second))
    assert not all_scores(first).equal(all_scores(other))
    assert train(first, small_data, epochs=3) == train(second, small_data, epochs=3)
    assert all_scores(first).equal(all_scores(second))


@pytest.mark.parametrize('name', TRAINABLE)
def test_training_lowers_the_loss(name: str, small_data: HeteroData) -> None:
    losses = train(make(name, small_data), small_data, epochs=25)
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


@pytest.mark.parametrize('name', TRAINABLE)
def test_every_trainable_parameter_gets_a_gradient(name: str, small_data: HeteroData) -> None:
    model = make(name, small_data)
    model.loss(*draw_batch(small_data)).backward()
    trained = {id(parameter) for parameter in model.trainable_parameters()}
    for key, parameter in model.named_parameters():
        if id(parameter) in trained:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.any(), key


@pytest.mark.parametrize('name', TRAINABLE)
def test_loss_is_the_weighted_sum_of_its_terms(name: str, small_data: HeteroData) -> None:
    model = make(name, small_data)
    model.generator = torch.Generator().manual_seed(5)
    terms = model.loss_terms(*draw_batch(small_data))
    model.generator = torch.Generator().manual_seed(5)
    loss = model.loss(*draw_batch(small_data))
    weights = model.term_weights()
    assert loss.item() == pytest.approx(sum(weights.get(key, 1.0) * term.item() for key, term in terms.items()))


@pytest.mark.parametrize('name', NAMES)
def test_double_gives_the_same_ranking(name: str, small_data: HeteroData) -> None:
    model = make(name, small_data)
    expected = all_scores(model)
    scores = all_scores(model.double())
    assert scores.dtype == torch.float64
    torch.testing.assert_close(scores.float(), expected, rtol=1e-4, atol=1e-5)
    if model.trainable:
        assert all(math.isfinite(loss) for loss in train(model, small_data, epochs=5))
        assert all_scores(model).isfinite().all()


@pytest.mark.parametrize('name', EMBEDDING)
def test_scores_are_products_of_embeddings(name: str, small_data: HeteroData) -> None:
    model = make(name, small_data)
    user, item = model.embed()
    assert user.shape == (30, item.size(1))
    assert item.size(0) == 40
    torch.testing.assert_close(all_scores(model), (user @ item.t()).detach())
    again = model.embed()
    assert again[0].equal(user)
    assert again[1].equal(item)


@pytest.mark.parametrize('name', ['dgmrec', 'lightgcn'])
def test_an_interaction_changes_both_its_user_and_its_item(name: str, small_data: HeteroData) -> None:
    user, item = make(name, small_data).embed()
    new_user, new_item = 3, int((~seen_matrix(small_data)[3]).nonzero()[0])
    changed = small_data.clone()
    edges = torch.cat([training_edges(changed), torch.tensor([[new_user], [new_item]])], dim=1)
    changed['user', 'interacts', 'item'].edge_index = edges
    changed_user, changed_item = make(name, changed).embed()
    assert not torch.allclose(changed_user[new_user], user[new_user])
    assert not torch.allclose(changed_item[new_item], item[new_item])


@pytest.mark.parametrize(('name', 'epochs'), [('lightgcn', 30), ('dgmrec', 30), ('bprmf', 120)])
def test_checkerboard(name: str, epochs: int) -> None:
    """The items that remain in a user's block are the right answer."""
    data, held_out = make_checkerboard()
    model = make(name, data)
    train(model, data, epochs, learning_rate=0.05)
    ids, _ = model.recommend(range(model.num_users), k=2)
    assert [set(row) for row in ids.tolist()] == held_out


def test_popularity_counts_training_interactions(small_data: HeteroData) -> None:
    scores = all_scores(make('popularity', small_data))
    counts = [int((training_edges(small_data)[1] == item).sum()) for item in range(40)]
    assert scores.tolist() == [counts] * 30


def test_popularity_has_neither_embeddings_nor_a_loss(small_data: HeteroData) -> None:
    model = Popularity.from_data(small_data)
    assert not model.trainable
    assert list(model.parameters()) == []
    with pytest.raises(UserError, match='has no embeddings'):
        model.embed()
    with pytest.raises(UserError, match='nothing to train'):
        model.loss(*draw_batch(small_data))


@pytest.mark.parametrize('name', NAMES)
def test_repr(name: str, small_data: HeteroData) -> None:
    assert repr(make(name, small_data)) == f'{MODELS[name].__name__}(num_users=30, num_items=40)'
