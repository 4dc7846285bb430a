"""Reading a set in MMRec's layout: one file of interactions, one file of features per modality."""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.datasets.npy import NpyHeader, open_matrix, read_matrix
from dgmrec_pyg.datasets.raw_ids import find_raw_id_files, read_raw_ids
from dgmrec_pyg.datasets.tables import read_table, reject_lines, whole_numbers
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.memory import LIBRARY_BYTES, require_bytes
from dgmrec_pyg.reading import check_inside, check_plain_file, unchanged
from dgmrec_pyg.schema import build_data

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ('userID', 'itemID', 'x_label')
TRAIN, VALIDATION, TEST = 0, 1, 2
FEATURE_SUFFIX = '_feat.npy'
USERS_PER_LINE = 10  # Every user up to the largest id gets an embedding: a stray id must not take all memory.
SHOWN_ROWS = 5


def read_mmrec(folder: str | os.PathLike[str]) -> HeteroData:
    """Reads the set in a folder of MMRec's layout.

    The folder holds ``<folder>.inter`` (or one other ``.inter`` file), tab separated with the columns ``userID``,
    ``itemID`` and ``x_label`` (0 train, 1 validation, 2 test; ids from 0), and a file ``<modality>_feat.npy`` per
    modality whose row i belongs to item i. Rows that are NaN throughout mean that the item lacks the modality. Raw ids
    and names are read where files hold them (see :func:`~dgmrec_pyg.datasets.raw_ids.read_raw_ids`). Mask files are
    not read here.

    A pair that stands twice in a split is kept once, and a validation or test pair that is also a training pair is
    dropped; a warning tells how many.

    Args:
        folder (str or PathLike): The folder of the set.

    Returns:
        HeteroData: The graph of :mod:`dgmrec_pyg.schema`, with ``raw_id`` and ``item_name`` (a list of texts) where
        known.

    Raises:
        UserError: If a file is missing, damaged, or does not fit the others or into memory, is a link that leads out
            of the folder, or changes while it is read.
    """
    folder = Path(folder)
    files = [find_inter_file(folder), *find_feature_files(folder), *find_raw_id_files(folder)]
    for path in files:
        check_file(folder, path)
    with unchanged(files):
        return _read(folder, files[0])


def check_file(folder: Path, path: Path) -> None:
    """Checks that a file of a set is one that may be read.

    Args:
        folder (Path): The folder of the set.
        path (Path): The file.

    Raises:
        UserError: If its name has control characters, it is no plain file, or a link that leads out of the folder.
    """
    if not path.name.isprintable():  # It would come to be shown as the name of a modality.
        raise UserError(f"the name of '{path}' has control characters in it; rename the file")
    check_plain_file(path)
    check_inside(folder, path)


def _read(folder: Path, inter_file: Path) -> HeteroData:
    headers = _open_features(folder)
    require_bytes(LIBRARY_BYTES + 4 * sum(math.prod(header.shape) for header in headers.values()),
                  f"reading '{folder}'", 'take a smaller set or fewer modalities')
    feature_file, header = next(iter(headers.items()))
    num_items = header.shape[0]
    user, item, label = _read_interactions(inter_file, num_items, feature_file.name)
    num_users = int(user.max()) + 1
    train, val, test = _split(inter_file, user, item, label, num_items)

    features = {_modality(path): _to_tensor(path, header) for path, header in headers.items()}
    raw_user, _ = read_raw_ids(folder, 'user', num_users)
    raw_item, item_name = read_raw_ids(folder, 'item', num_items)
    raw_id = {kind: ids for kind, ids in (('user', raw_user), ('item', raw_item)) if ids is not None}
    data = build_data(
        num_users=num_users,
        num_items=num_items,
        edge_index=train,
        val_edge_label_index=val,
        test_edge_label_index=test,
        features=features,
        missing={name: x[:, 0].isnan() for name, x in features.items()},  # only whole rows can be NaN by now
        raw_id=raw_id or None,
    )
    if item_name is not None:
        data.item_name = item_name
    return data


def find_inter_file(folder: Path) -> Path:
    """Returns the file of interactions: the one named like its folder, else the only one.

    Args:
        folder (Path): The folder of a set.

    Raises:
        UserError: If there is no such folder, no such file, or several.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder '{folder}'; give the folder that holds the .inter and _feat.npy files")
    usual = folder / f'{os.path.basename(os.path.abspath(folder))}.inter'
    found = [usual] if usual.is_file() else _visible(folder, '*.inter')
    if not found:
        raise UserError(f"'{folder}' holds no .inter file; put the interactions into '{usual.name}' there "
                        f'(tab separated: {", ".join(COLUMNS)})')
    if len(found) > 1:
        names = ', '.join(path.name for path in found)
        raise UserError(f"'{folder}' holds several .inter files ({names}); name the one to read '{usual.name}'")
    return found[0]


def find_feature_files(folder: Path) -> list[Path]:
    """Returns the feature files ``<modality>_feat.npy`` in :obj:`folder`, sorted."""
    return _visible(folder, f'?*{FEATURE_SUFFIX}')


def _visible(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith('.'))


def _modality(path: Path) -> str:
    return path.name.removesuffix(FEATURE_SUFFIX)


def _read_interactions(path: Path, num_items: int, feature_file: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns users, items and labels, int64 ``[num_interactions]`` each, checked line by line."""
    table = read_table(path, '\t', COLUMNS)
    if table.empty:
        raise UserError(f"'{path}' holds no interactions, only the names of columns")
    user, item, label = (whole_numbers(path, table[name]) for name in COLUMNS)
    for column, values in (('itemID', item), ('userID', user), ('x_label', label)):
        check_limit(path, table[column], values, num_items, feature_file)
    return user, item, label


