"""The most similar rows of a table: all compared, tile by tile, or found by an approximate index."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dgmrec_pyg.errors import UserError, install_hint

_TILE_ITEMS = 16_384  # compared at a time with a block of rows: 16 MB of similarities with blocks of 256
_BLOCK_VALUES = 2**21  # of a table that is gone through
_ROWS_PER_CELL = 64  # on average, at least
_SAMPLE_PER_CELL = 40  # rows of which a cell's center is made; from 39 on faiss is content
_VISITED_CELLS = 16
_FETCHED_PER_NEIGHBOR = 2  # candidates, by rounded features, from which the neighbors are then chosen exactly


@torch.no_grad()
def exact_neighbors(x: Tensor, k: int, candidates: Tensor | None = None, rows: Tensor | None = None,
                    block_size: int = 256) -> tuple[Tensor, Tensor]:
    """Compares rows with all rows of a table; it holds no copy of the table, and of similarities one tile.

    Args:
        x (torch.Tensor): The table, ``[I, F]``.
        k (int): Number of neighbors, at most; a row is a neighbor of itself.
        candidates (torch.Tensor, optional): All other rows count as zeros, bool ``[I]``. (default: all)
        rows (torch.Tensor, optional): The only rows whose neighbors are looked for, int64 ``[N]``. (default: all)
        block_size (int): Rows compared at a time. (default: :obj:`256`)

    Returns:
        tuple: Ids of the most similar rows by cosine and these cosines, best first, ``[N, min(k, I)]`` each.
    """
    length = torch.cat([block.norm(dim=1) for block in x.split(rows_per_block(x))]).clamp_(min=1e-12)
    inverse_length = length.reciprocal() if candidates is None else length.reciprocal().masked_fill(~candidates, 0.0)
    # One buffer for all tiles: allocated anew, they leave holes that add up to a gigabyte with a million rows.
    buffer = x.new_empty(min(block_size, max(x.size(0), 1)) * min(_TILE_ITEMS, x.size(0)))
    num_rows = x.size(0) if rows is None else rows.numel()
    neighbor = torch.empty(num_rows, min(k, x.size(0)), dtype=torch.long, device=x.device)
    similarity = x.new_empty(neighbor.shape)
    for first in range(0, num_rows, block_size):
        block = slice(first, first + block_size)
        ids = block if rows is None else rows[block]
        unit = x[ids] * inverse_length[ids].unsqueeze(1)
        unit = unit if candidates is None else unit.masked_fill(~candidates[ids].unsqueeze(1), 0.0)
        similarity[block], neighbor[block] = _best_of_tiles(unit, x, inverse_length, candidates, k, buffer)
    return neighbor, similarity


@torch.no_grad()
def approximate_neighbors(x: Tensor, k: int, candidates: Tensor | None = None,
                          block_size: int = 256) -> tuple[Tensor, Tensor]:
    """Finds most of the nearest rows by an inverted file (`faiss <https://arxiv.org/abs/2401.08281>`_, through PyG's
    :class:`~torch_geometric.nn.pool.KNNIndex`), which compares a row with those of the cells around it only.

    The index holds features rounded to a byte each. Twice as many rows as wanted are taken from it, and of these the
    nearest by their true cosine, so that only *which* rows are found is approximate. A row is its own nearest (save
    among identical rows). The same input gives the same result. The index works on CPU, wherever :obj:`x` is.
    Identical rows, such as those filled with one mean, share a cell, so that with many of them little time is saved.

    Args:
        x (torch.Tensor): The table, ``[I, F]``.
        k (int): Number of neighbors, at most.
        candidates (torch.Tensor, optional): The only rows that have neighbors and are neighbors, bool ``[I]``.
            (default: all)
        block_size (int): Rows looked up at a time. (default: :obj:`256`)

    Returns:
        tuple: Ids of similar rows and their cosines, best first, ``[I, min(k, I)]`` each; where fewer were found, and
        for rows of zeros, the row itself and ``-inf``.

    Raises:
        UserError: If faiss is not installed.
    """
    length = torch.cat([block.norm(dim=1) for block in x.split(rows_per_block(x))])
    # A row of zeros has no direction, but to the index it would be rather near to all others.
    rows = (length > 0 if candidates is None else (length > 0) & candidates).nonzero().view(-1)
    neighbor = torch.zeros(x.size(0), min(k, x.size(0)), dtype=torch.long, device=x.device)
    similarity = x.new_full(neighbor.shape, -math.inf)
    for block, found in _search(x, rows, _FETCHED_PER_NEIGHBOR * k, block_size):
        # The row itself in front and nowhere else; -1 where the cells held too few.
        found = torch.cat([block.unsqueeze(1), found.masked_fill(found == block.unsqueeze(1), -1)], dim=1)
        others = found.clamp(min=0)
        # Of the candidates, many and far apart in memory, no copy at unit length is made.
        cosine = torch.einsum('bf,bcf->bc', F.normalize(x[block]), x[others]) / length[others].clamp(min=1e-12)
        cosine = cosine.masked_fill(found < 0, -math.inf)
        best = cosine.topk(min(neighbor.size(1), found.size(1)), dim=1)
        columns = best.indices.size(1)
        similarity[block, :columns] = best.values
        neighbor[block, :columns] = found.gather(1, best.indices)
    itself = torch.arange(x.size(0), device=x.device).unsqueeze(1)
    return torch.where(similarity == -math.inf, itself, neighbor), similarity


def rows_per_block(x: Tensor) -> int:
    """Returns how many rows of a table make a block of few megabytes, for what needs temporary copies.

    Args:
        x (torch.Tensor): The table, ``[I, F]``.
    """
    return max(1, _BLOCK_VALUES // max(1, x.size(1)))


def _best_of_tiles(block: Tensor, table: Tensor, inverse_length: Tensor, candidates: Tensor | None, k: int,
                   buffer: Tensor) -> tuple[Tensor, Tensor]:
    """The k largest cosines of each unit row of a block with the rows of a table, and these rows."""
    values, indices = [], []
    for first in range(0, table.size(0), _TILE_ITEMS):
        tile = slice(first, first + _TILE_ITEMS)
        size = table[tile].size(0)
        cosine = buffer[:block.size(0) * size].view(block.size(0), size)
        torch.mm(block, table[tile].t(), out=cosine).mul_(inverse_length[tile])
        if candidates is not None:
            cosine.masked_fill_(~candidates[tile], 0.0)  # Whatever stands in the others, NaN too.
        best = cosine.topk(min(k, size), dim=1)
        values.append(best.values)
        indices.append(best.indices + first)
    best = torch.cat(values, dim=1).topk(min(k, table.size(0)), dim=1)
    return best.values, torch.cat(indices, dim=1).gather(1, best.indices)


def _search(x: Tensor, rows: Tensor, count: int, block_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields rows ``[B]`` and the candidates that the index has for them, ``[B, count]``, -1 where it has too few."""
    if rows.numel() == 0:
        return
    order, index = _make_index(x, rows)
    for block in rows.split(block_size):
        place = index.search(F.normalize(x[block]).float().cpu(), count).index.to(x.device)
        yield block, torch.where(place < 0, place, order[place])


def _make_index(x: Tensor, rows: Tensor) -> tuple[Tensor, Any]:
    """An index of some rows, and the row at each of its places."""
    from torch_geometric.nn.pool import KNNIndex

    num_cells = max(1, min(int(4 * math.sqrt(rows.numel())), rows.numel() // _ROWS_PER_CELL))
    try:
        index = KNNIndex(f'IVF{num_cells},SQ8')
    except ImportError as error:
        raise UserError(f"approximate item graphs need faiss: {install_hint('faiss')}, or take exact ones "
                        '(--set knn_index=exact)') from error
    # PyG's index makes its cells from what it is given first: a sample from everywhere, the same at every call.
    order = rows[torch.randperm(rows.numel(), generator=torch.Generator().manual_seed(0)).to(rows.device)]
    sample = num_cells * _SAMPLE_PER_CELL
    for part in (order[:sample], *order[sample:].split(rows_per_block(x))):
        if part.numel() > 0:
            index.add(F.normalize(x[part]).float().cpu())
    index.index.nprobe = min(num_cells, _VISITED_CELLS)
    return order, index
