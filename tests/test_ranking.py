"""Tests of dgmrec_pyg.ranking and of dgmrec_pyg.evaluation.metrics."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from dgmrec_pyg.errors import UserError
from dgmrec_pyg.evaluation.metrics import evaluation_users, per_user_metrics, ranking_metrics
from dgmrec_pyg.ranking import rank_items

NUM_USERS, NUM_ITEMS = 23, 31


def random_pairs(count: int, seed: int, num_users: int = NUM_USERS) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.randperm(num_users * NUM_ITEMS, generator=generator)[:count]
    return torch.stack([pairs // NUM_ITEMS, pairs % NUM_ITEMS])


@pytest.fixture
def scores() -> Tensor:
    return torch.randn(NUM_USERS, NUM_ITEMS, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def tied_scores() -> Tensor:
    """Many equal scores, both zeros among them."""
    generator = torch.Generator().manual_seed(2)
    scores = torch.randint(-1, 2, (NUM_USERS, NUM_ITEMS), generator=generator).float()
    scores[:, ::2] *= -1
    return scores


def naive_rank(scores: Tensor, users: Tensor, seen: Tensor, k: int, allowed: set[int]) -> list[list[int]]:
    """The ranking by its definition: unseen items by score, then by id."""
    seen_pairs = set(map(tuple, seen.t().tolist()))
    result = []
    for user in users.tolist():
        items = [item for item in sorted(allowed)
                 if (user, item) not in seen_pairs and scores[user, item] > -math.inf]
        items.sort(key=lambda item: (-float(scores[user, item]), item))
        result.append((items + [-1] * k)[:k])
    return result


@pytest.mark.parametrize('values', ['scores', 'tied_scores'])
@pytest.mark.parametrize('k', [1, 2, 5, NUM_ITEMS - 1, NUM_ITEMS, NUM_ITEMS + 9])
@pytest.mark.parametrize('block_size', [None, 1, 4, 100])
def test_rank_items_equals_naive_ranking(values: str, k: int, block_size: int | None,
                                         request: pytest.FixtureRequest) -> None:
    table = request.getfixturevalue(values)
    seen = random_pairs(250, seed=3)
    users = torch.tensor([7, 0, 22, 3, 4, 11, 15, 7])
    ranked, _ = rank_items(lambda block: table[block], users, seen, k, NUM_ITEMS, block_size)
    assert ranked.tolist() == naive_rank(table, users, seen, k, set(range(NUM_ITEMS)))


def test_candidates_and_minus_infinity_are_not_ranked(scores: Tensor) -> None:
    users, seen = torch.arange(NUM_USERS), random_pairs(200, seed=4)
    candidates = torch.zeros(NUM_ITEMS, dtype=torch.bool)
    candidates[::3] = True
    scores[:, 6] = -math.inf
    ranked, _ = rank_items(lambda block: scores[block], users, seen, 20, NUM_ITEMS, candidates=candidates)
    assert ranked.tolist() == naive_rank(scores, users, seen, 20, set(range(0, NUM_ITEMS, 3)))
    assert (ranked == -1).any()
    assert not (ranked == 6).any()


def test_seen_items_are_never_ranked(scores: Tensor) -> None:
    seen = random_pairs(400, seed=5)
    ranked, _ = rank_items(lambda block: scores[block], torch.arange(NUM_USERS), seen, NUM_ITEMS, NUM_ITEMS)
    is_seen = torch.zeros(NUM_USERS, NUM_ITEMS, dtype=torch.bool)
    is_seen[seen[0], seen[1]] = True
    assert ((ranked >= 0).sum(dim=1) == (~is_seen).sum(dim=1)).all()
    user, place = (ranked >= 0).nonzero(as_tuple=True)
    assert not is_seen[user, ranked[user, place]].any()


def test_user_who_has_seen_everything_has_no_ranking(scores: Tensor) -> None:
    seen = torch.stack([torch.full((NUM_ITEMS,), 4), torch.arange(NUM_ITEMS)])
    ranked, values = rank_items(lambda block: scores[block], torch.tensor([4, 5]), seen, 3, NUM_ITEMS)
    assert ranked[0].tolist() == [-1, -1, -1]
    assert values[0].tolist() == [-math.inf] * 3
    assert (ranked[1] >= 0).all()


@pytest.mark.parametrize('seen', [None, torch.empty(2, 0, dtype=torch.long)])
def test_nothing_seen(scores: Tensor, seen: Tensor | None) -> None:
    users = torch.arange(NUM_USERS)
    ranked, values = rank_items(lambda block: scores[block], users, seen, 6, NUM_ITEMS)
    expected = scores.topk(6)
    assert ranked.equal(expected.indices)
    assert values.equal(expected.values)


def test_no_users(scores: Tensor) -> None:
    users = torch.empty(0, dtype=torch.long)
    ranked, _ = rank_items(lambda block: scores[block], users, random_pairs(9, seed=6), 5, NUM_ITEMS)
    assert ranked.shape == (0, 5)
    assert set(ranking_metrics(ranked, random_pairs(9, seed=6), users, ks=(5,)).values()) == {0.0}


def test_scores_are_not_written_to_and_may_share_memory() -> None:
    popularity = torch.arange(NUM_ITEMS).float()
    before = popularity.clone()
    ranked, _ = rank_items(lambda block: popularity.expand(block.numel(), -1), torch.arange(NUM_USERS),
                           torch.tensor([[0], [NUM_ITEMS - 1]]), 1, NUM_ITEMS)
    assert ranked.view(-1).tolist() == [NUM_ITEMS - 2] + [NUM_ITEMS - 1] * (NUM_USERS - 1)
    assert popularity.equal(before)


@pytest.mark.parametrize('value', [math.nan, -math.nan, math.inf])
@pytest.mark.parametrize('item', [0, 14, NUM_ITEMS - 1])
@pytest.mark.parametrize('k', [2, NUM_ITEMS])
def test_scores_that_are_not_finite_raise(scores: Tensor, value: float, item: int, k: int) -> None:
    scores[[2, 9], item] = value
    with pytest.raises(UserError, match=r"scores are not finite for 2 of 23 users \(first: 2, 9\); lower"):
        rank_items(lambda block: scores[block], torch.arange(NUM_USERS), None, k, NUM_ITEMS, block_size=5)


def naive_metrics(ranked: list[int], labels: set[int], k: int) -> dict[str, float]:
    """The metrics of one user by their definitions."""
    hits = [item in labels for item in ranked[:k]]
    ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(labels)) + 1))
    return {
        f'recall@{k}': sum(hits) / len(labels),
        f'precision@{k}': sum(hits) / k,
        f'ndcg@{k}': sum(1 / math.log2(rank + 1) for rank in ranks) / ideal,
        f'map@{k}': sum(count / rank for count, rank in enumerate(ranks, start=1)) / min(k, len(labels)),
        f'mrr@{k}': 1 / ranks[0] if ranks else 0.0,
        f'hit_ratio@{k}': float(any(hits)),
    }


@pytest.mark.parametrize('ks', [(1,), (5, 10, 20), (3, NUM_ITEMS + 20)])
def test_metrics_equal_naive_loop(scores: Tensor, ks: tuple[int, ...]) -> None:
    seen = random_pairs(400, seed=7)  # some users then have fewer than k items to rank
    labels = random_pairs(60, seed=8, num_users=NUM_USERS - 4)
    users = torch.tensor([18, 2, 3, 5, 21, 20, 9, 10, 0, 11])
    pred, _ = rank_items(lambda block: scores[block], users, seen, max(ks), NUM_ITEMS)
    true: dict[int, set[int]] = {}
    for user, item in labels.t().tolist():
        true.setdefault(user, set()).add(item)
    rows = [(pred[row].tolist(), true[user]) for row, user in enumerate(users.tolist()) if user in true]
    assert 0 < len(rows) < users.numel()

    metrics = ranking_metrics(pred, labels, users, ks)
    assert len(metrics) == 6 * len(ks)
    for k in ks:
        per_user = [naive_metrics(ranked, items, k) for ranked, items in rows]
        for name in per_user[0]:
            assert metrics[name] == pytest.approx(sum(user[name] for user in per_user) / len(rows), abs=1e-6), name


def test_gaps_in_a_ranking_are_no_hits() -> None:
    """PyG's metrics would read the -1 of the second user as the last item of the first."""
    labels = torch.tensor([[0, 1], [9, 3]])
    pred = torch.tensor([[1, 2], [-1, -1]])
    assert set(ranking_metrics(pred, labels, torch.tensor([0, 1]), ks=(2,)).values()) == {0.0}


