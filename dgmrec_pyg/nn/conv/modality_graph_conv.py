"""Propagation over one modality's item graph."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.typing import Adj, OptTensor
from torch_geometric.utils import spmm

from dgmrec_pyg.nn.adjacency import matmul, without_guessed_size


class ModalityGraphConv(MessagePassing):
    r"""Spreads item features over an item graph, from the `"Disentangling and Generating Modalities for
    Recommendation in Missing Modality Scenarios" <https://arxiv.org/abs/2504.16352>`_ paper:
    :math:`\mathbf{K}_m^L \mathbf{X}` for the
    weighted, directed graph :math:`\mathbf{K}_m` of :func:`~dgmrec_pyg.nn.build_knn_graph`.

    Several inputs over the same graph are cheapest side by side, as columns of one :obj:`x`.

    Args:
        num_layers (int): The number of times :math:`L` that features are sent on. (default: :obj:`1`)
        **kwargs: Arguments of :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **x:** item features :math:`(I, C)`
        - **edge_index:** (source, target) pairs :math:`(2, E)` as edge list or :class:`~torch_geometric.EdgeIndex`,
          or a transposed sparse adjacency :math:`(I, I)`
        - **edge_weight:** :math:`(E)`, optional
        - **output:** :math:`(I, C)`
    """

    SUPPORTS_FUSED_EDGE_INDEX = True

    def __init__(self, num_layers: int = 1, **kwargs: Any) -> None:
        kwargs.setdefault('aggr', 'add')
        super().__init__(**kwargs)
        self.num_layers = num_layers

    def forward(self, x: Tensor, edge_index: Adj, edge_weight: OptTensor = None) -> Tensor:
        """Applies the graph :obj:`num_layers` times."""
        size = (x.size(0), x.size(0))
        edge_index = without_guessed_size(edge_index, size)
        for _ in range(self.num_layers):
            x = self.propagate(edge_index, x=x, edge_weight=edge_weight, size=size)
        return x

    def message(self, x_j: Tensor, edge_weight: OptTensor) -> Tensor:
        return x_j if edge_weight is None else edge_weight.view(-1, 1) * x_j

    def message_and_aggregate(self, edge_index: Adj, x: Tensor, edge_weight: OptTensor) -> Tensor:
        if isinstance(edge_index, EdgeIndex):
            return matmul(edge_index, x, edge_weight)
        return spmm(edge_index, x, reduce='sum')

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(num_layers={self.num_layers})'
