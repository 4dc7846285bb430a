"""Tests of dgmrec_pyg.nn.new_items."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dgmrec_pyg.nn.new_items import borrow_from_nearest


def borrow_naively(values: Tensor, x: Tensor, borrowers: Tensor, lenders: Tensor, k: int) -> Tensor:
    rows = []
    for item in borrowers.tolist():
        ranked = sorted(((F.cosine_similarity(x[item], x[other], dim=0).item(), other) for other in lenders.tolist()),
                        reverse=True)[:k]
        weights = [max(similarity, 0.0) for similarity, _ in ranked]
        if sum(weights) == 0:
            weights = [1.0] * len(ranked)
        rows.append(sum(weight * values[other] for weight, (_, other) in zip(weights, ranked, strict=True))
                    / sum(weights))
    return torch.stack(rows)


@pytest.mark.parametrize('block_size', [1, 4, 100])
@pytest.mark.parametrize('k', [1, 3, 50])
def test_against_the_definition(k: int, block_size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    values, x = torch.randn(20, 5, generator=generator), torch.randn(20, 7, generator=generator)
    borrowers, lenders = torch.arange(6), torch.arange(8, 20)
    found = borrow_from_nearest(values, x, borrowers, lenders, k, block_size)
    torch.testing.assert_close(found, borrow_naively(values, x, borrowers, lenders, k))


def test_items_without_a_similar_lender() -> None:
    values, x = torch.eye(3), torch.tensor([[1.0], [-1.0], [-1.0]])
    ids = torch.arange(3)
    assert borrow_from_nearest(values, x, ids[:1], ids[1:]).tolist() == [[0.0, 0.5, 0.5]]
    assert borrow_from_nearest(values, x * 0, ids[:1], ids[1:]).tolist() == [[0.0, 0.5, 0.5]]
    assert borrow_from_nearest(values, x, ids[:1], ids[:0]).tolist() == [[0.0, 0.0, 0.0]]
    assert borrow_from_nearest(values, x, ids[:0], ids[1:]).shape == (0, 3)
