"""Reading text tables so that a wrong line is named by its number."""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dgmrec_pyg.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

LARGEST_ID = 2**31 - 1
HEADER_LINES = 1


def column_names(path: Path, separator: str) -> list[str]:
    """Returns the column names in the first line of a table.

    Args:
        path (Path): The file.
        separator (str): What stands between two columns.

    Raises:
        UserError: If the file cannot be read or is empty.
    """
    try:
        with open(path, encoding='utf-8-sig', errors='replace', newline='') as file:
            names = next(csv.reader(file, delimiter=separator), [])
    except (OSError, csv.Error) as error:
        raise UserError(f"cannot read '{path}': {getattr(error, 'strerror', None) or error}") from error
    if not any(names):
        raise UserError(f"'{path}' is empty or its first line is; it must hold the names of the columns")
    return names


def read_table(path: Path, separator: str, columns: Collection[str], text: bool = False) -> pd.DataFrame:
    """Reads some columns of a table; blank lines are left out, and the index still counts them.

    Args:
        path (Path): The file; its first line names the columns.
        separator (str): What stands between two columns.
        columns (Collection[str]): The columns to read; others are ignored.
        text (bool): Keeps all values as text instead of looking for numbers. (default: :obj:`False`)

    Raises:
        UserError: If the file cannot be read, is empty, or lacks one of the columns.
    """
    import pandas as pd

    found = column_names(path, separator)
    absent = [name for name in columns if name not in found]
    if absent:
        names = ', '.join(repr(name[:40]) for name in found[:10])
        kind = 'tab' if separator == '\t' else 'comma'
        raise UserError(f"'{path}' has no column '{absent[0]}'; its first line must name {', '.join(columns)}, "
                        f'{kind} separated, but names {names}')
    # A quote in a tab separated file is a letter like any other, else one of them would swallow lines.
    quoting = csv.QUOTE_NONE if separator == '\t' else csv.QUOTE_MINIMAL
    try:
        frame = pd.read_csv(path, sep=separator, usecols=list(columns), index_col=False, quoting=quoting,
                            skip_blank_lines=False, low_memory=False, encoding='utf-8-sig',
                            dtype=str if text else None, keep_default_na=not text, na_values=[''])
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' line {_first_line_of_no_text(path)} is no text in UTF-8; save the file as UTF-8"
                        ) from error
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise UserError(f"cannot read '{path}': {' '.join(str(error).split())}") from error
    return frame.dropna(how='all')


def _first_line_of_no_text(path: Path) -> int:
    with open(path, 'rb') as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    raise UserError(f"'{path}' changed while it was read; try again when it is written completely")


def reject_lines(path: Path, column: pd.Series, wrong: np.ndarray, need: str) -> None:
    """Raises an error that names the first line where :obj:`wrong` is True, if there is one.

    Args:
        path (Path): The file of the column.
        column (pandas.Series): The column, as :func:`read_table` gave it.
        wrong (numpy.ndarray): bool, for each row whether it is wrong.
        need (str): What would have been right.

    Raises:
        UserError: If a row is wrong.
    """
    if wrong.any():
        first = int(wrong.argmax())
        line = column.index[first] + HEADER_LINES + 1
        found = column.iloc[first]
        if isinstance(found, float) and found.is_integer():  # An empty cell makes all numbers of a column floats.
            found = int(found)
        value = 'empty' if column.isna().iloc[first] else repr(str(found)[:40])
        more = f' ({int(wrong.sum()):,} such lines)' if wrong.sum() > 1 else ''
        raise UserError(f"'{path}' line {line}: {column.name} is {value}; {need}{more}")


def whole_numbers(path: Path, column: pd.Series) -> np.ndarray:
    """Returns a column of ids as int64.

    Args:
        path (Path): The file of the column, for errors.
        column (pandas.Series): The column, as :func:`read_table` gave it.

    Raises:
        UserError: If a value is no whole number, is negative, or is beyond 2^31 - 1.
    """
    values = numbers_or_negative(column)
    reject_lines(path, column, values < 0, f'a whole number from 0 to {LARGEST_ID} is needed')
    return values


def numbers_or_negative(column: pd.Series) -> np.ndarray:
    """Returns a column of ids as int64, -1 where it holds no whole number from 0 to 2^31 - 1.

    Args:
        column (pandas.Series): The column, as :func:`read_table` gave it.
    """
    import pandas as pd

    column_as_read = column if column.dtype.kind in 'iuf' else column.astype(str)
    values = pd.to_numeric(column_as_read, errors='coerce').to_numpy(np.float64)
    whole = (values >= 0) & (values <= LARGEST_ID) & (values == np.floor(values))
    return np.where(whole, values, -1).astype(np.int64)
