"""The light graph convolution on bipartite graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.typing import Adj, OptTensor, SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor, spmm

from dgmrec_pyg.errors import UserError
from dgmrec_pyg.nn.adjacency import matmul, symmetric_weight, without_guessed_size
from dgmrec_pyg.nn.checks import check_rows, explain_edges


class LightGCNConv(MessagePassing):
    r"""The light graph convolution from the `"LightGCN: Simplifying and Powering Graph Convolution Network for
    Recommendation" <https://arxiv.org/abs/2002.02126>`_ paper (equation 3), for one direction of a bipartite graph.

    .. math::
        \mathbf{x}^{\prime}_i = \sum_{j \in \mathcal{N}(i)}
        \frac{1}{\sqrt{|\mathcal{N}(i)|}\sqrt{|\mathcal{N}(j)|}} \mathbf{x}_j

    PyG's :class:`~torch_geometric.nn.conv.LGConv` does this on one set of nodes; this layer takes users and items
    apart, so it fits ``HeteroConv`` and the edges of a :class:`~torch_geometric.data.HeteroData` as they are. A single
    tensor as input makes it the layer on one set of nodes.

    Args:
        normalize (bool): Whether to apply symmetric normalization. Turn it off when normalized edge weights are
            given. (default: :obj:`True`)
        **kwargs: Arguments of :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **x:** source features :math:`(N_s, C)`, or a pair of them and the target features :math:`(N_t, C)`
          (of which only the number of rows is used)
        - **edge_index:** :math:`(2, E)` edge list, :class:`~torch_geometric.EdgeIndex` (sorted by target and of
          known size it is multiplied without forming messages), or a transposed ``torch_sparse.SparseTensor``
          :math:`(N_t, N_s)`
        - **edge_weight:** :math:`(E)`, optional
        - **output:** :math:`(N_t, C)`
    """

    SUPPORTS_FUSED_EDGE_INDEX = True

    def __init__(self, normalize: bool = True, **kwargs: Any) -> None:
        kwargs.setdefault('aggr', 'add')
        super().__init__(**kwargs)
        self.normalize = normalize

    def forward(self, x: Tensor | tuple[Tensor, Tensor | None], edge_index: Adj, edge_weight: OptTensor = None,
                size: tuple[int, int] | None = None) -> Tensor:
        """Sends the sources' features to the targets.

        Args:
            x (torch.Tensor or tuple): Source features, or source and target features.
            edge_index (torch.Tensor, EdgeIndex or SparseTensor): The edges.
            edge_weight (torch.Tensor, optional): Edge weights; a ``SparseTensor`` carries its own.
            size (tuple, optional): Number of sources and targets where target features are not given.

        Raises:
            UserError: If the number of targets is not known, or something does not fit.
        """
        source, target = (x, x) if isinstance(x, Tensor) else x
        check_rows('the features of sources', source)
        if size is None:
            size = self._size(source, target, edge_index)
        try:
            return self._propagate(source, edge_index, edge_weight, size)
        except torch.OutOfMemoryError:
            raise  # Looking at all edges would need more.
        except (IndexError, RuntimeError, ValueError):
            explain_edges(edge_index, edge_weight, size)
            raise

    def _propagate(self, source: Tensor, edge_index: Adj, edge_weight: OptTensor, size: tuple[int, int]) -> Tensor:
        edge_index = without_guessed_size(edge_index, size)
        if self.normalize:
            edge_index, edge_weight = self._normalize(edge_index, edge_weight, size, source.dtype)
        return self.propagate(edge_index, x=source, edge_weight=edge_weight, size=size)

    @staticmethod
    def _size(source: Tensor, target: Tensor | None, edge_index: Adj) -> tuple[int, int]:
        if target is not None:
            return source.size(0), target.size(0)
        if isinstance(edge_index, SparseTensor) or is_torch_sparse_tensor(edge_index):
            return edge_index.size(1), edge_index.size(0)
        if isinstance(edge_index, EdgeIndex) and edge_index.sparse_size(1) is not None:
            return source.size(0), edge_index.sparse_size(1)
        raise UserError('the number of targets is not known: pass target features or `size`')

    @staticmethod
    def _normalize(edge_index: Adj, edge_weight: OptTensor, size: tuple[int, int],
                   dtype: torch.dtype) -> tuple[Adj, OptTensor]:
        if isinstance(edge_index, SparseTensor):
            row, col, value = edge_index.coo()
            weight = symmetric_weight(torch.stack([col, row]), size, value, dtype)
            return edge_index.set_value(weight, layout='coo'), None
        if is_torch_sparse_tensor(edge_index):
            adjacency = edge_index.to_sparse_coo().coalesce()
            weight = symmetric_weight(adjacency.indices().flip(0), size, adjacency.values())
            normalized = torch.sparse_coo_tensor(adjacency.indices(), weight, adjacency.shape, is_coalesced=True,
                                                 check_invariants=False)
            return normalized.to_sparse_csr(), None
        plain = edge_index.as_tensor() if isinstance(edge_index, EdgeIndex) else edge_index
        return edge_index, symmetric_weight(plain, size, edge_weight, dtype)

    def message(self, x_j: Tensor, edge_weight: OptTensor) -> Tensor:
        return x_j if edge_weight is None else edge_weight.view(-1, 1) * x_j

    def message_and_aggregate(self, edge_index: Adj, x: Tensor, edge_weight: OptTensor) -> Tensor:
        if isinstance(edge_index, EdgeIndex):
            return matmul(edge_index, x, edge_weight)
        return spmm(edge_index, x, reduce='sum')
