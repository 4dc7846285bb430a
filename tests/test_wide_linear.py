"""Tests of dgmrec_pyg.nn.wide_linear."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dgmrec_pyg.nn import wide_linear
from dgmrec_pyg.nn.wide_linear import TakeGradient, linear_and_features, linear_mse_loss


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


@pytest.mark.parametrize('passed_on', [False, True])
def test_second_backward_pass_gives_the_same(passed_on: bool) -> None:
    target = draw(3, 11)
    features = linear_and_features(target, draw(2, 11), draw(2))[1] if passed_on else target
    loss = linear_mse_loss(draw(3, 2), draw(11, 2), draw(11), features)
    first, second = (torch.autograd.grad(loss, target, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert first.any()


def test_a_backward_pass_that_does_not_reach_the_features_leaves_nothing_behind() -> None:
    x, decoder = draw(5, 6, seed=1), draw(6, 3, seed=4)
    output, features = linear_and_features(x, draw(3, 6, seed=2), draw(3, seed=3))
    loss = linear_mse_loss(output.detach(), decoder, draw(6, seed=5), features)
    torch.autograd.grad(loss, decoder, retain_graph=True)
    expected = torch.autograd.grad(F.linear(x, draw(3, 6, seed=2)).sum(), x)[0]
    torch.testing.assert_close(torch.autograd.grad(output.sum(), x)[0], expected)


def test_a_backward_pass_that_does_not_reach_the_features_keeps_nothing_alive() -> None:
    x, decoder = draw(5, 6, seed=1), draw(6, 3, seed=4)
    output, features = linear_and_features(x, draw(3, 6, seed=2), draw(3, seed=3))
    loss = linear_mse_loss(output.sigmoid(), decoder, draw(6, seed=5), features)
    torch.autograd.grad(loss, decoder)
    alive = weakref.ref(x)
    del x, output, features, loss
    gc.collect()
    assert alive() is None


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
@pytest.mark.parametrize('channels', [4, 12])  # The errors are narrower than the input then, and are kept.
def test_linear_mse_loss_passes_gradcheck(channels: int) -> None:
    parts = draw(7, channels, seed=1), draw(11, channels, seed=2), draw(11, seed=3), draw(7, 11, seed=4)
    assert torch.autograd.gradcheck(linear_mse_loss, parts)


@pytest.mark.usefixtures('block_rows')
@pytest.mark.parametrize('hidden', [3, 7])
def test_features_compared_where_they_are_passed_on_pass_gradcheck(hidden: int) -> None:
    def loss(x: Tensor, weight: Tensor, bias: Tensor, decoder: Tensor, decoder_bias: Tensor) -> Tensor:
        output, features = linear_and_features(x, weight, bias)
        return linear_mse_loss(output, decoder, decoder_bias, features) + output.square().sum()

    parts = (draw(5, 6, seed=1), draw(hidden, 6, seed=2), draw(hidden, seed=3), draw(6, hidden, seed=4),
             draw(6, seed=5))
    assert torch.autograd.gradcheck(loss, parts)
    assert torch.autograd.gradcheck(lambda *p: checkpoint(loss, *p, use_reentrant=False), parts)


@pytest.mark.usefixtures('block_rows')
@pytest.mark.parametrize('reads', ['output', 'features', 'selected', 'all'])
def test_a_gradient_is_taken_block_by_block(reads: str) -> None:
    def gradients(take: TakeGradient | None) -> list[Tensor | None]:
        parts = [draw(7, 11, seed=1), draw(3, 11, seed=2), draw(3, seed=3), draw(11, 3, seed=4), draw(11, seed=5)]
        output, features = linear_and_features(*parts[:3], take)
        index = torch.tensor([4, 0, 4])
        terms = {'output': output.square().sum(),
                 'features': linear_mse_loss(output.detach(), *parts[3:], features),
                 'selected': linear_mse_loss(output[index].detach(), *parts[3:], features.index_select(0, index))}
        torch.stack([term for name, term in terms.items() if reads in (name, 'all')]).sum().backward()
        return [part.grad for part in parts]

    expected, *others = gradients(None)
    assert expected is not None
    total = torch.full_like(expected, torch.nan)

    def take(blocks: Iterator[tuple[slice, Tensor]]) -> None:
        for rows, block in blocks:
            total[rows] = block

    left, *same = gradients(take)
    assert left is None
    assert torch.equal(total, expected)
    for one, other in zip(same, others, strict=True):
        assert one is other is None or torch.equal(one, other)


def test_who_takes_a_gradient_may_step_the_features_at_once() -> None:
    x, weight, decoder = draw(7, 11, seed=1), draw(3, 11, seed=2), draw(11, 3, seed=4)
    expected = x.detach().clone()

    def loss(take: TakeGradient | None) -> Tensor:
        output, features = linear_and_features(x, weight, draw(3, seed=3), take)
        return linear_mse_loss(output, decoder, draw(11, seed=5), features) + output.square().sum()

    of_x, *others = torch.autograd.grad(loss(None), (x, weight, decoder))

    def step(blocks: Iterator[tuple[slice, Tensor]]) -> None:
        for rows, block in blocks:
            x.data[rows] -= 0.1 * block

    for one, other in zip(torch.autograd.grad(loss(step), (x, weight, decoder), allow_unused=True)[1:], others,
                          strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(x.detach(), expected - 0.1 * of_x)


def test_linear_and_features_passes_gradcheck() -> None:
    def outputs(*parts: Tensor) -> tuple[Tensor, ...]:
        output, features = linear_and_features(*parts)
        # Not the features themselves: their gradient is written to, and gradcheck uses its own again.
        return output, 2.0 * features, output.sum(dim=1, keepdim=True) + features.square()

    assert torch.autograd.gradcheck(outputs, (draw(5, 6, seed=1), draw(3, 6, seed=2), draw(3, seed=3)))


def test_errors_of_a_narrow_table_are_kept_in_place_of_the_layer() -> None:
    generator = torch.Generator().manual_seed(0)
    x, target = torch.randn(6, 8, generator=generator), torch.randn(6, 3, generator=generator, requires_grad=True)
    weight, bias = torch.randn(3, 8, generator=generator), torch.randn(3, generator=generator)
    kept: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: kept.append(saved.shape) or saved, lambda saved: saved):
        linear_mse_loss(x, weight, bias, target)
    assert (6, 3) in kept
    assert (6, 8) not in kept
