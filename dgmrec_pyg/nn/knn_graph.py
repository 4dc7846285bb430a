"""Item graphs of nearest neighbors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import coalesce, scatter

from dgmrec_pyg.config import KNN_MISSING


def build_knn_graph(x: Tensor, k: int, missing: Tensor | None = None, knn_missing: str = 'drop_after',
                    block_size: int = 256) -> tuple[Tensor, Tensor]:
    r"""Connects each item to the :obj:`k` items of highest cosine similarity and normalizes
    :math:`\mathbf{D}^{-1/2} \mathbf{A} \mathbf{D}^{-1/2}`, with :math:`\mathbf{D}` the sums over an item's neighbors
    (as in `"Mining Latent Structures for Multimedia Recommendation" <https://arxiv.org/abs/2104.09036>`_).

    An item is its own nearest neighbor (save among identical rows). Items that lack the modality are neither source nor
    target of any edge but a loop of weight 1. Similarities are computed in blocks of rows: memory is
    ``block_size * num_items``, never ``num_items ** 2``.

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

    Returns:
        tuple: ``edge_index`` ``[2, E]`` of (source = neighbor, target = item) and ``edge_weight`` ``[E]``.

    Raises:
        ValueError: If :obj:`knn_missing` is not known, :obj:`k` is not positive, or a row that is used is not finite.
    """
    if knn_missing not in KNN_MISSING:
        raise ValueError(f"knn_missing must be one of {', '.join(KNN_MISSING)} (got '{knn_missing}')")
    if k < 1:
        raise ValueError(f'k must be at least 1 (got {k})')
    num_items = x.size(0)
    if missing is None:
        missing = torch.zeros(num_items, dtype=torch.bool, device=x.device)
    if knn_missing == 'exclude_before':
        x = x.masked_fill(missing.unsqueeze(1), 0.0)  # similar to none, so behind all that can have an edge
    if not x.isfinite().all():
        raise ValueError('features must be finite; impute missing items before their neighbors are looked for')
    x = F.normalize(x)
    neighbor, similarity = _nearest(x, k, block_size)

    target = torch.arange(num_items, device=x.device).repeat_interleave(neighbor.size(1))
    source, similarity = neighbor.flatten(), similarity.flatten()
    keep = ~(missing[source] | missing[target])
    if knn_missing == 'exclude_before':
        keep &= similarity > 0
    loop = missing.nonzero().view(-1)
    source, target = torch.cat([source[keep], loop]), torch.cat([target[keep], loop])
    weight = torch.cat([similarity[keep], x.new_ones(loop.numel())])

    degree = scatter(weight, target, dim_size=num_items)
    # Rows of zeros, and items all whose places are taken by identical, missing ones, have no sum to divide by.
    scale = degree.rsqrt().masked_fill(degree <= 0, 0.0)
    return torch.stack([source, target]), weight * scale[source] * scale[target]


def _nearest(x: Tensor, k: int, block_size: int) -> tuple[Tensor, Tensor]:
    """The k most similar rows of each row of unit length and their similarities, ``[I, k]`` each."""
    neighbors, similarities = [], []
    for block in x.split(block_size):
        similarity, neighbor = (block @ x.t()).topk(min(k, x.size(0)), dim=1)
        neighbors.append(neighbor)
        similarities.append(similarity)
    return torch.cat(neighbors), torch.cat(similarities)


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
