"""The training interactions as a graph that sends both ways."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric import EdgeIndex

from dgmrec_pyg.nn.adjacency import EPSILON, make_adjacency, mean_weight, symmetric_weight, weighted_sums
from dgmrec_pyg.nn.conv import LightGCNConv


class InteractionGraph(torch.nn.Module):
    r"""Holds the interactions :math:`\mathbf{R}` once per direction, sorted and weighted, and multiplies by them.

    Args:
        edge_index (torch.Tensor): (user, item) pairs, ``[2, E]``.
        num_users (int): Number of users.
        num_items (int): Number of items.
    """

    def __init__(self, edge_index: Tensor, num_users: int, num_items: int) -> None:
        super().__init__()
        self.conv = LightGCNConv(normalize=False)
        size = (num_users, num_items)
        turned = edge_index.flip(0)
        to_items = make_adjacency(edge_index, symmetric_weight(edge_index, size), size)
        to_users = make_adjacency(turned, symmetric_weight(turned, size[::-1]), size[::-1])
        # Sums and means go over the same edges, held once.
        self.adjacencies = {
            'item_sum': to_items,
            'user_sum': to_users,
            'item_mean': to_items._replace(edge_weight=mean_weight(to_items.edge_index.as_tensor(), num_items)),
            'user_mean': to_users._replace(edge_weight=mean_weight(to_users.edge_index.as_tensor(), num_users)),
        }

    @torch.compiler.disable  # As a whole: each product would be a break of its own.
    def light_gcn(self, user: Tensor, item: Tensor, num_layers: int) -> tuple[Tensor, Tensor]:
        r"""Applies :class:`~dgmrec_pyg.nn.LightGCNConv` in both directions and averages the layers 0 to
        :obj:`num_layers` (`LightGCN <https://arxiv.org/abs/2002.02126>`_, equations 3 to 8).

        Args:
            user (torch.Tensor): Users' id embeddings, ``[U, d]``.
            item (torch.Tensor): Items' id embeddings, ``[I, d]``.
            num_layers (int): Number of layers.
        """
        user_sum, item_sum = user.clone(), item.clone()  # Added to in place: a new sum would be as large as a layer.
        for _ in range(num_layers):
            user, item = self._send(item, 'user_sum'), self._send(user, 'item_sum')
            user_sum.add_(user)
            item_sum.add_(item)
        return user_sum.div_(num_layers + 1), item_sum.div_(num_layers + 1)

    def light_gcn_of_new_user(self, user: Tensor, item: Tensor, num_layers: int, items: Tensor) -> Tensor:
        r"""Returns what :meth:`light_gcn` gives a user who joins after training with some items, ``[d]``.

        The user receives from these items in every layer, as any other user, but has no id embedding and sends nothing
        back:

        .. math::
            \mathbf{e} = \frac{1}{L + 1} \sum_{l=1}^{L} \sum_{i \in N} \mathbf{e}_i^{(l-1)} / \sqrt{|N| \deg_i}

        Items without training interactions, whose id embeddings nothing has trained, are left out.

        Args:
            user (torch.Tensor): Users' id embeddings, ``[U, d]``.
            item (torch.Tensor): Items' id embeddings, ``[I, d]``.
            num_layers (int): Number of layers.
            items (torch.Tensor): The user's items, distinct, int64 ``[N]``.
        """
        (pointer, _), _ = self.adjacencies['item_sum'].edge_index.get_csc()
        num_edges = pointer.diff()[items]
        items, num_edges = items[num_edges > 0], num_edges[num_edges > 0]
        weight = (num_edges * items.numel()).to(item.dtype).rsqrt()
        received = item.new_zeros(item.size(1))
        for layer in range(num_layers):
            if layer > 0:
                user, item = self._send(item, 'user_sum'), self._send(user, 'item_sum')
            received = received + weight @ item[items]
        return received / (num_layers + 1)

    @torch.compiler.disable
    def mean_to_users(self, x: Tensor, users: Tensor | None = None) -> Tensor:
        """Averages item rows ``[I, C]`` over each user's items, ``[U, C]``.

        Args:
            x (torch.Tensor): Item rows.
            users (torch.Tensor, optional): The only users to compute, distinct, int64 ``[N]``. (default: all)
        """
        if users is None:
            return self._send(x, 'user_mean')
        return _MeanToUsers.apply(x, users, self.adjacencies['user_mean'].edge_index)

    def mean_to_items(self, x: Tensor) -> Tensor:
        """Averages user rows ``[U, C]`` over each item's users, ``[I, C]``."""
        return self._send(x, 'item_mean')

    def to_users(self, x: Tensor) -> Tensor:
        r"""Sums item rows ``[I, C]`` over each user's items by :math:`1 / \sqrt{\deg_u \deg_i}`, ``[U, C]``."""
        return self._send(x, 'user_sum')

    def to_items(self, x: Tensor) -> Tensor:
        r"""Sums user rows ``[U, C]`` over each item's users by :math:`1 / \sqrt{\deg_u \deg_i}`, ``[I, C]``."""
        return self._send(x, 'item_sum')

    @torch.compiler.disable
    def _send(self, x: Tensor, name: str) -> Tensor:
        return self.conv((x, None), *self.adjacencies[name])

    def _apply(self, fn: Any, recurse: bool = True) -> InteractionGraph:
        super()._apply(fn, recurse)
        before, self.adjacencies = self.adjacencies, {}
        for target in ('item', 'user'):  # Edges are held once on another device, too.
            of_sum = before[f'{target}_sum'].apply(fn)
            of_mean = of_sum._replace(edge_weight=fn(before[f'{target}_mean'].edge_weight))
            self.adjacencies |= {f'{target}_sum': of_sum, f'{target}_mean': of_mean}
        return self


class _MeanToUsers(torch.autograd.Function):
    """The mean over the items of some users, at the cost of their edges alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, users: Tensor, edge_index: EdgeIndex) -> Tensor:
        (pointer, item), _ = edge_index.get_csc()
        start, count = pointer[users], pointer[users + 1] - pointer[users]
        offset = count.cumsum(0) - count
        # A GPU waits here once: how many edges there are depends on who the users are.
        edge = (start - offset).repeat_interleave(count)
        edge = edge + torch.arange(edge.numel(), device=x.device)
        scale = (count.to(x.dtype) + EPSILON).reciprocal().unsqueeze(1)  # As in mean_weight.
        ctx.save_for_backward(users, scale)
        ctx.edge_index = edge_index
        return F.embedding_bag(item.index_select(0, edge), x, offset, mode='sum') * scale

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        users, scale = ctx.saved_tensors
        grad = grad_outputs[0] * scale
        (pointer, user), _ = ctx.edge_index.get_csr()
        # All other users share one row of zeros.
        row = users.new_full((ctx.edge_index.get_sparse_size(1),), users.numel())
        row[users] = torch.arange(users.numel(), device=users.device)
        grad = torch.cat([grad, grad.new_zeros(1, grad.size(1))])
        return weighted_sums(pointer, row.index_select(0, user), None, grad), None, None
