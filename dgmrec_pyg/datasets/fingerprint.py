"""A short name for the exact content of a set."""

from __future__ import annotations

import hashlib

from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.schema import INTERACTS, ITEM, USER, item_features, missing_mask, modality_names


def data_hash(data: HeteroData) -> str:
    """Returns the SHA-256 of what a model is given: sizes, edges of all splits, features, masks, held-out items.

    Two graphs have the same hash if these are equal value by value, whatever the order in which modalities were added
    and the device they are on. Raw ids and names do not count.

    Args:
        data (HeteroData): A graph in the package's schema.

    Returns:
        str: 64 hexadecimal digits.
    """
    digest = hashlib.sha256(f'{data[USER].num_nodes} users {data[ITEM].num_nodes} items'.encode())
    edges = data[INTERACTS]
    parts = {name: edges[name] for name in ('edge_index', 'val_edge_label_index', 'test_edge_label_index')}
    for modality in modality_names(data):
        parts[f'features of {modality}'] = item_features(data, modality)
        parts[f'missing {modality}'] = missing_mask(data, modality)
    if 'is_new' in data[ITEM]:
        parts['is_new'] = data[ITEM].is_new
    for name, tensor in parts.items():
        _update(digest, name, tensor)
    return digest.hexdigest()


def _update(digest: hashlib._Hash, name: str, tensor: Tensor) -> None:
    # Name, type and shape go in too, so that no two different sets give the same stream of bytes.
    values = tensor.detach().cpu().as_subclass(Tensor).contiguous().numpy()
    digest.update(f'|{name} {values.dtype} {values.shape}|'.encode())
    digest.update(values.data)
