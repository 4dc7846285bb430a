r"""The :class:`~torch_geometric.data.HeteroData` that every part of the package speaks.

* ``data['user'].num_nodes``, ``data['item'].num_nodes``
* ``data['item'].x_<modality>``: float32 ``[num_items, F]``, ``data['item'].missing_<modality>``: bool
  ``[num_items]``, :obj:`True` where the item lacks that modality. Feature values of missing items are
  never used by a model.
* ``data['user', 'interacts', 'item'].edge_index``: the training edges, with ``val_edge_label_index`` and
  ``test_edge_label_index`` beside them; ``data['item', 'rev_interacts', 'user'].edge_index`` holds the same
  training edges turned round.
* ``data['item'].is_new``: bool ``[num_items]``, only with held-out new items; ``data['item'].popularity`` then holds
  the number of training interactions before they were held out.
* ``data['item'].imputed``: the name of the imputer, once missing features are filled; a model then imputes no more.
* ``data.raw_id``: ``{'user': [...], 'item': [...]}`` where raw ids are known.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.utils import to_edge_index

USER = 'user'
ITEM = 'item'
INTERACTS = (USER, 'interacts', ITEM)
REV_INTERACTS = (ITEM, 'rev_interacts', USER)

COLD_SHARE = 0.7
"""Share of the items, those with the fewest training interactions, that count as cold."""

_FEATURE = 'x_'
_MISSING = 'missing_'


def feature_key(modality: str) -> str:
    """Returns the name under which the features of :obj:`modality` stand in ``data['item']``."""
    return f'{_FEATURE}{modality}'


def missing_key(modality: str) -> str:
    """Returns the name under which the missing mask of :obj:`modality` stands in ``data['item']``."""
    return f'{_MISSING}{modality}'


def modality_names(data: HeteroData) -> list[str]:
    """Returns the names of the modalities of :obj:`data`, sorted.

    Args:
        data (HeteroData): A graph in the package's schema.
    """
    return sorted(key[len(_FEATURE):] for key in data[ITEM].to_dict() if key.startswith(_FEATURE))


def item_features(data: HeteroData, modality: str) -> Tensor:
    """Returns the float32 features of one modality, ``[num_items, F]``."""
    return data[ITEM][feature_key(modality)]


def missing_mask(data: HeteroData, modality: str) -> Tensor:
    """Returns the bool mask ``[num_items]`` of items that lack :obj:`modality` (all False if none is stored)."""
    mask = data[ITEM].get(missing_key(modality))
    if mask is None:
        return torch.zeros(data[ITEM].num_nodes, dtype=torch.bool, device=item_features(data, modality).device)
    return mask


def is_true_feature(x: Tensor) -> Tensor:
    """Returns which rows of features tell what an item is like, bool ``[N]``: finite ones with any number but zero, by
    which sets stand for what they never had.

    Args:
        x (torch.Tensor): Features of one modality, ``[N, F]``.
    """
    return x.isfinite().all(dim=1) & (x != 0).any(dim=1)


def missing_matrix(data: HeteroData) -> Tensor:
    """Returns the bool matrix ``[num_items, num_modalities]``; columns in the order of :func:`modality_names`."""
    masks = [missing_mask(data, modality) for modality in modality_names(data)]
    return torch.stack(masks, dim=1) if masks else torch.zeros(data[ITEM].num_nodes, 0, dtype=torch.bool)


def training_edges(data: HeteroData) -> Tensor:
    """Returns the training ``edge_index`` ``[2, E]`` of (user, item) pairs, also of a graph that PyG's
    :class:`~torch_geometric.transforms.ToSparseTensor` has turned."""
    edges = data[INTERACTS]
    if 'edge_index' in edges or 'adj_t' not in edges:
        return edges.edge_index
    return to_edge_index(edges.adj_t)[0].flip(0)  # Rows of a transposed adjacency are targets.


def item_popularity(data: HeteroData) -> Tensor:
    """Returns the number of training interactions of each item, int64 ``[num_items]``.

    With held-out new items it is the number before these lost theirs (``data['item'].popularity``).

    Args:
        data (HeteroData): A graph in the package's schema.
    """
    popularity = data[ITEM].get('popularity')
    if popularity is not None:
        return popularity
    return torch.bincount(training_edges(data)[1], minlength=data[ITEM].num_nodes)


def cold_items(data: HeteroData) -> Tensor:
    """Returns the bool mask ``[num_items]`` of the cold items: the 70 % with the lowest :func:`item_popularity`.

    Of equally popular items the one with the lower id counts as colder, so that every part of the package means the
    same items.

    Args:
        data (HeteroData): A graph in the package's schema.
    """
    popularity = item_popularity(data)
    coldest_first = popularity.argsort(stable=True)
    cold = torch.zeros_like(popularity, dtype=torch.bool)
    cold[coldest_first[:round(COLD_SHARE * popularity.numel())]] = True
    return cold


def without_features(data: HeteroData) -> HeteroData:
    """Returns a copy that knows the sizes of the features but not their values, for as long as nothing reads them.

    They are on PyTorch's meta device, where they take no memory and whoever asks for a value gets an error. Everything
    else is there, and shared with the given graph.

    Args:
        data (HeteroData): A graph in the package's schema; it is not written to.
    """
    data = copy.copy(data)
    for modality in modality_names(data):
        data[ITEM][missing_key(modality)] = missing_mask(data, modality)  # Where none is stored, one is made.
        data[ITEM][feature_key(modality)] = torch.empty_like(item_features(data, modality), device='meta')
    return data


def set_training_edges(data: HeteroData, edge_index: Tensor) -> None:
    """Sets the training edges of :obj:`data` in both directions.

    Args:
        data (HeteroData): The graph that is changed in place.
        edge_index (torch.Tensor): (user, item) pairs, ``[2, E]``.
    """
    data[INTERACTS].edge_index = edge_index
    data[REV_INTERACTS].edge_index = edge_index.flip(0).contiguous()


def build_data(
    *,
    num_users: int,
    num_items: int,
    edge_index: Tensor,
    features: Mapping[str, Tensor],
    missing: Mapping[str, Tensor] | None = None,
    val_edge_label_index: Tensor | None = None,
    test_edge_label_index: Tensor | None = None,
    raw_id: Mapping[str, Sequence[object]] | None = None,
) -> HeteroData:
    """Builds a graph in the package's schema; the only place where one is put together.

    Args:
        num_users (int): Number of users.
        num_items (int): Number of items.
        edge_index (torch.Tensor): Training (user, item) pairs, int64 ``[2, E]``.
        features (Mapping[str, torch.Tensor]): For each modality its features, ``[num_items, F]``.
        missing (Mapping[str, torch.Tensor], optional): For each modality the bool mask ``[num_items]`` of items
            that lack it. A modality without a mask is complete. (default: :obj:`None`)
        val_edge_label_index (torch.Tensor, optional): Validation pairs ``[2, V]``. (default: none)
        test_edge_label_index (torch.Tensor, optional): Test pairs ``[2, T]``. (default: none)
        raw_id (Mapping[str, Sequence], optional): The ids of the source under ``'user'`` and ``'item'``.
            (default: :obj:`None`)

    Returns:
        HeteroData: The graph described in the module's docstring.
    """
    missing = missing or {}
    empty = edge_index.new_zeros(2, 0)
    data = HeteroData()
    data[USER].num_nodes = num_users
    data[ITEM].num_nodes = num_items
    for modality in sorted(features):
        data[ITEM][feature_key(modality)] = features[modality].to(torch.float32)
        mask = missing.get(modality)
        data[ITEM][missing_key(modality)] = (torch.zeros(num_items, dtype=torch.bool) if mask is None else
                                             mask.to(torch.bool))
    set_training_edges(data, edge_index)
    data[INTERACTS].val_edge_label_index = empty if val_edge_label_index is None else val_edge_label_index
    data[INTERACTS].test_edge_label_index = empty if test_edge_label_index is None else test_edge_label_index
    if raw_id is not None:
        data.raw_id = {kind: list(ids) for kind, ids in raw_id.items()}
    return data
