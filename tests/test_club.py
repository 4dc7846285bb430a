"""Tests of dgmrec_pyg.nn.CLUB."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dgmrec_pyg.nn import CLUB


def draw(count: int = 60, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """Rows x, and rows y that depend on x the more the less noise there is."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 3, generator=generator)
    y = torch.stack([x[:, 0] - x[:, 1], x[:, 2]], dim=1)
    return x, y + noise * torch.randn(y.shape, generator=generator)


def estimator(in_channels: int = 3, out_channels: int = 2) -> CLUB:
    club, generator = CLUB(in_channels, out_channels), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in club.parameters():
            parameter.uniform_(-0.3, 0.3, generator=generator)
    return club


def train(club: CLUB, x: Tensor, y: Tensor, steps: int) -> None:
    optimizer = torch.optim.Adam(club.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        club.learning_loss(x, y).backward()
        optimizer.step()


def naive_mean_and_log_variance(club: CLUB, row: Tensor) -> tuple[Tensor, Tensor]:
    values = []
    for net in (club.mean, club.log_variance):
        hidden = (net[0].weight @ row + net[0].bias).clamp(min=0)
        values.append(net[2].weight @ hidden + net[2].bias)
    return values[0], values[1].tanh()


def test_bound_equals_formula() -> None:
    (x, y), club = draw(10), estimator()
    permutation = torch.randperm(10, generator=torch.Generator().manual_seed(2))
    total = 0.0
    for k in range(10):
        mean, log_variance = naive_mean_and_log_variance(club, x[k])
        for c in range(2):
            variance = log_variance[c].exp().item()
            total -= (mean[c] - y[k, c]).square().item() / variance
            total += (mean[c] - y[permutation[k], c]).square().item() / variance
    assert club(x, y, permutation).item() == pytest.approx(total / 10 / 2, rel=1e-5)


def test_learning_loss_equals_formula() -> None:
    (x, y), club = draw(10), estimator()
    total = 0.0
    for k in range(10):
        mean, log_variance = naive_mean_and_log_variance(club, x[k])
        total += ((mean - y[k]) ** 2 / log_variance.exp() + log_variance).sum().item()
    assert club.learning_loss(x, y).item() == pytest.approx(total / 10, rel=1e-5)


def test_training_raises_the_likelihood() -> None:
    (x, y), club = draw(), estimator()
    before = club.learning_loss(x, y).item()
    train(club, x, y, steps=20)
    assert club.learning_loss(x, y).item() < before - 0.1


def test_bound_grows_with_dependence() -> None:
    bounds = []
    for noise in (100.0, 1.0, 0.1):
        x, y = draw(2000, noise)
        y = (y - y.mean(dim=0)) / y.std(dim=0)
        club = estimator()
        train(club, x, y, steps=100)
        permutation = torch.randperm(2000, generator=torch.Generator().manual_seed(3))
        bounds.append(club(x, y, permutation).item())
    assert abs(bounds[0]) < 0.2
    assert bounds[0] + 0.3 < bounds[1]
    assert bounds[1] + 0.3 < bounds[2]


def test_no_shuffle_is_no_information() -> None:
    (x, y), club = draw(), estimator()
    assert club(x, y, torch.arange(60)).item() == 0.0


def test_shuffle_comes_from_the_generator() -> None:
    (x, y), club = draw(), estimator()
    first, second, other = (club(x, y, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert first.equal(second)
    assert not first.equal(other)


def test_bound_by_blocks_passes_gradcheck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('dgmrec_pyg.nn.club._BLOCK_ROWS', {'cpu': 4})
    x, y = (part[:10].double().requires_grad_() for part in draw())
    club, permutation = estimator().double(), torch.randperm(10, generator=torch.Generator().manual_seed(2))
    assert torch.autograd.gradcheck(lambda x, y: club.bound(x, y, permutation), (x, y))


def test_bound_has_the_gradient_of_the_plain_one_and_leaves_the_estimator_alone(monkeypatch: pytest.MonkeyPatch
                                                                                ) -> None:
    monkeypatch.setattr('dgmrec_pyg.nn.club._BLOCK_ROWS', {'cpu': 7})
    x, y = (part.requires_grad_() for part in draw())
    club, permutation = estimator(), torch.randperm(60, generator=torch.Generator().manual_seed(2))
    plain = club(x, y, permutation)
    expected = torch.autograd.grad(2.0 * plain, (x, y))
    bound = club.bound(x, y, permutation)
    torch.testing.assert_close(bound, plain)
    (2.0 * bound).backward()
    torch.testing.assert_close((x.grad, y.grad), expected)
    assert all(parameter.grad is None for parameter in club.parameters())
    x.grad = None
    club.bound(x, y.detach(), permutation).backward()
    torch.testing.assert_close(x.grad, expected[0] / 2.0)
    with torch.no_grad():
        torch.testing.assert_close(club.bound(x, y, permutation), plain)
    assert club.bound(x.detach(), y.detach(), generator=torch.Generator().manual_seed(5)).equal(
        club(x, y, generator=torch.Generator().manual_seed(5)))


def test_hidden_size_and_repr() -> None:
    club = CLUB(3, 2, hidden_channels=7)
    assert club.mean[0].weight.shape == club.log_variance[0].weight.shape == (7, 3)
    assert repr(club) == 'CLUB(3, 2)'
