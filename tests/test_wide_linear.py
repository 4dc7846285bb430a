"""Tests of dgmrec_pyg.nn.wide_linear."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dgmrec_pyg.nn import wide_linear
from dgmrec_pyg.nn.wide_linear import linear_and_features, linear_mse_loss


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_()


@pytest.fixture(params=[1, 3, 1000], ids=lambda rows: f'blocks of {rows} rows')
def block_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(wide_linear, '_BLOCK_ELEMENTS', {'cpu': 11 * request.param})
    return request.param


@pytest.mark.usefixtures('block_rows')
@pytest.mark.parametrize('frozen', [(), ('x',), ('target',), ('weight', 'bias'), ('x', 'target')])
def test_linear_mse_loss_equals_definition(frozen: tuple[str, ...]) -> None:
    parts = {'x': draw(7, 4, seed=1), 'weight': draw(11, 4, seed=2), 'bias': draw(11, seed=3),
             'target': draw(7, 11, seed=4)}
    for name in frozen:
        parts[name].requires_grad_(False)
    learned = [part for part in parts.values() if part.requires_grad]
    naive = F.mse_loss(F.linear(parts['x'], parts['weight'], parts['bias']), parts['target'])
    ours = linear_mse_loss(**parts)
    torch.testing.assert_close(ours, naive)
    for first, second in zip(torch.autograd.grad(3 * ours, learned), torch.autograd.grad(3 * naive, learned),
                             strict=True):
        torch.testing.assert_close(first, second)


def test_linear_mse_loss_of_no_rows_is_zero() -> None:
    x, weight, bias, target = draw(0, 4), draw(11, 4), draw(11), draw(0, 11)
    loss = linear_mse_loss(x, weight, bias, target)
    loss.backward()
    assert loss == 0.0
    assert not weight.grad.any()
    assert not bias.grad.any()


def test_second_backward_pass_is_refused() -> None:
    loss = linear_mse_loss(draw(3, 2), draw(11, 2), draw(11), draw(3, 11))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        loss.backward()


@pytest.mark.parametrize('reads', ['neither', 'output', 'features', 'both'])
def test_linear_and_features_equals_plain_operations(reads: str) -> None:
    x, weight, bias = draw(5, 6, seed=1), draw(3, 6, seed=2), draw(3, seed=3)

    def loss(output: Tensor, features: Tensor) -> Tensor:
        # As in the model: what reads the features also reads (detached) the output.
        terms = {'output': output.square().sum(), 'features': linear_mse_loss(
            output.detach(), draw(6, 3, seed=4), draw(6, seed=5), features)}
        used = [term for name, term in terms.items() if reads in (name, 'both')]
        return torch.stack([*used, 0.0 * weight.sum()]).sum()

    ours = torch.autograd.grad(loss(*linear_and_features(x, weight, bias)), (x, weight, bias), allow_unused=True)
    plain = torch.autograd.grad(loss(F.linear(x, weight, bias), x), (x, weight, bias), allow_unused=True)
    for first, second in zip(ours, plain, strict=True):
        assert (first is None) == (second is None)
        if first is not None:
            torch.testing.assert_close(first, second)


def test_features_passed_on_without_gradient_are_the_features() -> None:
    x = draw(5, 6).detach()
    output, features = linear_and_features(x, draw(3, 6), draw(3))
    assert features is x
    assert output.requires_grad


def test_inputs_are_not_written_to() -> None:
    parts = draw(5, 6), draw(3, 6, seed=1), draw(3, seed=2)
    before = [part.detach().clone() for part in parts]
    output, features = linear_and_features(*parts)
    (output.sum() + linear_mse_loss(output.detach(), draw(6, 3), draw(6), features)).backward()
    for part, old in zip(parts, before, strict=True):
        assert torch.equal(part.detach(), old)


@pytest.mark.usefixtures('block_rows')
def test_linear_mse_loss_passes_gradcheck() -> None:
    parts = draw(7, 4, seed=1), draw(11, 4, seed=2), draw(11, seed=3), draw(7, 11, seed=4)
    # Each backward pass uses its buffer up; a checkpoint computes it anew.
    assert torch.autograd.gradcheck(lambda *p: checkpoint(linear_mse_loss, *p, use_reentrant=False), parts)


def test_linear_and_features_passes_gradcheck() -> None:
    def outputs(*parts: Tensor) -> tuple[Tensor, ...]:
        output, features = linear_and_features(*parts)
        # Not the features themselves: their gradient is written to, and gradcheck uses its own again.
        return output, 2.0 * features, output.sum(dim=1, keepdim=True) + features.square()

    assert torch.autograd.gradcheck(outputs, (draw(5, 6, seed=1), draw(3, 6, seed=2), draw(3, seed=3)))
