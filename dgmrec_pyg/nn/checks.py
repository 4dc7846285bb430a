"""Saying in one line what does not fit a layer, where PyTorch would speak of its own products and indices.

All but :func:`explain_edges` look at names and shapes alone, so that a step pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor
from torch_geometric.typing import Adj, SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor

from dgmrec_pyg.errors import UserError, check_name


def check_rows(what: str, x: Tensor, channels: int | None = None, num_rows: int | None = None) -> None:
    """Refuses what is no table of a size.

    Args:
        what (str): What it is, as the subject of the message.
        x (torch.Tensor): What was given.
        channels (int, optional): Its number of columns. (default: any)
        num_rows (int, optional): Its number of rows. (default: any)

    Raises:
        UserError: If it has another shape.
    """
    if x.dim() != 2 or channels not in (None, x.size(1)) or num_rows not in (None, x.size(0)):
        need = f"[{'N' if num_rows is None else num_rows}, {'C' if channels is None else channels}]"
        raise UserError(f'{what} must have shape {need} (got {list(x.shape)})')


def check_feature_sizes(features: Mapping[str, Tensor], channels: Mapping[str, int]) -> None:
    """Refuses features of a modality that a layer was not made for, or of another size.

    Args:
        features (Mapping[str, torch.Tensor]): For each modality its features.
        channels (Mapping[str, int]): For each modality that the layer knows the number of columns.

    Raises:
        UserError: If some do not fit.
    """
    if isinstance(features, Tensor):
        raise UserError(f'features must be a dict by modality ({", ".join(channels)}), not a tensor')
    for modality, x in features.items():
        check_name('modality', modality, channels)
        check_rows(f"features '{modality}'", x, channels[modality])
    if len({x.size(0) for x in features.values()}) > 1:
        found = ', '.join(f'{m} {x.size(0)}' for m, x in features.items())
        raise UserError(f'features of all modalities must be of the same items, one row each (got rows: {found})')


def check_part(what: str, parts: Mapping[str, Tensor], modality: str, channels: int) -> Tensor:
    """Returns what a layer reads of a modality, and refuses what does not fit.

    Args:
        what (str): What the parts are, in the singular.
        parts (Mapping[str, torch.Tensor]): By modality, ``[N, channels]`` each.
        modality (str): The modality.
        channels (int): Number of columns.

    Raises:
        UserError: If it is not there or has another shape.
    """
    if modality not in parts:
        raise UserError(f"the {what} of '{modality}' is not there (given: {', '.join(parts) or 'none'})")
    check_rows(f"the {what} of '{modality}'", parts[modality], channels)
    return parts[modality]


def check_modalities(modalities: Iterable[str]) -> list[str]:
    """Returns the names of modalities, sorted; one text in their place would be taken for its letters.

    Args:
        modalities (iterable): The names.

    Raises:
        UserError: If it is a text, or there are none.
    """
    if isinstance(modalities, str):
        raise UserError(f"modalities must be a list of names, such as ['{modalities}']")
    if not (names := sorted(modalities)):
        raise UserError('there must be at least one modality')
    return names


def explain_edges(edge_index: Adj, edge_weight: Tensor | None, size: tuple[int, int]) -> None:
    """Says what is wrong with edges by which a product has failed; does nothing where it cannot tell.

    This reads all edges, so it is for failures alone.

    Args:
        edge_index (torch.Tensor, EdgeIndex or SparseTensor): (source, target) pairs, or a transposed adjacency.
        edge_weight (torch.Tensor, optional): Edge weights.
        size (tuple): Number of sources and of targets.

    Raises:
        UserError: If it can tell.
    """
    if isinstance(edge_index, SparseTensor) or is_torch_sparse_tensor(edge_index):
        found = (edge_index.size(0), edge_index.size(1))
        if found != (size[1], size[0]):
            raise UserError(f'a transposed adjacency of {size[0]} sources and {size[1]} targets must have shape '
                            f'{[size[1], size[0]]} (got {list(found)})')
        return
    if edge_index.dim() != 2 or edge_index.size(0) != 2 or edge_index.is_floating_point():
        raise UserError(f'edge_index must be int64 of shape [2, E] (got {edge_index.dtype} {list(edge_index.shape)})')
    if edge_weight is not None and edge_weight.numel() != edge_index.size(1):
        raise UserError(f'there are {edge_index.size(1)} edges, but {edge_weight.numel()} edge weights')
    for row, kind, number in zip(edge_index, ('source', 'target'), size, strict=True):
        wrong = row[(row < 0) | (row >= number)]
        if wrong.numel():
            raise UserError(f'edge_index leads to {kind} {int(wrong[0])}, but {kind}s go from 0 to {number - 1} '
                            f'({wrong.numel()} such edges); its rows are (source, target)')
