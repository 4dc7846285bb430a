"""The loss of the ranking, with users who have few interactions and many."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dgmrec_pyg.nn import RankingLoss, bpr_loss, sampled_softmax_loss

EDGES = torch.tensor([[0, 1, 1, 1, 1, 3], [0, 0, 1, 2, 3, 2]])
NUM_USERS = 4
IDS = torch.tensor([0, 1, 3])
USER = torch.tensor([0, 1, 1, 2])
POSITIVE, NEGATIVE, NEGATIVES = torch.tensor([0, 1, 2, 2]), torch.tensor([3, 4, 4, 1]), torch.tensor([1, 3, 4])
COUNT = torch.tensor([1.0, 4.0, 1.0])


def draw() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 6, generator=generator), torch.randn(5, 6, generator=generator)


def loss(kind: str, **settings: float) -> Tensor:
    return RankingLoss(kind, EDGES, NUM_USERS, **settings)(*draw(), IDS, USER, POSITIVE, NEGATIVE, NEGATIVES)


def test_without_balance_it_is_the_plain_loss() -> None:
    users, items = draw()
    assert loss('softmax', temperature=0.3).equal(
        sampled_softmax_loss(users, items, USER, POSITIVE, NEGATIVES, 0.3))
    scores = ((users[USER] * items[rows]).sum(dim=1) for rows in (POSITIVE, NEGATIVE))
    assert loss('bpr').equal(bpr_loss(*scores))


@pytest.mark.parametrize('balance', [0.5, 1.0])
def test_an_interaction_weighs_less_the_more_its_user_has(balance: float) -> None:
    users, items = draw()
    weight = (COUNT ** -balance)[USER]
    torch.testing.assert_close(
        loss('softmax', temperature=0.3, user_balance=balance),
        sampled_softmax_loss(users, items, USER, POSITIVE, NEGATIVES, 0.3, weight))
    scores = ((users[USER] * items[rows]).sum(dim=1) for rows in (POSITIVE, NEGATIVE))
    torch.testing.assert_close(loss('bpr', user_balance=balance), bpr_loss(*scores, weight))


def test_users_with_few_interactions_have_a_higher_temperature() -> None:
    users, items = draw()
    temperature = 0.2 * (1.0 + 2.0 / COUNT)
    torch.testing.assert_close(loss('softmax', temperature=0.2, temperature_spread=2.0),
                               sampled_softmax_loss(users, items, USER, POSITIVE, NEGATIVES, temperature))


def test_a_user_without_interactions_counts_like_one_with_a_single_one() -> None:
    made = RankingLoss('softmax', EDGES, NUM_USERS, 0.2, 1.0, 0.5)
    assert made.temperature.tolist() == pytest.approx([0.4, 0.25, 0.4, 0.4])
    assert made.weight.tolist() == pytest.approx([1.0, 0.5, 1.0, 1.0])
