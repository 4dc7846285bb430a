"""Tests of dgmrec_pyg.nn.ModalityGraphConv."""

from __future__ import annotations

import pytest
import torch
from adjacency_kinds import KINDS, dense_matrix, draw_edges, make_kind
from torch import Tensor

from dgmrec_pyg.nn import ModalityGraphConv, build_knn_graph

NUM_ITEMS = 9
SIZE = (NUM_ITEMS, NUM_ITEMS)


@pytest.fixture
def x() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(NUM_ITEMS, 4, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('weighted', [True, False])
@pytest.mark.parametrize('num_layers', [0, 1, 3])
def test_output_and_gradient_equal_dense_power(kind: str, weighted: bool, num_layers: int, x: Tensor) -> None:
    edge_index, weight = draw_edges(*SIZE, num_edges=25)
    weight = weight if weighted else None
    adjacency, edge_weight = make_kind(kind, edge_index, weight, SIZE)
    expected = torch.linalg.matrix_power(dense_matrix(edge_index, weight, SIZE), num_layers) @ x
    out = ModalityGraphConv(num_layers)(x, adjacency, edge_weight)
    torch.testing.assert_close(out, expected)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(4), dtype=out.dtype)
    torch.testing.assert_close(torch.autograd.grad(out, x, grad), torch.autograd.grad(expected, x, grad))


@pytest.mark.parametrize('kind', [kind for kind in KINDS if kind.startswith('edge')])
def test_gradient_of_weights_equals_dense(kind: str, x: Tensor) -> None:
    edge_index, weight = draw_edges(*SIZE, num_edges=25)
    weight.requires_grad_()
    matrix = dense_matrix(edge_index, weight, SIZE)
    adjacency, edge_weight = make_kind(kind, edge_index, weight, SIZE)
    out = ModalityGraphConv(2)(x, adjacency, edge_weight)
    (ours,), (naive,) = (torch.autograd.grad(y.square().sum(), weight, retain_graph=True)
                         for y in (out, matrix @ matrix @ x))
    torch.testing.assert_close(ours, naive)


def test_direction_is_that_of_the_nearest_neighbors(x: Tensor) -> None:
    """An item hears from its own neighbors, not from the items whose neighbor it is."""
    edge_index, edge_weight = build_knn_graph(x.detach(), k=3)
    changed = x.detach().clone()
    changed[0] += 1.0
    conv = ModalityGraphConv()
    differs = (conv(x, edge_index, edge_weight) != conv(changed, edge_index, edge_weight)).any(dim=1)
    similarity = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(x).t()
    hears = (similarity.topk(3).indices == 0).any(dim=1)
    assert differs.equal(hears)
    assert not hears.equal((similarity.topk(3).indices[0][:, None] == torch.arange(NUM_ITEMS)).any(dim=0))


def test_inputs_side_by_side_give_the_same_as_apart(x: Tensor) -> None:
    graph = draw_edges(*SIZE, num_edges=25)
    conv = ModalityGraphConv(2)
    torch.testing.assert_close(conv(torch.cat([x, -2 * x], dim=1), *graph),
                               torch.cat([conv(x, *graph), conv(-2 * x, *graph)], dim=1))


@pytest.mark.parametrize('kind', KINDS)
def test_no_edges_give_zeros(kind: str, x: Tensor) -> None:
    adjacency, edge_weight = make_kind(kind, torch.empty(2, 0, dtype=torch.long), None, SIZE)
    assert ModalityGraphConv()(x, adjacency, edge_weight).equal(torch.zeros_like(x))


def test_repr() -> None:
    assert repr(ModalityGraphConv(2)) == 'ModalityGraphConv(num_layers=2)'
