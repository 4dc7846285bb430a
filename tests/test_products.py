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
    if not request.param:
        monkeypatch.setattr(products, '_has_onednn', lambda: False)


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


def test_strided_inputs_are_read_as_they_are() -> None:
    a, b, columns = draw(30, 20, seed=1), draw(10, 20, seed=2), draw(10, 3, seed=3)
    other = draw(10, 30, seed=4).t()
    torch.testing.assert_close(times_transposed(a, b, columns[:, 1]), a @ b.t() + columns[:, 1])
    torch.testing.assert_close(times_transposed_minus(a, b, columns[:, 1], other), a @ b.t() + columns[:, 1] - other)
    torch.testing.assert_close(linear(a, b, columns[:, 1]), F.linear(a, b, columns[:, 1]))


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


def test_a_product_that_has_changed_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # The fixture above.
    products._has_onednn.cache_clear()
    monkeypatch.setattr(torch.ops.mkldnn, '_linear_pointwise', lambda x, weight: x)
    try:
        assert not products._has_onednn()
        assert linear(torch.ones(3, 4), torch.ones(2, 4)).tolist() == [[4.0, 4.0]] * 3
    finally:
        products._has_onednn.cache_clear()


def test_the_default_type_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    before = products._has_onednn()
    products._has_onednn.cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        assert products._has_onednn() == before
    finally:
        torch.set_default_dtype(torch.float32)
        products._has_onednn.cache_clear()


@pytest.mark.skipif(not torch.__version__.startswith('2.13') or not torch.backends.mkldnn.is_available(),
                    reason='made with PyTorch 2.13')
def test_it_is_used_where_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the time would tell that the fast way is never taken."""
    monkeypatch.undo()
    assert products._has_onednn()
