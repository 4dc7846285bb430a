"""Item graphs of nearest neighbors."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch_geometric.utils import coalesce, scatter

from dgmrec_pyg.config import KNN_INDEX, KNN_MISSING
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.nn.checks import check_rows
from dgmrec_pyg.nn.nearest import approximate_neighbors, exact_neighbors, rows_per_block


@torch.no_grad()
def build_knn_graph(x: Tensor, k: int, missing: Tensor | None = None, knn_missing: str = 'drop_after',
                    block_size: int = 256, index: str = 'exact') -> tuple[Tensor, Tensor]:
    r"""Connects each item to the :obj:`k` items of highest cosine similarity and normalizes
    :math:`\mathbf{D}^{-1/2} \mathbf{A} \mathbf{D}^{-1/2}`, with :math:`\mathbf{D}` the sums over an item's neighbors
    (as in `"Mining Latent Structures for Multimedia Recommendation" <https://arxiv.org/abs/2104.09036>`_).

    An item is its own nearest neighbor (save among identical rows). Items that lack the modality are neither source nor
    target of any edge but a loop of weight 1. Similarities are computed in blocks of rows: memory is that of the edges
    and of a block, with no copy of the features and never ``num_items ** 2``. No gradient reaches the features.

    Args:
        x (torch.Tensor): Item features, ``[I, F]``. With ``'drop_after'`` the rows of missing items must hold imputed
            values, which take places among the :obj:`k`; with ``'exclude_before'`` they are not used.
        k (int): Number of neighbors, at most.
        missing (torch.Tensor, optional): Items that lack the modality, bool ``[I]``. (default: none)
        knn_missing (str): ``'drop_after'`` drops missing items from the :obj:`k` neighbors found, as released, and
            keeps neighbors of negative similarity, whose weights may explode: where such an item's sum is zero or
            less, its edges weigh nothing. ``'exclude_before'`` looks for :obj:`k` neighbors of positive similarity
            among the observed items. (default: ``'drop_after'``)
        block_size (int): Rows per block. (default: :obj:`256`)
        index (str): ``'exact'`` compares all items with all others. ``'approximate'`` finds most of the nearest, much
            sooner where there are many items, and needs faiss; weights are those of the neighbors found. (default:
            ``'exact'``)

    Returns:
        tuple: ``edge_index`` ``[2, E]`` of (source = neighbor, target = item) and ``edge_weight`` ``[E]``.

    Raises:
        UserError: If :obj:`knn_missing` or :obj:`index` is not known, :obj:`k` is not positive, a shape does not fit,
            a row that is used is not finite, or faiss is needed and not installed.
    """
    for name, value, known in (('knn_missing', knn_missing, KNN_MISSING), ('index', index, KNN_INDEX)):
        if value not in known:
            raise UserError(f"{name} must be one of {', '.join(known)} (got '{value}')")
    if k < 1:
        raise UserError(f'k must be at least 1 (got {k})')
    check_rows('features', x)
    if missing is None:
        missing = torch.zeros(x.size(0), dtype=torch.bool, device=x.device)
    if missing.dtype != torch.bool or missing.shape != x.shape[:1]:
        raise UserError(f'missing must be bool of shape [{x.size(0)}], a value per item (got {missing.dtype} '
                        f'{list(missing.shape)})')
    observed = ~missing if knn_missing == 'exclude_before' else torch.ones_like(missing)
    finite = torch.cat([block.isfinite().all(dim=1) for block in x.split(rows_per_block(x))])
    if not (finite | ~observed).all():
        raise UserError('features must be finite; impute missing items before their neighbors are looked for')
    if index == 'approximate':
        neighbor, similarity = approximate_neighbors(x, k, observed, block_size)
    else:
        # Missing items are similar to none, so behind all that can have an edge.
        neighbor, similarity = exact_neighbors(x, k, observed, block_size=block_size)
    return connect(neighbor, similarity, missing, positive=knn_missing == 'exclude_before')


def connect(neighbor: Tensor, similarity: Tensor, missing: Tensor, positive: bool) -> tuple[Tensor, Tensor]:
    """Makes the normalized graph of :func:`build_knn_graph` from each item's neighbors.

    Args:
        neighbor (torch.Tensor): Neighbors, int64 ``[I, k]``.
        similarity (torch.Tensor): Their similarities, ``[I, k]``; ``-inf`` where there is no neighbor.
        missing (torch.Tensor): Items that get a loop and nothing else, bool ``[I]``.
        positive (bool): Whether only neighbors of positive similarity are connected.
    """
    num_items = missing.numel()
    target = torch.arange(num_items, device=neighbor.device).repeat_interleave(neighbor.size(1))
    source, similarity = neighbor.flatten(), similarity.flatten()
    keep = ~(missing[source] | missing[target]) & (similarity > (0 if positive else -math.inf))
    loop = missing.nonzero().view(-1)
    source, target = torch.cat([source[keep], loop]), torch.cat([target[keep], loop])
    weight = torch.cat([similarity[keep], similarity.new_ones(loop.numel())])

    degree = scatter(weight, target, dim_size=num_items)
    # Rows of zeros, and items all whose places are taken by identical, missing ones, have no sum to divide by.
    scale = degree.rsqrt().masked_fill(degree <= 0, 0.0)
    return torch.stack([source, target]), weight * scale[source] * scale[target]


def blend_rows(old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], rows: Tensor, rate: float,
               num_items: int) -> tuple[Tensor, Tensor]:
    """Replaces the edges into some items by ``rate * new + (1 - rate) * old`` and leaves all others as they are.

    Args:
        old (tuple): ``edge_index`` ``[2, E]`` and ``edge_weight`` ``[E]``.
        new (tuple): Likewise, of the new graph.
        rows (torch.Tensor): The items (targets) that change, bool ``[num_items]``.
        rate (float): Share of the new graph, in 0..1.
        num_items (int): Number of items.

    Returns:
        tuple: The blended graph, without edges of weight zero that the blend made.
    """
    (old_index, old_weight), (new_index, new_weight) = old, new
    changes = rows[old_index[1]]
    taken = rows[new_index[1]]
    if rate >= 1.0:
        old_index, old_weight, changes = old_index[:, ~changes], old_weight[~changes], changes[~changes]
    if rate <= 0.0:
        return old
    weight = torch.cat([torch.where(changes, (1.0 - rate) * old_weight, old_weight), rate * new_weight[taken]])
    edge_index, edge_weight = coalesce(torch.cat([old_index, new_index[:, taken]], dim=1), weight, num_items)
    return edge_index, edge_weight
