"""Tests of dgmrec_pyg.nn.products."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dgmrec_pyg.nn import products
from dgmrec_pyg.nn.products import linear, times_transposed, times_transposed_minus, weight_gradient


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(params=[True, False], ids=['oneDNN where it is there', 'plain'], autouse=True)
def has_onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, '_HAS_ONEDNN', products._HAS_ONEDNN and request.param)


@pytest.mark.parametrize('rows', [0, 1, 300])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_products_equal_definition(rows: int, dtype: torch.dtype) -> None:
    a, b, bias = draw(rows, 40, seed=1, dtype=dtype), draw(70, 40, seed=2, dtype=dtype), draw(70, seed=3, dtype=dtype)
    other = draw(rows, 70, seed=4, dtype=dtype)
    exact = a.double() @ b.double().t() + bias.double()
    close = {'rtol': 0.0, 'atol': 1e-4 if dtype == torch.float32 else 1e-12}
    torch.testing.assert_close(times_transposed(a, b, bias).double(), exact, **close)
    torch.testing.assert_close(times_transposed(a, b).double(), exact - bias, **close)
    torch.testing.assert_close(times_transposed_minus(a, b, bias, other).double(), exact - other, **close)
    # As gradients have them: views of transposed tables.
    torch.testing.assert_close(times_transposed(a.t().contiguous().t(), b.t().contiguous().t()).double(),
                               exact - bias, **close)


@pytest.mark.parametrize('columns', [3, 300])
def test_weight_gradient_equals_definition(columns: int) -> None:
    grad, x = draw(50, 7, seed=1), draw(50, columns, seed=2)
    torch.testing.assert_close(weight_gradient(grad, x).double(), grad.double().t() @ x.double(), rtol=0.0, atol=1e-4)


def test_rows_of_minus_infinity_stay_so() -> None:
    bias = torch.tensor([0.0, -torch.inf])
    assert times_transposed(torch.ones(3, 4), torch.ones(2, 4), bias).tolist() == [[4.0, -torch.inf]] * 3


@pytest.mark.parametrize('frozen', [(), ('x',), ('weight', 'bias'), ('bias',)])
@pytest.mark.parametrize('has_bias', [True, False])
def test_linear_has_the_gradients_of_plain_linear(frozen: tuple[str, ...], has_bias: bool) -> None:
    parts = {'x': draw(50, 20, seed=1), 'weight': draw(30, 20, seed=2), 'bias': draw(30, seed=3)}
    if not has_bias:
        del parts['bias']
    learned = [part.requires_grad_() for name, part in parts.items() if name not in frozen]
    factor = draw(50, 30, seed=4)
    ours, plain = (torch.autograd.grad((function(**parts) * factor).sum(), learned)
                   for function in (linear, lambda **p: F.linear(p['x'], p['weight'], p.get('bias'))))
    for first, second in zip(ours, plain, strict=True):
        torch.testing.assert_close(first, second, rtol=0.0, atol=1e-4)


def test_inputs_are_not_written_to() -> None:
    inputs = [draw(6, 5, seed=1), draw(4, 5, seed=2), draw(4, seed=3), draw(6, 4, seed=4)]
    before = [x.clone() for x in inputs]
    times_transposed(*inputs[:3])
    times_transposed_minus(*inputs)
    for x, first in zip(inputs, before, strict=True):
        torch.testing.assert_close(x, first, rtol=0.0, atol=0.0)
