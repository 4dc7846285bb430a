"""Tests of dgmrec_pyg.training.finite."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dgmrec_pyg.training.finite import TOTAL, LossWatch, NotFinite, is_finite


def step(device: str = 'cpu', **terms: float) -> tuple[dict[str, Tensor], Tensor]:
    values = {name: torch.tensor(value, device=device, requires_grad=True) for name, value in terms.items()}
    return values, torch.stack(list(values.values())).sum()


def batch(number: int) -> tuple[Tensor, ...]:
    return (torch.tensor([number]), )


def test_means_over_steps() -> None:
    watch = LossWatch()
    for value in (1.0, 2.0, 6.0):
        watch.add(*step(bpr=value, other=-value), batch(0))
    assert watch.means() == {'bpr': 3.0, 'other': -3.0, TOTAL: 0.0}


def test_no_steps() -> None:
    assert LossWatch().means() == {}


@pytest.mark.parametrize(('terms', 'message'), [
    ({'bpr': math.nan, 'other': 1.0}, 'bpr nan'),
    ({'bpr': math.inf, 'other': -math.inf}, 'bpr inf, other -inf'),
    ({'bpr': 3e38, 'other': 3e38}, 'total inf'),
])
def test_the_first_bad_step_is_named(terms: dict[str, float], message: str) -> None:
    watch = LossWatch()
    watch.add(*step(bpr=1.0, other=1.0), batch(1))
    with pytest.raises(NotFinite) as caught:
        watch.add(*step(**terms), batch(2))
    assert (str(caught.value), caught.value.step, caught.value.batch) == (message, 2, batch(2))
    assert caught.value.terms.keys() == {'bpr', 'other', TOTAL}


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.int64, torch.bool])
def test_numbers_are_finite(dtype: torch.dtype) -> None:
    for shape in ((), (0, 3), (4, 3)):
        assert is_finite(torch.ones(shape, dtype=dtype))
    if dtype.is_floating_point:
        assert is_finite(torch.full((4, 3), torch.finfo(dtype).max, dtype=dtype))


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('place', [0, 5, 11])
def test_one_number_that_is_not_finite_is_found(bad: float, place: int) -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    x.view(-1)[place] = bad
    assert not is_finite(x)
    assert not is_finite(torch.stack([x, torch.full_like(x, -bad)]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no CUDA')
@pytest.mark.parametrize('bad', [3, 200])
def test_on_cuda_it_is_found_without_waiting(bad: int) -> None:
    """What a step computes is not waited for, so a bad one shows later, but with its own number and batch."""
    watch, work = LossWatch(), torch.randn(4096, 4096, device='cuda')

    def train() -> None:
        for number in range(1, 201):
            work.copy_((work @ work).clamp(-1, 1))
            watch.add(*step('cuda', bpr=math.nan if number == bad else 1.0), batch(number))
        watch.means()

    with pytest.raises(NotFinite, match=r'^bpr nan$') as caught:
        train()
    assert (caught.value.step, caught.value.batch) == (bad, batch(bad))
