"""Tests of dgmrec_pyg.nn.tanh."""

from __future__ import annotations

import pytest
import torch

from dgmrec_pyg.nn.tanh import tanh, tanh_of_linear


@pytest.mark.parametrize('scale', [1e-3, 1.0, 30.0, 1e30])
def test_it_is_tanh_with_its_gradient(scale: float) -> None:
    x = (scale * torch.randn(300, 40, generator=torch.Generator().manual_seed(0))).requires_grad_()
    before, factor = x.detach().clone(), torch.randn(300, 40, generator=torch.Generator().manual_seed(1))
    results = [(y, torch.autograd.grad((y * factor).sum(), x)[0]) for y in (tanh(x), x.tanh())]
    torch.testing.assert_close(*results, rtol=0.0, atol=1e-6)
    assert x.equal(before)


def test_views_are_not_written_to() -> None:
    table = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    before = table.clone()
    torch.testing.assert_close(tanh(table[:, :4]), before[:, :4].tanh(), rtol=0.0, atol=1e-6)
    assert table.equal(before)


def test_odd_numbers_come_through() -> None:
    x = torch.tensor([0.0, torch.inf, -torch.inf, torch.nan])
    torch.testing.assert_close(tanh(x), x.tanh(), equal_nan=True)
    assert tanh(torch.ones(2, dtype=torch.float64)).dtype == torch.float64
    assert tanh(torch.empty(0, 3)).shape == (0, 3)


def test_tanh_of_linear_passes_gradcheck() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(size, generator=generator, dtype=torch.float64, requires_grad=True)
                 for size in ((5, 3), (4, 3)))
    assert torch.autograd.gradcheck(tanh_of_linear, (x, weight))
    assert torch.autograd.gradcheck(lambda weight: tanh_of_linear(x.detach(), weight), (weight, ))


def test_tanh_of_linear_keeps_nothing_of_its_size() -> None:
    x, weight = torch.ones(7, 3, requires_grad=True), torch.ones(5, 3, requires_grad=True)
    kept: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda kept_one: kept.append(kept_one.shape) or kept_one,
                                                  lambda kept_one: kept_one):
        tanh_of_linear(x, weight)
    assert (7, 5) not in kept
    assert (7, 3) in kept


def test_tanh_of_linear_is_the_two_after_each_other() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(size, generator=generator, requires_grad=True) for size in ((300, 40), (16, 40)))
    results = [(y, *torch.autograd.grad(y.square().sum(), (x, weight)))
               for y in (tanh_of_linear(x, weight), (x @ weight.t()).tanh())]
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
    assert tanh_of_linear(x.detach(), weight.detach()).equal(results[0][0])
