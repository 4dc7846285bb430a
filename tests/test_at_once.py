"""Tests of dgmrec_pyg.nn.at_once."""

from __future__ import annotations

import torch
from torch import Tensor

from dgmrec_pyg.nn import CLUB
from dgmrec_pyg.nn.at_once import gradient_at_once


def draw(seed: int, requires_grad: bool = True) -> Tensor:
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.requires_grad_(requires_grad)


def loss(x: Tensor, y: Tensor) -> Tensor:
    return (x.sigmoid() * y.exp()).sum().square()


def test_passes_gradcheck() -> None:
    assert torch.autograd.gradcheck(lambda x, y: gradient_at_once(loss, x, y), (draw(0), draw(1)))


def test_the_loss_is_the_same_with_and_without_gradients() -> None:
    expected = loss(draw(0), draw(1))
    assert gradient_at_once(loss, draw(0), draw(1)).equal(expected)
    assert gradient_at_once(loss, draw(0, False), draw(1)).equal(expected)
    with torch.no_grad():
        assert gradient_at_once(loss, draw(0), draw(1)).equal(expected)


def test_the_gradient_reaches_inputs_alone_that_ask_for_one() -> None:
    club, permutation = CLUB(3, 3).double(), torch.arange(5, -1, -1)
    x, y, frozen = draw(0), draw(1), draw(1, False)
    plain = torch.autograd.grad(2.0 * club(x, y, permutation), (x, y))
    (2.0 * gradient_at_once(lambda x, y: club(x, y, permutation), x, y)).backward()
    torch.testing.assert_close((x.grad, y.grad), plain)
    assert all(parameter.grad is None for parameter in club.parameters())
    x.grad = None
    gradient_at_once(lambda x, y: club(x, y, permutation), x, frozen).backward()
    torch.testing.assert_close(x.grad, plain[0] / 2.0)
    assert frozen.grad is None
