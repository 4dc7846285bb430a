"""Tests of dgmrec_pyg.nn.losses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dgmrec_pyg.nn import bpr_loss, info_nce_loss, sampled_softmax_loss


def rows(count: int, seed: int, size: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, size, generator=generator, dtype=dtype).requires_grad_()


def naive_info_nce(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """The definition, pair by pair."""
    a, b = F.normalize(a), F.normalize(b)
    losses = []
    for k in range(a.size(0)):
        logits = torch.stack([(a[k] * b[j]).sum() / temperature for j in range(b.size(0))])
        losses.append(logits.logsumexp(dim=0) - logits[k])
    return torch.stack(losses).mean()


def assert_same_with_gradients(ours: Tensor, naive: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(ours, naive)
    for first, second in zip(torch.autograd.grad(3 * ours, inputs), torch.autograd.grad(3 * naive, inputs),
                             strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize('temperature', [0.05, 0.2, 1.0])
@pytest.mark.parametrize('count', [1, 2, 9])
def test_info_nce_equals_definition(count: int, temperature: float) -> None:
    a, b = rows(count, 0), rows(count, 1)
    assert_same_with_gradients(info_nce_loss(a, b, temperature), naive_info_nce(a, b, temperature), [a, b])


@pytest.mark.parametrize(('index_a', 'index_b'), [
    ([0, 1, 2, 3], [4, 3, 2, 1]),
    ([0, 0, 2, 2, 2], [1, 4, 4, 4, 0]),  # rows in many pairs, and rows in none
    ([3, 3, 3], [2, 2, 2]),
    ([1], [4]),
    ([0, 3, 1, 0, 3], None),
])
@pytest.mark.parametrize('temperature', [0.01, 0.3])
def test_info_nce_with_indices_equals_repeated_rows(index_a: list[int], index_b: list[int] | None,
                                                    temperature: float) -> None:
    a, b = rows(4, 2), rows(5, 3)
    left = torch.tensor(index_a)
    right = left if index_b is None else torch.tensor(index_b)
    ours = info_nce_loss(a, b, temperature, left, None if index_b is None else right)
    assert_same_with_gradients(ours, naive_info_nce(a[left], b[right], temperature), [a, b])


def test_a_row_of_no_pair_does_not_matter_however_similar_it_is() -> None:
    """In float32, exp((x - 1) / 0.01) of the paired rows would be 0 beside the row that is in no pair."""
    a = torch.tensor([[1.0, 0.0]], requires_grad=True)
    b = torch.tensor([[1.0, 0.0], [-1.0, 0.1], [-1.0, -0.2]])
    index_a, index_b = torch.tensor([0, 0]), torch.tensor([1, 2])
    loss = info_nce_loss(a, b, 0.01, index_a, index_b)
    naive = naive_info_nce(a.double()[index_a], b.double()[index_b], 0.01)
    torch.testing.assert_close(loss.double(), naive, rtol=1e-4, atol=1e-4)
    assert torch.autograd.grad(loss, a)[0].isfinite().all()


def test_info_nce_is_not_symmetric() -> None:
    a, b = rows(6, 4), rows(6, 5)
    assert not torch.isclose(info_nce_loss(a, b), info_nce_loss(b, a))


def test_info_nce_passes_gradcheck() -> None:
    index_a, index_b = torch.tensor([0, 2, 2, 1]), torch.tensor([1, 1, 0, 3])
    assert torch.autograd.gradcheck(lambda a, b: info_nce_loss(a, b, 0.3, index_a, index_b), (rows(3, 6), rows(4, 7)))


@pytest.mark.parametrize('opposite', [False, True])
def test_info_nce_stays_finite_at_a_small_temperature(opposite: bool) -> None:
    a = rows(50, 8, size=8, dtype=torch.float32)
    b = (-a if opposite else a).detach().requires_grad_()
    loss = info_nce_loss(a, b, 0.01)
    loss.backward()
    naive = naive_info_nce(a.detach().double(), b.detach().double(), 0.01)
    torch.testing.assert_close(loss.detach().double(), naive, rtol=1e-4, atol=1e-4)
    assert a.grad.isfinite().all()
    assert b.grad.isfinite().all()


def test_info_nce_of_zero_rows_is_finite() -> None:
    a, b = torch.zeros(3, 4, requires_grad=True), rows(3, 9, size=4, dtype=torch.float32)
    loss = info_nce_loss(a, b)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(3.0), abs=1e-6)
    assert a.grad.isfinite().all()


def test_info_nce_of_no_pair_is_zero() -> None:
    a, b = rows(4, 10), rows(5, 11)
    empty = torch.empty(0, dtype=torch.long)
    for loss in (info_nce_loss(a[:0], b[:0]), info_nce_loss(a, b, 0.2, empty, empty)):
        assert loss.item() == 0.0
        for grad in torch.autograd.grad(loss, [a, b]):
            assert grad.equal(torch.zeros_like(grad))


def test_info_nce_of_one_pair_is_zero() -> None:
    assert info_nce_loss(rows(1, 12), rows(1, 13), 0.01).item() == pytest.approx(0.0, abs=1e-12)


def test_info_nce_gives_gradients_to_one_side_alone() -> None:
    a, b = rows(6, 14), rows(6, 15)
    expected = torch.autograd.grad(info_nce_loss(a, b), a)
    torch.testing.assert_close(torch.autograd.grad(info_nce_loss(a, b.detach()), a), expected)
    with torch.no_grad():
        assert not info_nce_loss(a, b).requires_grad


def test_info_nce_of_different_lengths_is_an_error() -> None:
    with pytest.raises(ValueError, match='got 3 and 4'):
        info_nce_loss(rows(3, 0), rows(4, 0))


def test_info_nce_does_not_write_to_its_input() -> None:
    a, b = rows(6, 16), rows(6, 17)
    before = a.detach().clone(), b.detach().clone()
    info_nce_loss(a, b).backward()
    assert a.equal(before[0])
    assert b.equal(before[1])


def test_bpr_equals_definition() -> None:
    positive, negative = rows(7, 18, size=1).squeeze(1), rows(7, 19, size=1).squeeze(1)
    naive = torch.stack([-torch.log(1 / (1 + torch.exp(-(p - n)))) for p, n in zip(positive, negative, strict=True)])
    assert_same_with_gradients(bpr_loss(positive, negative), naive.mean(), [positive, negative])


def test_bpr_is_finite_far_apart() -> None:
    positive = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = bpr_loss(positive, torch.zeros(2))
    loss.backward()
    assert loss.item() == pytest.approx(5e3)
    assert positive.grad.tolist() == pytest.approx([-0.5, 0.0])


def test_weighted_bpr_loss_equals_repeated_pairs() -> None:
    positive, negative = (x[:, 0].detach().requires_grad_() for x in (rows(3, 24), rows(3, 25)))
    index = torch.tensor([0, 0, 1, 2, 2, 2])
    assert_same_with_gradients(bpr_loss(positive, negative, torch.tensor([1.0, 0.5, 1.5], dtype=positive.dtype)),
                               bpr_loss(positive[index], negative[index]), [positive, negative])


def test_weights_and_temperatures_may_be_of_another_precision() -> None:
    users, items, index = rows(3, 26), rows(4, 27), torch.tensor([0, 1, 2])
    weight, temperature = torch.tensor([1.0, 0.5, 2.0]), torch.tensor([0.2, 0.3, 0.4])
    given = users, items, index, index, torch.tensor([3])
    assert users.dtype == torch.float64
    torch.testing.assert_close(sampled_softmax_loss(*given, temperature, weight),
                               sampled_softmax_loss(*given, temperature.double(), weight.double()))
    scores = users[:, 0], items[:3, 0]
    torch.testing.assert_close(bpr_loss(*scores, weight), bpr_loss(*scores, weight.double()))


def naive_sampled_softmax(users: Tensor, items: Tensor, user: Tensor, pos_item: Tensor, negatives: Tensor,
                          temperature: float | Tensor, weight: Tensor | None = None) -> Tensor:
    """The definition, pair by pair."""
    losses = []
    for u, i in zip(user.tolist(), pos_item.tolist(), strict=True):
        scores = torch.stack([F.cosine_similarity(users[u], items[j], dim=0) for j in (i, *negatives.tolist())])
        scores = scores / (temperature[u] if isinstance(temperature, Tensor) else temperature)
        losses.append(scores.logsumexp(dim=0) - scores[0])
    weight = torch.ones(len(losses), dtype=users.dtype) if weight is None else weight
    return (torch.stack(losses) * weight).sum() / weight.sum()


@pytest.mark.parametrize(('num_users', 'num_items', 'num_pairs', 'num_negatives'),
                         [(4, 9, 13, 5), (1, 2, 1, 1), (5, 3, 4, 3), (600, 9, 700, 4), (1030, 140, 40, 130)])
@pytest.mark.parametrize('temperature', [0.05, 0.25])
def test_sampled_softmax_equals_definition(num_users: int, num_items: int, num_pairs: int, num_negatives: int,
                                           temperature: float) -> None:
    generator = torch.Generator().manual_seed(num_users)
    users, items = rows(num_users, 20), rows(num_items, 21)
    user = torch.randint(num_users, (num_pairs,), generator=generator)
    pos_item = torch.randint(num_items, (num_pairs,), generator=generator)
    negatives = torch.randperm(num_items, generator=generator)[:num_negatives]
    given = users, items, user, pos_item, negatives
    assert_same_with_gradients(sampled_softmax_loss(*given, temperature), naive_sampled_softmax(*given, temperature),
                               [users, items])
    of_user = temperature * (1.0 + torch.rand(num_users, generator=generator, dtype=users.dtype))
    weight = 0.1 + torch.rand(num_pairs, generator=generator, dtype=users.dtype)
    assert_same_with_gradients(sampled_softmax_loss(*given, of_user, weight),
                               naive_sampled_softmax(*given, of_user, weight), [users, items])


def test_sampled_softmax_does_not_depend_on_lengths() -> None:
    users, items, index = rows(4, 22), rows(6, 23), torch.tensor([0, 2, 2, 3])
    given = index, index + 1, torch.tensor([0, 5])
    loss = sampled_softmax_loss(users, items, *given)
    torch.testing.assert_close(sampled_softmax_loss(3.0 * users, 0.1 * items, *given), loss)
    loss.backward()
    for x in (users, items):
        torch.testing.assert_close((x * x.grad).sum(dim=1), torch.zeros(x.size(0), dtype=x.dtype))
    assert items.grad[1:4:2].abs().sum(dim=1).gt(0).all()
    assert not users.grad[1].any()


def test_sampled_softmax_is_finite_for_rows_of_zeros_and_low_temperatures() -> None:
    users, items = torch.zeros(2, 3, requires_grad=True), torch.eye(3, requires_grad=True)
    index = torch.tensor([0, 1])
    loss = sampled_softmax_loss(users, items, index, index, torch.tensor([2]), 1e-3)
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()
    assert users.grad.isfinite().all()
    apart = sampled_softmax_loss(-items.detach()[:1], items, index[:1], index[:1], torch.tensor([2]), 1e-3)
    assert apart.item() == pytest.approx(1e3)


@pytest.mark.parametrize(('pairs', 'negatives'), [(0, 0), (0, 1), (2, 0)])
def test_sampled_softmax_of_nothing_is_zero(pairs: int, negatives: int) -> None:
    users, items, index = rows(2, 24), rows(2, 25), torch.arange(2)
    loss = sampled_softmax_loss(users, items, index[:pairs], index[:pairs], index[:negatives])
    loss.backward()
    assert loss.item() == 0.0
    assert not users.grad.any()