def test_repeated_labels_count_once() -> None:
    labels = torch.tensor([[4, 4, 4], [1, 1, 0]])
    metrics = ranking_metrics(torch.tensor([[1, 2]]), labels, torch.tensor([4]), ks=(2,))
    assert metrics['recall@2'] == 0.5


def test_order_of_users_does_not_change_metrics(scores: Tensor) -> None:
    labels, users = random_pairs(80, seed=9), torch.arange(NUM_USERS)
    pred, _ = rank_items(lambda block: scores[block], users, None, 10, NUM_ITEMS)
    order = torch.randperm(NUM_USERS, generator=torch.Generator().manual_seed(0))
    expected = ranking_metrics(pred, labels, users, ks=(5, 10))
    assert ranking_metrics(pred[order], labels, users[order], ks=(5, 10)) == pytest.approx(expected, abs=1e-6)


def test_per_user_metrics_have_the_same_mean(scores: Tensor) -> None:
    labels, users = random_pairs(20, seed=10), torch.arange(NUM_USERS)
    pred, _ = rank_items(lambda block: scores[block], users, None, 10, NUM_ITEMS)
    expected = ranking_metrics(pred, labels, users, ks=(5, 10))
    has_label = torch.isin(users, labels[0])
    assert not has_label.all()
    for name, values in per_user_metrics(pred, labels, users, ks=(5, 10)).items():
        assert values.isnan().equal(~has_label)
        assert float(values.nanmean()) == pytest.approx(expected[name], abs=1e-6)


