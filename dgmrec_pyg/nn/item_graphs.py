"""The item graphs of all modalities, and how they change while missing features are generated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dgmrec_pyg.errors import UserError, check_name
from dgmrec_pyg.nn.adjacency import Adjacency, make_adjacency
from dgmrec_pyg.nn.conv import ModalityGraphConv
from dgmrec_pyg.nn.knn_graph import blend_rows, build_knn_graph


class ItemGraphs(torch.nn.Module):
    r"""Holds one nearest-neighbor graph :math:`\mathbf{K}_m` per modality and spreads features over it.

    There are two graphs per modality: the *initial* one, and the *current* one, in which :meth:`refresh` has connected
    items that lack the modality by their generated features. Held-out new items are cut off from all others in both.

    Args:
        missing (dict): For each modality the items that lack it, bool ``[I]``.
        k (int): Neighbors per item. (default: :obj:`10`)
        num_layers (int): How often features are sent on. (default: :obj:`1`)
        knn_missing (str): See :func:`~dgmrec_pyg.nn.build_knn_graph`. (default: ``'drop_after'``)
        is_new (torch.Tensor, optional): Held-out new items, bool ``[I]``. (default: none)
        index (str): ``'exact'`` or ``'approximate'``; see :func:`~dgmrec_pyg.nn.build_knn_graph`.
            (default: ``'exact'``)
    """

    def __init__(self, missing: Mapping[str, Tensor], k: int = 10, num_layers: int = 1,
                 knn_missing: str = 'drop_after', is_new: Tensor | None = None, index: str = 'exact') -> None:
        super().__init__()
        self.k = k
        self.knn_missing = knn_missing
        self.index = index
        self.missing = dict(missing)
        self.is_new = is_new
        self.conv = ModalityGraphConv(num_layers)
        self.initial: dict[str, Adjacency] = {}
        self.current: dict[str, Adjacency] = {}

    @torch.no_grad()
    def build(self, features: Mapping[str, Tensor]) -> None:
        """Builds all graphs from features in which nothing was generated yet.

        Args:
            features (Mapping[str, torch.Tensor]): For each modality ``[I, F_m]``.
        """
        for modality, x in features.items():
            check_name('modality', modality, self.missing)
            graph = self._knn_graph(x, self.missing[modality])
            self.initial[modality] = self.current[modality] = self._adjacency(graph)

    @torch.no_grad()
    def refresh(self, features: Mapping[str, Tensor], rate: float) -> None:
        """Connects items that lack a modality by their present features: each such row becomes
        ``rate * new + (1 - rate) * old``, where the new graph is built from all features.

        Args:
            features (Mapping[str, torch.Tensor]): For each modality ``[I, F_m]``, generated rows in place.
            rate (float): Share of the new graph.
        """
        for modality, x in features.items():
            missing, old = self.missing[modality], self.current[modality]
            graph = blend_rows((old.edge_index.as_tensor(), old.edge_weight),
                               self._knn_graph(x, torch.zeros_like(missing)), missing, rate, x.size(0))
            self.current[modality] = self._adjacency(graph)

    def _knn_graph(self, x: Tensor, missing: Tensor) -> tuple[Tensor, Tensor]:
        """The graph of all items; new ones only have a loop and take nobody's place among the nearest."""
        if self.is_new is None:
            return build_knn_graph(x, self.k, missing, self.knn_missing, index=self.index)
        old, new = (~self.is_new).nonzero().view(-1), self.is_new.nonzero().view(-1)
        edge_index, edge_weight = build_knn_graph(x[old], self.k, missing[old], self.knn_missing, index=self.index)
        return (torch.cat([old[edge_index], new.expand(2, -1)], dim=1),
                torch.cat([edge_weight, edge_weight.new_ones(new.numel())]))

    def _adjacency(self, graph: tuple[Tensor, Tensor]) -> Adjacency:
        num_items = next(iter(self.missing.values())).numel()
        return make_adjacency(*graph, (num_items, num_items))

    @torch.compiler.disable  # As in InteractionGraph.
    def forward(self, modality: str, x: Tensor, role: str = 'current') -> Tensor:
        """Spreads item features over the graph of a modality.

        Args:
            modality (str): Name of the modality.
            x (torch.Tensor): Item features, ``[I, C]``.
            role (str): ``'current'`` or ``'initial'``. (default: ``'current'``)
        """
        return self.conv(x, *self.graph(modality, role))

    def graph(self, modality: str, role: str = 'current') -> Adjacency:
        """Returns one graph; see :meth:`forward`.

        Raises:
            UserError: If there is none.
        """
        roles = {'initial': self.initial, 'current': self.current}
        check_name('role', role, roles)
        if modality not in roles[role]:
            built = ', '.join(roles[role]) or 'none'
            raise UserError(f"there is no graph of '{modality}' (built: {built}); call build()")
        return roles[role][modality]

    def _apply(self, fn: Any, recurse: bool = True) -> ItemGraphs:
        super()._apply(fn, recurse)
        self.missing = {modality: fn(mask) for modality, mask in self.missing.items()}
        self.is_new = None if self.is_new is None else fn(self.is_new)
        for graphs in (self.initial, self.current):
            graphs.update({modality: graph.apply(fn) for modality, graph in graphs.items()})
        return self

    def get_extra_state(self) -> dict[str, dict[str, tuple[Tensor, Tensor]]]:
        """Returns all graphs as plain tensors, for ``state_dict``."""
        return {
            role: {modality: (graph.edge_index.as_tensor().clone(), graph.edge_weight)
                   for modality, graph in getattr(self, role).items()}
            for role in ('initial', 'current')
        }

    def set_extra_state(self, state: dict[str, dict[str, tuple[Tensor, Tensor]]]) -> None:
        """Takes graphs back from a ``state_dict``.

        Raises:
            ValueError: If they are not the graphs of these modalities and items.
        """
        mask = next(iter(self.missing.values()))
        device = mask.device
        if state.keys() != {'initial', 'current'} or any(g.keys() != self.missing.keys() for g in state.values()):
            raise ValueError('the item graphs are of other modalities')
        for graphs in state.values():
            for edge_index, edge_weight in graphs.values():
                _check_edges(edge_index, edge_weight, mask.numel())
        for role, graphs in state.items():
            getattr(self, role).update({
                modality: self._adjacency((edge_index.detach().to(device), edge_weight.detach().to(device)))
                for modality, (edge_index, edge_weight) in graphs.items()
            })


def _check_edges(edge_index: Tensor, edge_weight: Tensor, num_items: int) -> None:
    """Sparse products do not check their indices: one that is too large ends the process."""
    if any(x.numel() * x.element_size() > x.untyped_storage().nbytes() for x in (edge_index, edge_weight)):
        raise ValueError('an item graph repeats the same numbers to any length')
    if edge_index.dtype != torch.int64 or edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise ValueError('the edges of an item graph are not int64 [2, E]')
    if (not edge_weight.is_floating_point() or edge_weight.shape != edge_index.shape[1:]
            or not edge_weight.isfinite().all()):
        raise ValueError('the weights of an item graph are not one finite number per edge')
    if bool(((edge_index < 0) | (edge_index >= num_items)).any()):
        raise ValueError(f'an item graph has edges to items that are not there ({num_items} items)')
