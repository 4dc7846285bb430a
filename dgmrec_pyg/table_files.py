"""Tables that go out, as CSV, JSON lines or Parquet by the ending of their name, and lists of ids that come in."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.errors import UserError, install_hint
from dgmrec_pyg.files import atomic_path, csv_cell
from dgmrec_pyg.reading import read_bytes
from dgmrec_pyg.schema import ITEM

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = ('.csv', '.jsonl', '.parquet')
MAX_ID_BYTES = 256 * 2**20


def check_table_path(path: str | os.PathLike[str]) -> None:
    """Checks that :func:`write_table` can write a table there, before anything is computed.

    Args:
        path (str or PathLike): The file.

    Raises:
        UserError: If its ending is unknown, its folder is not there, or a library is not installed.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise UserError(f"'{path}' does not say what kind of table to write (known endings: "
                        f'{", ".join(ENDINGS)})')
    if path.suffix == '.parquet':
        require_parquet()
    if not path.absolute().parent.is_dir():
        raise UserError(f"cannot write '{path}': there is no folder '{path.absolute().parent}'; make it first")


def require_parquet() -> None:
    """Checks that Parquet files can be written.

    Raises:
        UserError: If pyarrow is not installed.
    """
    if importlib.util.find_spec('pyarrow') is None:
        raise UserError(f"Parquet files need pyarrow: {install_hint('pyarrow')}, or write .csv or .jsonl")


def write_table(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Writes a table in one move.

    In CSV, texts that a spreadsheet would take for a formula are marked as text
    (:func:`~dgmrec_pyg.files.csv_cell`), and numbers have six digits.

    Args:
        frame (pandas.DataFrame): The table; its index is not written.
        path (str or PathLike): The file, ending in ``.csv``, ``.jsonl`` or ``.parquet``.

    Raises:
        UserError: If the ending is unknown or the file cannot be written.
    """
    check_table_path(path)
    with atomic_path(path) as temporary:
        if temporary.suffix == '.csv':
            _safe_texts(frame).to_csv(temporary, index=False, float_format='%.6g', lineterminator='\r\n')
        elif temporary.suffix == '.jsonl':
            frame.to_json(temporary, orient='records', lines=True, force_ascii=False)
        else:
            frame.to_parquet(temporary, index=False)


def node_ids(data: HeteroData, kind: str) -> np.ndarray:
    """Returns the ids of users or items in the source of a set, where it knows them, else their numbers, texts ``[N]``.

    Args:
        data (HeteroData): A graph in the package's schema.
        kind (str): ``'user'`` or ``'item'``.
    """
    raw = (data.get('raw_id') or {}).get(kind)
    return np.array([str(one) for one in (range(data[kind].num_nodes) if raw is None else raw)], dtype=object)


def recommendation_table(data: HeteroData, users: np.ndarray, items: np.ndarray, ids: Tensor, scores: Tensor
                         ) -> pd.DataFrame:
    """Returns a ranking as a table with a row per user and recommended item, best first.

    Args:
        data (HeteroData): The set, whose items have names or not.
        users (numpy.ndarray): The ids of the users, ``[N]``.
        items (numpy.ndarray): The ids of all items, those of the set first, ``[I]`` or more.
        ids (torch.Tensor): Ranked items, int64 ``[N, k]``; negative where there is none.
        scores (torch.Tensor): Their scores, ``[N, k]``.

    Returns:
        pandas.DataFrame: ``user``, ``rank`` (from 1), ``item``, ``score`` and, where the set has them, ``name``.
    """
    import pandas as pd

    row, place, item, score = _entries(ids, scores)
    columns = {'user': users[row], 'rank': place + 1, 'item': items[item], 'score': score}
    return pd.DataFrame(columns | _names(data, items, item))


def audience_table(data: HeteroData, users: np.ndarray, items: np.ndarray, wanted: Tensor, ids: Tensor, scores: Tensor
                   ) -> pd.DataFrame:
    """Returns rankings of users as a table with a row per item and user, best first.

    Args:
        data (HeteroData): The set, whose items have names or not.
        users (numpy.ndarray): The ids of all users, ``[U]``.
        items (numpy.ndarray): The ids of all items, those of the set first, ``[I]`` or more.
        wanted (torch.Tensor): The items that users were ranked for, int64 ``[N]``.
        ids (torch.Tensor): Ranked users, int64 ``[N, k]``; negative where there is none.
        scores (torch.Tensor): Their scores, ``[N, k]``.

    Returns:
        pandas.DataFrame: ``item``, ``rank`` (from 1), ``user``, ``score`` and, where the set has them, the item's
        ``name``.
    """
    import pandas as pd

    row, place, user, score = _entries(ids, scores)
    item = wanted.cpu().numpy()[row]
    columns = {'item': items[item], 'rank': place + 1, 'user': users[user], 'score': score}
    return pd.DataFrame(columns | _names(data, items, item))


def _entries(ids: Tensor, scores: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The rows, places, ids and scores of a ranking, places without an id left out."""
    ids, scores = ids.cpu(), scores.cpu()
    row, place = (ids >= 0).nonzero(as_tuple=True)
    return row.numpy(), place.numpy(), ids[row, place].numpy(), scores[row, place].numpy()


def _names(data: HeteroData, items: np.ndarray, number: np.ndarray) -> dict[str, np.ndarray]:
    """The column of the items' names, where the set has them."""
    if 'item_name' not in data:
        return {}
    unnamed = [''] * (len(items) - data[ITEM].num_nodes)
    return {'name': np.array([*data.item_name, *unnamed], dtype=object)[number]}


def _safe_texts(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table with texts as they may stand in a CSV; each distinct text is looked at once."""
    safe = frame.copy(deep=False)
    for name in frame.columns:
        if frame[name].dtype.kind not in 'biuf':
            safe[name] = frame[name].map({text: csv_cell(text) for text in frame[name].unique()})
    return safe


def read_ids(path: str | os.PathLike[str]) -> list[str]:
    """Reads ids from a text file, one per line; blank lines are left out.

    Args:
        path (str or PathLike): The file, in UTF-8.

    Raises:
        UserError: If it cannot be read, is no text, or holds no id.
    """
    try:
        text = read_bytes(path, MAX_ID_BYTES).decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is no text in UTF-8 (byte {error.start}); save it as UTF-8, one id per line"
                        ) from error
    ids = [line.strip() for line in text.split('\n') if line.strip()]
    if not ids:
        raise UserError(f"'{path}' holds no id; put one per line")
    return ids
