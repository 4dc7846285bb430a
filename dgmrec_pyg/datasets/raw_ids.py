"""The ids and names that users and items had in the source of a set."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dgmrec_pyg.datasets.tables import column_names, numbers_or_negative, read_table, reject_lines, whole_numbers
from dgmrec_pyg.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

# For each kind of node: the column of our ids, and the files that may hold them, the first one found is read.
_FILES = {
    'user': ('userID', ('users.csv', 'u_id_mapping.csv')),
    'item': ('itemID', ('items.csv', 'i_id_mapping.csv')),
}
NAME_COLUMN = 'name'


def find_raw_id_files(folder: Path) -> list[Path]:
    """Returns those files of raw ids in :obj:`folder` that :func:`read_raw_ids` reads.

    Args:
        folder (Path): The folder of a set.
    """
    found = (_find(folder, kind) for kind in _FILES)
    return [path for path in found if path is not None]


def _find(folder: Path, kind: str) -> Path | None:
    return next((folder / name for name in _FILES[kind][1] if (folder / name).is_file()), None)


def read_raw_ids(folder: Path, kind: str, num_nodes: int) -> tuple[list[str] | None, list[str] | None]:
    """Reads the raw ids and the names of users or items, where a file holds them.

    ``users.csv`` and ``items.csv`` are tab or comma separated, with a column ``userID`` or ``itemID`` (our ids, from
    0), the raw id in the column after it, and optionally a column ``name``. MMRec's ``u_id_mapping.csv`` and
    ``i_id_mapping.csv`` have the raw id before our id. Who has no line gets the own id as text.

    Args:
        folder (Path): The folder of the set.
        kind (str): ``'user'`` or ``'item'``.
        num_nodes (int): Number of users or items. Lines of users beyond it are left out: they have no interaction.

    Returns:
        tuple: Raw ids and names, each a list of :obj:`num_nodes` texts or :obj:`None` where unknown.

    Raises:
        UserError: If a file lacks the id column, names a node twice, or names an item that does not exist.
    """
    path = _find(folder, kind)
    if path is None:
        return None, None
    table, raw_column = _read_columns(path, _FILES[kind][0])
    ids = _check_ids(path, table[_FILES[kind][0]], num_nodes if kind == 'item' else None, nullcontext)
    inside = ids < num_nodes

    def column(name: str | None) -> list[str] | None:
        if name is None or name not in table:
            return None
        texts = np.arange(num_nodes).astype(str).astype(object)
        given = table[name].notna().to_numpy() & inside
        texts[ids[given]] = table[name].to_numpy()[given]
        return texts.tolist()

    return column(raw_column), column(NAME_COLUMN)


def check_raw_ids(folder: Path, kind: str, num_items: int | None,
                  collect: Callable[[], AbstractContextManager[None]]) -> None:
    """Checks all of a file of raw ids, where :func:`read_raw_ids` stops at the first error.

    Args:
        folder (Path): The folder of the set.
        kind (str): ``'user'`` or ``'item'``.
        num_items (int, optional): Number of items, where it is known.
        collect (Callable): Returns a context that takes up an error; each check is done in its own.

    Raises:
        UserError: If the file cannot be read or lacks the id column.
    """
    path = _find(folder, kind)
    if path is not None:
        id_column = _FILES[kind][0]
        table, _ = _read_columns(path, id_column)
        _check_ids(path, table[id_column], num_items if kind == 'item' else None, collect)


def _read_columns(path: Path, id_column: str) -> tuple[pd.DataFrame, str | None]:
    """Returns our ids, raw ids and names as far as there are such columns, and the name of the column of raw ids."""
    separator = _separator(path)
    columns = column_names(path, separator)
    raw_column = _raw_column(columns, id_column)
    wanted = [name for name in (id_column, raw_column, NAME_COLUMN) if name in columns or name == id_column]
    return read_table(path, separator, wanted, text=True), raw_column


def _check_ids(path: Path, column: pd.Series, num_items: int | None,
               collect: Callable[[], AbstractContextManager[None]]) -> np.ndarray:
    """Returns our ids, int64 ``[num_lines]``, negative where an error was collected."""
    ids = numbers_or_negative(column)
    with collect():
        whole_numbers(path, column)
    with collect():
        repeated = column.duplicated().to_numpy() & (ids >= 0)
        reject_lines(path, column, repeated, 'it stands in an earlier line too')
    if num_items is not None:
        with collect():
            reject_lines(path, column, ids >= num_items, f'there are {num_items:,} items, numbered from 0')
    return ids


def _separator(path: Path) -> str:
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            return '\t' if '\t' in file.readline() else ','
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror}") from error


def _raw_column(columns: list[str], id_column: str) -> str | None:
    """Returns the column of raw ids: the one after our ids, else the one before them."""
    place = columns.index(id_column) if id_column in columns else 0
    others = columns[place + 1:] + columns[:place]
    return next((name for name in others if name != NAME_COLUMN), None)
