"""Tests of dgmrec_pyg.nn.optimal_transport."""

from __future__ import annotations

import torch

from dgmrec_pyg.nn.optimal_transport import sinkhorn_plan


def test_against_the_algorithm() -> None:
    cost = torch.rand(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    kernel = torch.exp(-cost / 0.3)
    row_scale = torch.ones(6, dtype=torch.double)
    for _ in range(10):
        column_scale = (6 / 4) / (kernel.t() @ row_scale)
        row_scale = 1.0 / (kernel @ column_scale)
    expected = row_scale.unsqueeze(1) * kernel * column_scale
    torch.testing.assert_close(sinkhorn_plan(cost, 0.3), expected)


def test_rows_and_columns_have_their_sums() -> None:
    cost = torch.rand(3, 8, 5, generator=torch.Generator().manual_seed(0))
    plan = sinkhorn_plan(cost, 0.2, num_iterations=200)
    torch.testing.assert_close(plan.sum(dim=2), torch.ones(3, 8))
    torch.testing.assert_close(plan.sum(dim=1), torch.full((3, 5), 8 / 5))


def test_an_assignment_that_costs_nothing_is_found() -> None:
    order = torch.tensor([2, 0, 3, 1])
    plan = sinkhorn_plan(1.0 - torch.eye(4)[order], 0.02)
    torch.testing.assert_close(plan, torch.eye(4)[order])


def test_tiny_temperatures_stay_finite() -> None:
    assert sinkhorn_plan(torch.rand(5, 3, generator=torch.Generator().manual_seed(0)), 1e-4).isfinite().all()


def test_ignored_rows_change_nothing_for_the_others() -> None:
    cost = torch.rand(8, 5, generator=torch.Generator().manual_seed(0))
    ignored = torch.arange(8) >= 6
    plan = sinkhorn_plan(cost, ignored=ignored)
    torch.testing.assert_close(plan[:6], sinkhorn_plan(cost[:6]))
    torch.testing.assert_close(plan.sum(dim=1), torch.ones(8))


def test_it_carries_no_gradient() -> None:
    cost = torch.rand(5, 3, requires_grad=True)
    assert not sinkhorn_plan(cost).requires_grad
