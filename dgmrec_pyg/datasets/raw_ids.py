"""The ids and names that users and items had in the source of a set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dgmrec_pyg.datasets.tables import column_names, read_table, reject_lines, whole_numbers
from dgmrec_pyg.errors import UserError

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
    id_column = _FILES[kind][0]
    path = _find(folder, kind)
    if path is None:
        return None, None
    separator = _separator(path)
    columns = column_names(path, separator)
    raw_column = _raw_column(columns, id_column)
    wanted = [name for name in (id_column, raw_column, NAME_COLUMN) if name in columns or name == id_column]
    table = read_table(path, separator, wanted, text=True)

    ids = whole_numbers(path, table[id_column])
    reject_lines(path, table[id_column], table[id_column].duplicated().to_numpy(), 'it stands in an earlier line too')
    inside = ids < num_nodes
    if kind == 'item':
        reject_lines(path, table[id_column], ~inside, f'there are {num_nodes:,} items, numbered from 0')

    def column(name: str | None) -> list[str] | None:
        if name is None or name not in columns:
            return None
        texts = np.arange(num_nodes).astype(str).astype(object)
        given = table[name].notna().to_numpy() & inside
        texts[ids[given]] = table[name].to_numpy()[given]
        return texts.tolist()

    return column(raw_column), column(NAME_COLUMN)


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
