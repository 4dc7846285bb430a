"""What a ranking is trained by."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.utils import degree

from dgmrec_pyg.errors import check_name
from dgmrec_pyg.nn.losses import bpr_loss, sampled_softmax_loss


class RankingLoss(torch.nn.Module):
    r"""The loss of a batch's ranking: :func:`~dgmrec_pyg.nn.bpr_loss` of products or
    :func:`~dgmrec_pyg.nn.sampled_softmax_loss`, in which users with few and with many interactions can differ.

    Metrics are means over users, losses over interactions: where some users have hundreds and most have two, a loss is
    about the former. So an interaction of a user with :math:`n` of them gets the weight :math:`n^{-b}`. And of those
    with few, less is known: their temperature is :math:`\tau (1 + s / n)`.

    Args:
        kind (str): ``'softmax'`` or ``'bpr'``.
        edge_index (torch.Tensor): Training (user, item) pairs, int64 ``[2, E]``.
        num_users (int): Number of users.
        temperature (float): The softmax's temperature :math:`\tau` for users with many interactions.
            (default: :obj:`0.2`)
        temperature_spread (float): How much higher it is for users with few, :math:`s`. (default: :obj:`0.0`)
        user_balance (float): How far users count alike, :math:`b`: 0 counts all interactions alike, 1 all users.
            (default: :obj:`0.0`)

    Raises:
        UserError: If the kind is not known.
    """

    weight: Tensor | None
    temperature: Tensor

    def __init__(self, kind: str, edge_index: Tensor, num_users: int, temperature: float = 0.2,
                 temperature_spread: float = 0.0, user_balance: float = 0.0) -> None:
        super().__init__()
        check_name('ranking loss', kind, ('softmax', 'bpr'))
        self.kind = kind
        count = degree(edge_index[0], num_users).clamp(min=1.0)
        self.register_buffer('temperature', temperature * (1.0 + temperature_spread / count), persistent=False)
        self.register_buffer('weight', count ** -user_balance if user_balance > 0.0 else None, persistent=False)

    def forward(self, users: Tensor, items: Tensor, user_ids: Tensor, user: Tensor, pos_item: Tensor, neg_item: Tensor,
                negatives: Tensor) -> Tensor:
        """Computes the loss, a scalar.

        Args:
            users (torch.Tensor): Distinct users, ``[N, d]``.
            items (torch.Tensor): Distinct items, ``[M, d]``.
            user_ids (torch.Tensor): The ids of these users, int64 ``[N]``.
            user (torch.Tensor): Row of each member's user, int64 ``[B]``.
            pos_item (torch.Tensor): Row of each member's positive, int64 ``[B]``.
            neg_item (torch.Tensor): Row of each member's negative, int64 ``[B]``; for BPR.
            negatives (torch.Tensor): Rows of the negatives that all share, distinct, int64 ``[K]``; for the softmax.
        """
        weight = None if self.weight is None else self.weight[user_ids[user]]
        if self.kind == 'softmax':
            return sampled_softmax_loss(users, items, user, pos_item, negatives, self.temperature[user_ids], weight)
        of_user = users.index_select(0, user)
        positive, negative = items.index_select(0, pos_item), items.index_select(0, neg_item)
        return bpr_loss((of_user * positive).sum(dim=1), (of_user * negative).sum(dim=1), weight)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.kind})'
