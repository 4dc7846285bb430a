"""One bipartite graph in every form that a layer takes; used by the tests of layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric import EdgeIndex

KINDS = ['edge_list', 'edge_index_unsorted', 'edge_index_by_source', 'edge_index_by_target', 'edge_index_without_size',
         'sparse_tensor', 'torch_csr']


def draw_edges(num_sources: int, num_targets: int, num_edges: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Distinct (source, target) pairs in no order, and their weights; the last source and target have no edge."""
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.randperm((num_sources - 1) * (num_targets - 1), generator=generator)[:num_edges]
    edge_index = torch.stack([pairs // (num_targets - 1), pairs % (num_targets - 1)])
    return edge_index, torch.rand(num_edges, generator=generator, dtype=torch.float64) + 0.1


def make_kind(kind: str, edge_index: Tensor, weight: Tensor | None, size: tuple[int, int]) -> tuple[Any, Tensor | None]:
    """Returns the graph as ``edge_index`` and ``edge_weight`` arguments; matrices carry their weights themselves."""
    value = torch.ones(edge_index.size(1), dtype=torch.float64) if weight is None else weight
    if kind == 'edge_list':
        return edge_index, weight
    if kind == 'edge_index_unsorted':
        return EdgeIndex(edge_index, sparse_size=size), weight
    if kind.startswith('edge_index'):
        order = edge_index[0 if kind == 'edge_index_by_source' else 1].argsort(stable=True)
        edges = EdgeIndex(edge_index[:, order], sort_order='row' if kind == 'edge_index_by_source' else 'col',
                          sparse_size=(None, None) if kind == 'edge_index_without_size' else size)
        return edges, None if weight is None else weight[order]
    if kind == 'sparse_tensor':
        pytest.importorskip('torch_sparse')
        from torch_sparse import SparseTensor
        return SparseTensor(row=edge_index[1], col=edge_index[0], value=weight, sparse_sizes=size[::-1]), None
    return torch.sparse_coo_tensor(edge_index.flip(0), value, size[::-1],
                                   check_invariants=True).to_sparse_csr(), None


def dense_matrix(edge_index: Tensor, weight: Tensor | None, size: tuple[int, int]) -> Tensor:
    """The same graph as a dense matrix [targets, sources]."""
    value = torch.ones(edge_index.size(1), dtype=torch.float64) if weight is None else weight
    return torch.zeros(size[::-1], dtype=value.dtype).index_put((edge_index[1], edge_index[0]), value)


def dense_symmetric(matrix: Tensor) -> Tensor:
    """Divides by the roots of the sums of rows and columns; rows and columns of zeros stay zero."""
    rows, columns = matrix.sum(dim=1, keepdim=True), matrix.sum(dim=0, keepdim=True)
    return torch.where(rows * columns > 0, matrix / (rows * columns).clamp(min=1e-12).sqrt(), torch.zeros_like(matrix))
