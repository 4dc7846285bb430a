"""Training batches for the BPR loss."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor
from torch_geometric.utils import cumsum, degree

from dgmrec_pyg.errors import UserError


class BPRSampler:
    r"""Yields shuffled batches of (user, positive item, negative item), one negative per training interaction.

    The negative is uniform over the items that the user has not seen in training, as in `"BPR: Bayesian Personalized
    Ranking from Implicit Feedback" <https://arxiv.org/abs/1205.2618>`_. It is drawn without rejection: of a user with
    the sorted seen items :math:`s_0 < s_1 < \ldots`, the number of seen items before the :math:`r`-th unseen one is
    the number of :math:`j` with :math:`s_j - j \le r`, which one binary search finds for all users at once.

    Each iteration is one epoch; the last batch may be smaller. An epoch depends on nothing but the state of
    :obj:`generator` at its start. Interactions of users who have seen every allowed item have no negative and are
    left out, with a warning.

    Args:
        edge_index (torch.Tensor): Training (user, item) pairs, int64 ``[2, E]``. Batches are made on its device.
        num_users (int): Number of users.
        num_items (int): Number of items.
        batch_size (int): Interactions per batch.
        generator (torch.Generator): The source of all randomness, on the device of :obj:`edge_index`.
        exclude_items (torch.Tensor, optional): Bool mask ``[num_items]`` of items that are never drawn as negatives,
            such as held-out new items. (default: none)

    Raises:
        UserError: If no interaction has a negative, or the batch size is not positive.
    """

    def __init__(
        self,
        edge_index: Tensor,
        num_users: int,
        num_items: int,
        batch_size: int,
        generator: torch.Generator,
        exclude_items: Tensor | None = None,
    ) -> None:
        if batch_size < 1:
            raise UserError(f'batch_size is {batch_size}; give a number of at least 1')
        self.batch_size = batch_size
        self.generator = generator
        allowed = torch.ones(num_items, dtype=torch.bool, device=edge_index.device)
        if exclude_items is not None:
            allowed &= ~exclude_items
        self._index_unseen(edge_index, allowed, num_users)
        has_negative = self._num_unseen[edge_index[0]] > 0
        self._user, self._item = edge_index[:, has_negative]
        self._report_left_out(edge_index.size(1), num_items)

    def __len__(self) -> int:
        """Returns the number of batches in an epoch."""
        return -(-self._user.numel() // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yields the batches of one epoch, three int64 tensors ``[B]`` each."""
        order = torch.randperm(self._user.numel(), generator=self.generator, device=self._user.device)
        user, item = self._user[order], self._item[order]
        negative = self.sample_negatives(user)
        yield from zip(*(part.split(self.batch_size) for part in (user, item, negative)), strict=True)

    def sample_negatives(self, user: Tensor) -> Tensor:
        """Draws one unseen, allowed item for each user, uniformly.

        Args:
            user (torch.Tensor): User ids, int64 ``[B]``; each has at least one such item.

        Returns:
            torch.Tensor: Item ids, int64 ``[B]``.
        """
        # The bias of the remainder is below num_items / 2**62.
        draw = torch.randint(2**62, user.shape, generator=self.generator, device=user.device)
        rank = draw % self._num_unseen[user]
        place = torch.searchsorted(self._key, user * self._stride + rank, right=True)
        return self._allowed[rank + place - self._rowptr[user]]

    def _index_unseen(self, edge_index: Tensor, allowed: Tensor, num_users: int) -> None:
        """Prepares the binary search: items are numbered among the allowed ones, and seen ones sorted by user."""
        self._allowed = allowed.nonzero().view(-1)
        self._stride = self._allowed.numel() + 1
        number = cumsum(allowed.long())
        user, item = edge_index[:, allowed[edge_index[1]]]
        seen = (user * self._stride + number[item]).unique()
        user = seen // self._stride
        num_seen = degree(user, num_users, dtype=torch.long)
        self._num_unseen = self._allowed.numel() - num_seen
        self._rowptr = cumsum(num_seen)
        place_in_row = torch.arange(seen.numel(), device=seen.device) - self._rowptr[user]
        self._key = seen - place_in_row

    def _report_left_out(self, num_edges: int, num_items: int) -> None:
        left_out = num_edges - self._user.numel()
        if self._user.numel() == 0:
            raise UserError(f'none of the {num_edges} training interactions has an item left that its user has not '
                            f'seen ({self._allowed.numel()} of {num_items} items may be drawn); give more items or '
                            'interactions')
        if left_out > 0:
            warnings.warn(f'{left_out} of {num_edges} training interactions are left out: their users have seen every '
                          'item, so there is no negative item for them', stacklevel=3)
