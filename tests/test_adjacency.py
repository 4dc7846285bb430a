"""Tests of dgmrec_pyg.nn.adjacency."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch_geometric import EdgeIndex

from dgmrec_pyg.nn.adjacency import make_adjacency, matmul, mean_weight, symmetric_weight, without_guessed_size

NUM_SOURCES, NUM_TARGETS, NUM_EDGES = 7, 5, 16


def draw(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct edges in no order, their weights, and source features; the last source and target have no edge."""
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.randperm((NUM_SOURCES - 1) * (NUM_TARGETS - 1), generator=generator)[:NUM_EDGES]
    edge_index = torch.stack([pairs // (NUM_TARGETS - 1), pairs % (NUM_TARGETS - 1)])
    weight = torch.rand(NUM_EDGES, generator=generator, dtype=torch.float64) + 0.1
    return edge_index, weight, torch.randn(NUM_SOURCES, 3, generator=generator, dtype=torch.float64)


def dense(edge_index: Tensor, weight: Tensor) -> Tensor:
    """The matrix [targets, sources]."""
    return torch.zeros(NUM_TARGETS, NUM_SOURCES, dtype=weight.dtype).index_put((edge_index[1], edge_index[0]), weight)


@pytest.mark.parametrize('weighted', [True, False])
def test_make_adjacency_sorts_edges_with_their_weights(weighted: bool) -> None:
    edge_index, weight, _ = draw()
    before = edge_index.clone(), weight.clone()
    adjacency = make_adjacency(edge_index, weight if weighted else None, (NUM_SOURCES, NUM_TARGETS))
    assert adjacency.edge_index.is_sorted_by_col
    assert adjacency.edge_index.get_sparse_size() == (NUM_SOURCES, NUM_TARGETS)
    expected = dense(edge_index, weight if weighted else torch.ones_like(weight))
    assert dense(adjacency.edge_index.as_tensor(), adjacency.edge_weight.double()).equal(expected)
    assert edge_index.equal(before[0])
    assert weight.equal(before[1])


def test_make_adjacency_does_not_depend_on_the_order_of_edges() -> None:
    edge_index, weight, _ = draw()
    order = torch.randperm(NUM_EDGES, generator=torch.Generator().manual_seed(1))
    first = make_adjacency(edge_index, weight, (NUM_SOURCES, NUM_TARGETS))
    second = make_adjacency(edge_index[:, order], weight[order], (NUM_SOURCES, NUM_TARGETS))
    assert first.edge_index.as_tensor().equal(second.edge_index.as_tensor())
    assert first.edge_weight.equal(second.edge_weight)


@pytest.mark.parametrize('learned_weight', [True, False])
def test_matmul_and_gradients_equal_dense(learned_weight: bool) -> None:
    edge_index, weight, x = draw()
    adjacency = make_adjacency(edge_index, weight, (NUM_SOURCES, NUM_TARGETS))
    edges, weight = adjacency.edge_index, adjacency.edge_weight.requires_grad_(learned_weight)
    x.requires_grad_()
    out = matmul(edges, x, weight)
    expected = dense(edges.as_tensor(), weight) @ x
    torch.testing.assert_close(out, expected)

    inputs = [x, weight] if learned_weight else [x]
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=out.dtype)
    for ours, naive in zip(torch.autograd.grad(out, inputs, grad), torch.autograd.grad(expected, inputs, grad),
                           strict=True):
        torch.testing.assert_close(ours, naive)


def test_matmul_passes_gradcheck() -> None:
    edge_index, weight, x = draw()
    adjacency = make_adjacency(edge_index, weight, (NUM_SOURCES, NUM_TARGETS))
    assert torch.autograd.gradcheck(lambda x: matmul(adjacency.edge_index, x, adjacency.edge_weight),
                                    x.requires_grad_())


def test_matmul_of_float64_with_float32_weights() -> None:
    edge_index, weight, x = draw()
    adjacency = make_adjacency(edge_index, weight.float(), (NUM_SOURCES, NUM_TARGETS))
    out = matmul(adjacency.edge_index, x, adjacency.edge_weight)
    torch.testing.assert_close(out, dense(edge_index, weight.float().double()) @ x)


@pytest.mark.parametrize('fn', [lambda t: t.double() if t.is_floating_point() else t, lambda t: t.to('cpu')])
def test_apply_keeps_edges(fn: Callable[[Tensor], Tensor]) -> None:
    edge_index, weight, _ = draw()
    adjacency = make_adjacency(edge_index, weight.float(), (NUM_SOURCES, NUM_TARGETS))
    moved = adjacency.apply(fn)
    assert moved.edge_index.as_tensor().equal(adjacency.edge_index.as_tensor())
    assert moved.edge_index.get_sparse_size() == (NUM_SOURCES, NUM_TARGETS)
    assert moved.edge_weight.equal(fn(adjacency.edge_weight))
    assert moved.edge_weight.dtype == fn(adjacency.edge_weight).dtype


@pytest.mark.parametrize('weighted', [True, False])
def test_symmetric_weight_equals_dense(weighted: bool) -> None:
    edge_index, weight, _ = draw()
    if not weighted:
        weight = torch.ones_like(weight)
    matrix = dense(edge_index, weight)
    expected = matrix / matrix.sum(dim=1, keepdim=True).clamp(min=1e-9).sqrt() / matrix.sum(dim=0).clamp(
        min=1e-9).sqrt()
    found = symmetric_weight(edge_index, (NUM_SOURCES, NUM_TARGETS), weight if weighted else None, torch.float64)
    torch.testing.assert_close(dense(edge_index, found), expected)


def test_symmetric_weight_of_weights_that_add_up_to_zero_is_zero() -> None:
    edge_index = torch.tensor([[0, 0, 1], [0, 1, 1]])
    found = symmetric_weight(edge_index, (2, 2), torch.tensor([0.0, 0.0, 2.0]))
    assert found.tolist() == pytest.approx([0.0, 0.0, 1.0])


def test_mean_weight_makes_a_product_the_mean() -> None:
    edge_index, _, x = draw()
    out = dense(edge_index, mean_weight(edge_index, NUM_TARGETS).double()) @ x
    for target in range(NUM_TARGETS):
        sources = edge_index[0, edge_index[1] == target]
        expected = x[sources].sum(dim=0) / (len(sources) + 1e-7)
        torch.testing.assert_close(out[target], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('size', [(NUM_SOURCES, NUM_TARGETS), (NUM_SOURCES, None), (None, None)])
def test_a_size_is_not_guessed(size: tuple[int | None, int | None]) -> None:
    edge_index, _, _ = draw()
    edges = EdgeIndex(edge_index, sparse_size=size)
    result = without_guessed_size(edges, (NUM_SOURCES, NUM_TARGETS))
    assert (result is edges) == (None not in size)
    assert edges.sparse_size() == size
    assert without_guessed_size(edge_index, (NUM_SOURCES, NUM_TARGETS)) is edge_index


def test_no_edges() -> None:
    edge_index = torch.empty(2, 0, dtype=torch.long)
    adjacency = make_adjacency(edge_index, None, (NUM_SOURCES, NUM_TARGETS))
    x = torch.ones(NUM_SOURCES, 2, requires_grad=True)
    out = matmul(adjacency.edge_index, x, adjacency.edge_weight)
    out.sum().backward()
    assert out.equal(torch.zeros(NUM_TARGETS, 2))
    assert x.grad.equal(torch.zeros_like(x))
    assert symmetric_weight(edge_index, (NUM_SOURCES, NUM_TARGETS)).shape == (0,)
    assert mean_weight(edge_index, NUM_TARGETS).shape == (0,)