def test_ranking_shorter_than_k_raises() -> None:
    with pytest.raises(UserError, match='metrics at 20 need a ranking of 20 items, but it has 10; rank with k=20'):
        ranking_metrics(torch.zeros(1, 10, dtype=torch.long), torch.tensor([[0], [0]]), torch.tensor([0]), ks=(5, 20))


def test_evaluation_users_have_a_label_and_a_training_interaction() -> None:
    labels = torch.tensor([[5, 3, 3, 0], [0, 1, 2, 0]])
    training = torch.tensor([[3, 1, 5, 5], [0, 0, 0, 1]])
    assert evaluation_users(labels, training, num_users=8).tolist() == [3, 5]


def test_blocks_stay_small_however_many_users() -> None:
    """The largest block that the model is asked for stays small, however many users there are."""
    asked: list[int] = []

    def score(block: Tensor) -> Tensor:
        asked.append(block.numel())
        return torch.zeros(block.numel(), 5000)

    ranked, _ = rank_items(score, torch.arange(1000), None, 3, 5000)
    assert ranked.tolist() == [[0, 1, 2]] * 1000
    assert sum(asked) == 1000
    assert max(asked) * 5000 * 4 <= 64 * 2**20
    assert len(asked) > 1


def scorer_with_room_for(table: Tensor, room: int, asked: list[list[int]]) -> Callable[[Tensor], Tensor]:
    """Scores of users, of at most so many at a time."""
    def score(block: Tensor) -> Tensor:
        asked.append(block.tolist())
        if block.numel() > room:
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')
        return table[block]
    return score


@pytest.mark.parametrize('room', [1, 2, 5, 22, NUM_USERS])
@pytest.mark.parametrize('block_size', [1, 3, 8, NUM_USERS, 100])
def test_blocks_that_do_not_fit_are_halved(scores: Tensor, room: int, block_size: int) -> None:
    asked: list[list[int]] = []
    seen, users = random_pairs(250, seed=3), torch.arange(NUM_USERS)
    expected = rank_items(lambda block: scores[block], users, seen, 6, NUM_ITEMS)
    found = rank_items(scorer_with_room_for(scores, room, asked), users, seen, 6, NUM_ITEMS, block_size)
    assert found[0].equal(expected[0])
    assert found[1].equal(expected[1])
    fitted = [block for block in asked if len(block) <= room]
    assert [user for block in fitted for user in block] == users.tolist()  # each once: what was done stays done
    sizes = [len(block) for block in asked]
    assert all(second <= first for first, second in pairwise(sizes))
    assert len(asked) - len(fitted) <= 7


def test_memory_that_runs_out_later_halves_the_blocks_that_are_left(scores: Tensor) -> None:
    sizes: list[int] = []

    def score(block: Tensor) -> Tensor:
        sizes.append(block.numel())
        if block[0] >= 16 and block.numel() > 3:
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')
        return scores[block]

    ranked, _ = rank_items(score, torch.arange(NUM_USERS), None, 4, NUM_ITEMS, 8)
    assert ranked.equal(scores.topk(4).indices)
    assert sizes == [8, 8, 7, 3, 3, 1]


def test_a_single_user_that_does_not_fit_is_an_error(scores: Tensor) -> None:
    asked: list[list[int]] = []
    with pytest.raises(torch.OutOfMemoryError):
        rank_items(scorer_with_room_for(scores, 0, asked), torch.arange(NUM_USERS), None, 3, NUM_ITEMS, 8)
    assert [len(block) for block in asked] == [8, 4, 2, 1]


def test_other_errors_of_a_scorer_are_passed_on() -> None:
    def score(block: Tensor) -> Tensor:
        raise RuntimeError('shapes do not fit')

    with pytest.raises(RuntimeError, match='shapes do not fit'):
        rank_items(score, torch.arange(NUM_USERS), None, 3, NUM_ITEMS)
