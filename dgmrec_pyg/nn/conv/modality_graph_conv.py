"""Propagation over one modality's item graph."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch_geometric.typing import Adj, OptTensor

from dgmrec_pyg.nn.conv.light_gcn_conv import LightGCNConv


class ModalityGraphConv(LightGCNConv):
    r"""Spreads item features over an item graph, from the `"Disentangling and Generating Modalities for
    Recommendation in Missing Modality Scenarios" <https://arxiv.org/abs/2504.16352>`_ paper:
    :math:`\mathbf{K}_m^L \mathbf{X}` for the weighted, directed graph :math:`\mathbf{K}_m` of
    :func:`~dgmrec_pyg.nn.build_knn_graph`. It is :obj:`num_layers` times a :class:`~dgmrec_pyg.nn.LightGCNConv`
    that takes the weights as they are.

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

    def __init__(self, num_layers: int = 1, **kwargs: Any) -> None:
        super().__init__(normalize=False, **kwargs)
        self.num_layers = num_layers

    # Narrower than the base class on purpose: sources and targets are the same items.
    def forward(self, x: Tensor, edge_index: Adj, edge_weight: OptTensor = None) -> Tensor:  # type: ignore[override]
        """Applies the graph :obj:`num_layers` times."""
        for _ in range(self.num_layers):
            x = super().forward(x, edge_index, edge_weight)
        return x

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(num_layers={self.num_layers})'
