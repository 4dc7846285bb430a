"""Full ranking of all items for some users, in blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import cumsum, degree, index_sort

from dgmrec_pyg.errors import UserError

#: What stands in a ranking where a user has no item left to rank.
NO_ITEM = -1

# On CPU a block of scores should stay in the cache: 64 MB took 1.8 times as long as 4 MB (9,308 x 6,710, two cores).
_CPU_BLOCK_BYTES = 4 * 2**20
_BLOCK_BYTES = 64 * 2**20
_LOW_BITS = 2**32 - 1


@torch.no_grad()
def rank_items(
    score: Callable[[Tensor], Tensor],
    users: Tensor,
    seen_edge_index: Tensor | None,
    k: int,
    num_items: int,
    block_size: int | None = None,
    candidates: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the :obj:`k` best unseen items of each user, best first, and their scores.

    All items are ranked, in blocks of users. Of items with the same score the one with the lower id comes
    first, so the ranking depends neither on the block size nor on the device. Where a block does not fit into the
    memory of the GPU, it is halved, and so are those after it.

    Args:
        score (Callable): Takes user ids ``[B]`` and returns their scores of all items, ``[B, num_items]``;
            :obj:`-inf` means that the item is not to be ranked. Scores are compared in float32.
        users (torch.Tensor): The users to rank for, int64 ``[N]``, on the device of the scores.
        seen_edge_index (torch.Tensor, optional): (user, item) pairs ``[2, E]`` that are not ranked; pairs of
            other users are ignored.
        k (int): Length of the ranking.
        num_items (int): Number of items.
        block_size (int, optional): Users per block. (default: as many as keep a block of scores at 4 MB on CPU,
            64 MB elsewhere)
        candidates (torch.Tensor, optional): Bool mask ``[num_items]`` of the items that may be ranked.
            (default: all)

    Returns:
        tuple[torch.Tensor, torch.Tensor]: Item ids (int64) and float32 scores, both ``[N, k]``; :obj:`-1` and
        :obj:`-inf` where a user has fewer than :obj:`k` items to rank.

    Raises:
        UserError: If a score is NaN or infinite.
    """
    size = block_size or _default_block_size(num_items, users.device)
    items = users.new_full((users.numel(), k), NO_ITEM)
    scores = torch.full((users.numel(), k), -math.inf, device=users.device)
    best = scores.new_empty(users.numel())
    seen_pairs = _seen_pairs(users, seen_edge_index)
    done = 0
    while done < users.numel():
        try:
            for start, top_items, top_scores, top in _rank_blocks(score, users, done, size, seen_pairs, k, num_items,
                                                                  candidates):
                done = start + top.numel()
                rows, columns = slice(start, done), slice(top_items.size(1))
                items[rows, columns], scores[rows, columns], best[rows] = top_items, top_scores, top
        except torch.cuda.OutOfMemoryError:
            if size == 1:
                raise
            size = min(size, users.numel() - done) // 2 or 1
    _check_finite(best, users)
    return items.masked_fill_(scores == -math.inf, NO_ITEM), scores


def _rank_blocks(score: Callable[[Tensor], Tensor], users: Tensor, first: int, size: int,
                 seen_pairs: tuple[Tensor, Tensor], k: int, num_items: int, candidates: Tensor | None
                 ) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Ranks blocks of users from the first one on; yields a block's start, its items, their scores and the best."""
    group_size = max(1, math.isqrt(num_items // k))  # balances the two steps of _top_items
    padded = math.ceil(num_items / group_size) * group_size
    # One buffer for all blocks: the caller's tensor is not written to, and memory is not allocated anew.
    buffer = torch.full((min(size, users.numel() - first), padded), -math.inf, device=users.device)
    starts = range(first, users.numel(), size)
    row, seen = seen_pairs
    bounds = torch.searchsorted(row, users.new_tensor([*starts, users.numel()])).tolist()
    for number, start in enumerate(starts):
        block = users[start:start + size]
        filled = buffer[:block.numel()]
        filled[:, :num_items] = score(block)
        pairs = slice(bounds[number], bounds[number + 1])
        filled[row[pairs] - start, seen[pairs]] = -math.inf
        if candidates is not None:
            filled[:, :num_items].masked_fill_(~candidates, -math.inf)
        yield start, *_top_items(filled, k, group_size)


def _default_block_size(num_items: int, device: torch.device) -> int:
    size = _CPU_BLOCK_BYTES if device.type == 'cpu' else _BLOCK_BYTES
    return max(1, size // (4 * num_items))


def _seen_pairs(users: Tensor, seen_edge_index: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns the (row in :obj:`users`, item) pairs of what these users have seen, rows ascending."""
    if seen_edge_index is None or seen_edge_index.numel() == 0 or users.numel() == 0:
        return users.new_empty(0), users.new_empty(0)
    num_users = int(torch.maximum(users.max(), seen_edge_index[0].max())) + 1
    order = index_sort(seen_edge_index[0], num_users)[1]
    rowptr = cumsum(degree(seen_edge_index[0], num_users, dtype=torch.long))
    count = rowptr[users + 1] - rowptr[users]
    row = torch.arange(users.numel(), device=users.device).repeat_interleave(count)
    offset = torch.arange(row.numel(), device=users.device) - cumsum(count)[row]
    return row, seen_edge_index[1][order[rowptr[users][row] + offset]]


def _top_items(scores: Tensor, k: int, group_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns items and scores of the top :obj:`k` of each row, and the row's best score.

    The top k items lie in the k groups of neighboring items with the largest maxima. Choosing groups first leaves
    ``num_items / group_size + k * group_size`` elements per row to choose from instead of ``num_items``.
    """
    maxima = F.max_pool1d(scores.unsqueeze(1), group_size).squeeze(1)  # several times faster than amax(dim=-1)
    position = torch.arange(group_size, device=scores.device)
    number = torch.arange(maxima.size(1), device=scores.device)
    group = _sort_key(maxima, number).topk(min(k, number.numel()), sorted=False).values
    group = _unpack_sort_key(group)[1].unsqueeze(-1)
    values = scores.view(scores.size(0), -1, group_size).gather(1, group.expand(-1, -1, group_size))
    key = _sort_key(values, group * group_size + position).flatten(1)
    top_scores, top_items = _unpack_sort_key(key.topk(min(k, key.size(1))).values)
    return top_items, top_scores, maxima.amax(dim=1)


def _sort_key(scores: Tensor, index: Tensor) -> Tensor:
    """Packs float32 scores and indices into int64 that order by score, and by descending index where scores tie."""
    bits = (scores + 0.0).view(torch.int32)  # adding 0.0 makes a zero of -0.0
    return (_ordered_bits(bits).long() << 32) | (_LOW_BITS - index)


def _unpack_sort_key(key: Tensor) -> tuple[Tensor, Tensor]:
    return _ordered_bits((key >> 32).int()).view(torch.float32), _LOW_BITS - (key & _LOW_BITS)


def _ordered_bits(bits: Tensor) -> Tensor:
    """Turns the bits of floats into integers of the same order, and back."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _check_finite(best: Tensor, users: Tensor) -> None:
    bad = users[~(best < math.inf)]  # NaN is not below infinity either
    if bad.numel() > 0:
        first = ', '.join(str(user) for user in bad[:3].tolist())
        raise UserError(f"the model's scores are not finite for {bad.numel()} of {users.numel()} users (first: {first})"
                        '; lower the learning rate or look for NaN in the features')