def check_limit(path: Path, column: pd.Series, values: np.ndarray, num_items: int, feature_file: str) -> None:
    """Checks that the numbers of a column of interactions are not too large.

    Args:
        path (Path): The file of interactions.
        column (pandas.Series): The column as read.
        values (numpy.ndarray): Its values, int64.
        num_items (int): Number of items.
        feature_file (str): The name of the file that tells it.

    Raises:
        UserError: If some are.
    """
    most_users = USERS_PER_LINE * len(column)
    limit, need = {
        'itemID': (num_items, f"'{feature_file}' has {num_items:,} rows, so items go from 0 to {num_items - 1}"),
        'userID': (most_users, f'with {len(column):,} lines users should be numbered from 0 without large gaps, below '
                               f'{most_users:,}'),
        'x_label': (TEST + 1, '0 (train), 1 (validation) or 2 (test) is needed'),
    }[str(column.name)]
    reject_lines(path, column, values >= limit, need)


def _split(path: Path, user: np.ndarray, item: np.ndarray, label: np.ndarray,
           num_items: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns training, validation and test pairs, int64 ``[2, E]`` each, without repeated and leaking ones."""
    import pandas as pd

    pair = user * num_items + item
    repeated = pd.DataFrame({'pair': pair, 'label': label}).duplicated().to_numpy()
    if repeated.any():
        warnings.warn(f"'{path}': dropped {repeated.sum():,} interactions that repeat an earlier one of their split",
                      stacklevel=4)
    leaking = (label != TRAIN) & ~repeated & np.isin(pair, pair[label == TRAIN])
    if leaking.any():
        warnings.warn(f"'{path}': dropped {leaking.sum():,} validation or test interactions that are also training "
                      'interactions', stacklevel=4)
    keep = ~(repeated | leaking)
    train, val, test = (
        torch.from_numpy(np.stack([user[keep & (label == split)], item[keep & (label == split)]]))
        for split in (TRAIN, VALIDATION, TEST))
    if train.size(1) == 0:
        raise UserError(f"'{path}' holds no training interactions; mark them by 0 in the column x_label")
    return train, val, test


def _open_features(folder: Path) -> dict[Path, NpyHeader]:
    """Reads the headers of all feature files and checks that their shapes agree."""
    paths = find_feature_files(folder)
    if not paths:
        raise no_features(folder)
    headers = {path: open_matrix(path) for path in paths}
    for path in headers:
        check_same_rows(path, headers)
    return headers


def no_features(folder: Path) -> UserError:
    """Returns the error for a set without a feature file."""
    return UserError(f"'{folder}' holds no features; put a file <modality>{FEATURE_SUFFIX} there for each "
                     f'modality, such as image{FEATURE_SUFFIX}, with a row per item')


def items_file(headers: Mapping[Path, NpyHeader]) -> Path:
    """Returns the feature file that tells the number of items: the first one with as many rows as most have.

    Args:
        headers (Mapping): The headers of all files, one at least.
    """
    rows = [header.shape[0] for header in headers.values()]
    return list(headers)[rows.index(Counter(rows).most_common(1)[0][0])]


def check_same_rows(path: Path, headers: Mapping[Path, NpyHeader]) -> None:
    """Checks that a feature file has as many rows as :func:`items_file`.

    Args:
        path (Path): The file.
        headers (Mapping): The headers of all files.

    Raises:
        UserError: If it has not.
    """
    other = items_file(headers)
    rows, found = headers[other].shape[0], headers[path].shape[0]
    if found != rows:
        raise UserError(f"'{path}' has {found:,} rows but '{other.name}' has {rows:,}; every modality needs one row "
                        'per item (NaN throughout where it is missing)')


def _to_tensor(path: Path, header: NpyHeader) -> Tensor:
    """Reads the features as float32 ``[num_items, F]``; refuses infinity and rows that are NaN only in part."""
    values = read_matrix(path, header)
    for check in FEATURE_CHECKS:
        check(path, values)
    return torch.from_numpy(values)


def _check_infinite(path: Path, values: np.ndarray) -> None:
    _reject_rows(path, np.flatnonzero(np.isinf(values).any(axis=1)), 'infinite (or too large for float32) values')


def _check_whole_rows(path: Path, values: np.ndarray) -> None:
    nan = np.isnan(values)
    _reject_rows(path, np.flatnonzero(nan.any(axis=1) & ~nan.all(axis=1)), 'NaN beside numbers')


def _check_observed(path: Path, values: np.ndarray) -> None:
    if np.isnan(values).all():
        raise UserError(f"'{path}' is NaN throughout, so no item has this modality; fill it or remove the file")


FEATURE_CHECKS = (_check_infinite, _check_whole_rows, _check_observed)
"""Each takes a feature file and its values ``[num_items, F]``, and raises a :class:`UserError` that names bad rows."""


def _reject_rows(path: Path, rows: np.ndarray, what: str) -> None:
    if rows.size:
        shown = ', '.join(map(str, rows[:SHOWN_ROWS])) + (', ...' if rows.size > SHOWN_ROWS else '')
        place, number = ('row', '') if rows.size == 1 else ('rows', f'{rows.size:,} such, ')
        raise UserError(f"'{path}' has {what} in {place} {shown} ({number}counted from 0); give numbers, or NaN in the "
                        'whole row of an item that lacks the modality')
