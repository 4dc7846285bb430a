"""What a score of DGMRec is made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dgmrec_pyg.errors import UserError
from dgmrec_pyg.nn.models.dgmrec_terms import Side

COLLABORATIVE = 'collaborative'
GENERAL = 'general_{}'
SPECIFIC = 'specific_{}'


def fused_parts(side: Side, modalities: Sequence[str]) -> dict[str, Tensor]:
    r"""Returns the summands of :meth:`~dgmrec_pyg.nn.models.dgmrec_terms.Side.fused`, ``[N, d]`` each.

    ``collaborative`` is :math:`\mathbf{e}`, ``general_<modality>`` is :math:`w \tilde{\mathbf{G}}_m / (M (M + 1))`, and
    ``specific_<modality>`` is :math:`w \tilde{\mathbf{S}}_m / (M + 1)`, with the weight :math:`w` of the modalities.

    Args:
        side (Side): Some users or some items.
        modalities (Sequence[str]): The names of their modalities, in the order of the side.
    """
    general = {GENERAL.format(m): x * (side.share / len(modalities))
               for m, x in zip(modalities, side.general, strict=True)}
    specific = {SPECIFIC.format(m): x * side.share for m, x in zip(modalities, side.specific, strict=True)}
    return {COLLABORATIVE: side.collaborative, **general, **specific}


class ScoreParts:
    r"""Splits scores into parts that add up to them.

    User and item embedding are sums over the same parts :math:`p` (:func:`fused_parts`), so their product holds terms
    that belong to two parts. Half of each goes to either part:

    .. math::
        s_{ui} = \mathbf{z}_u^\top \mathbf{z}_i = \sum_p s^p_{ui} \qquad
        s^p_{ui} = \frac{1}{2} \left( \mathbf{z}_u^{p\top} \mathbf{z}_i + \mathbf{z}_u^\top \mathbf{z}_i^p \right)

    This is each part's `Shapley value <https://arxiv.org/abs/1705.07874>`_ where the worth of some parts is the score
    that they give alone (of cosines, divided by the lengths of the whole embeddings all the same). The split is the
    package's own, not the paper's. It describes what the model computes; a part can be negative.

    Args:
        users (Side): All users.
        items (Side): All items.
        modalities (Sequence[str]): The names of their modalities, in the order of the sides.
    """

    def __init__(self, users: Side, items: Side, modalities: Sequence[str]) -> None:
        self._users, self._items = fused_parts(users, modalities), fused_parts(items, modalities)
        self._user, self._item = users.fused(), items.fused()

    @torch.no_grad()
    def __call__(self, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        """Returns the parts of the scores of users with items of each, ``[B, k]`` by name.

        Args:
            users (torch.Tensor): Users, int64 ``[B]``, or one user.
            items (torch.Tensor): Items of each, int64 ``[B, k]``, or ``[k]`` of one user.

        Raises:
            UserError: If the two do not fit.
        """
        if items.shape[:-1] != users.shape or items.dim() == 0:
            raise UserError(f'each user needs a row of items (got users {list(users.shape)} and items '
                            f'{list(items.shape)})')
        user, item = self._user[users].unsqueeze(-1), self._item[items]
        return {name: (item @ of_users[users].unsqueeze(-1) + self._items[name][items] @ user).squeeze(-1) / 2
                for name, of_users in self._users.items()}
