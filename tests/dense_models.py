"""Plain, dense versions of what several models compute; used by their tests."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.schema import training_edges


def interactions(data: HeteroData) -> Tensor:
    matrix = torch.zeros(data['user'].num_nodes, data['item'].num_nodes)
    matrix[tuple(training_edges(data))] = 1.0
    return matrix


def normalized_interactions(matrix: Tensor) -> Tensor:
    """Each interaction by the degrees of its user and its item."""
    degrees = matrix.sum(1, keepdim=True) * matrix.sum(0)
    return torch.where(matrix > 0, matrix / degrees.clamp(min=1).sqrt(), 0.0)


def row_means(matrix: Tensor) -> Tensor:
    """The matrix by which a product gives the mean over each row's interactions."""
    return matrix / matrix.sum(1, keepdim=True).clamp(min=1)


def light_gcn(matrix: Tensor, user: Tensor, item: Tensor, num_layers: int) -> tuple[Tensor, Tensor]:
    """The mean over the layers, of users and of items."""
    normalized = normalized_interactions(matrix)
    users, items = [user], [item]
    for _ in range(num_layers):
        user, item = normalized @ item, normalized.t() @ user
        users.append(user)
        items.append(item)
    return torch.stack(users).mean(0), torch.stack(items).mean(0)


def cosines(x: Tensor) -> Tensor:
    unit = x / x.norm(dim=1, keepdim=True)
    return unit @ unit.t()


def nearest_mask(similarity: Tensor, k: int) -> Tensor:
    """1 where the column's item is among the k most similar to the row's item."""
    return torch.zeros_like(similarity).scatter(1, similarity.argsort(dim=1, descending=True)[:, :k], 1.0)


def symmetric(adjacency: Tensor) -> Tensor:
    scale = torch.diag(adjacency.sum(1).rsqrt())
    return scale @ adjacency @ scale
