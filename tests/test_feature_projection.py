"""Tests of dgmrec_pyg.nn.feature_projection."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dgmrec_pyg.nn import FeatureProjection


def draw(rows: int, columns: int, rank: int | None = None, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    rank = columns if rank is None else rank
    left, right = (torch.randn(size, generator=generator) for size in ((rows, rank), (rank, columns)))
    return scale * left @ right + scale


@pytest.mark.parametrize('scale', [1e-8, 1.0, 1e6])
def test_features_of_low_rank_survive_the_way_there_and_back(scale: float) -> None:
    x = draw(50, 30, rank=4, scale=scale)
    projection = FeatureProjection(x, 8)
    torch.testing.assert_close(projection.inverse(projection(x)), x, atol=1e-4 * scale, rtol=1e-4)


def test_lengths_and_cosines_stay() -> None:
    x = draw(50, 30, rank=4)
    z = FeatureProjection(x, 8)(x)
    torch.testing.assert_close(z @ z.t(), x @ x.t(), atol=1e-3, rtol=1e-4)


def test_nothing_narrower_of_that_size_is_closer() -> None:
    x = draw(60, 40)
    projection = FeatureProjection(x, 10)
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    best = (u[:, :10] * s[:10]) @ vh[:10]
    error, least = (projection.inverse(projection(x)) - x).norm(), (best - x).norm()
    assert least < error * 1.0001
    assert error < least * 1.02


def test_the_same_features_give_the_same_projection_whatever_was_drawn_before() -> None:
    x = draw(40, 20)
    first, state = FeatureProjection(x, 5), torch.get_rng_state()
    torch.rand(3)
    assert not torch.equal(torch.get_rng_state(), state)
    state = torch.get_rng_state()
    assert torch.equal(first.basis, FeatureProjection(x, 5).basis)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(('rows', 'columns', 'channels', 'kept'), [
    (3, 20, 8, 3), (20, 4, 8, 4), (20, 9, 5, 5), (1, 1, 1, 1),
])
def test_there_are_never_more_directions_than_rows_or_columns(rows: int, columns: int, channels: int,
                                                              kept: int) -> None:
    assert FeatureProjection(draw(rows, columns), channels).basis.shape == (columns, kept)


@pytest.mark.parametrize('x', [torch.zeros(0, 6), torch.zeros(5, 6)], ids=['no rows', 'zeros'])
def test_features_without_content_stay_finite(x: Tensor) -> None:
    projection = FeatureProjection(x, 4)
    z = projection(torch.ones(2, 6))
    assert z.isfinite().all()
    assert projection.inverse(z).isfinite().all()
