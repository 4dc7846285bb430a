"""Finding all that is wrong with a set at once, where reading it stops at the first thing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dgmrec_pyg.datasets.masks import check_mask_file, find_mask_files
from dgmrec_pyg.datasets.mmrec import (
    COLUMNS,
    FEATURE_CHECKS,
    FEATURE_SUFFIX,
    TRAIN,
    check_file,
    check_limit,
    check_same_rows,
    find_feature_files,
    find_inter_file,
    items_file,
    no_features,
)
from dgmrec_pyg.datasets.npy import NpyHeader, open_matrix, read_matrix
from dgmrec_pyg.datasets.raw_ids import check_raw_ids, find_raw_id_files
from dgmrec_pyg.datasets.tables import numbers_or_negative, read_table, whole_numbers
from dgmrec_pyg.errors import UserError

SPLITS = {'validation': 1, 'test': 2}


class _Problems:
    """Collects errors instead of raising them."""

    def __init__(self) -> None:
        self.found: list[str] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            self.found.append(str(error))


def find_problems(folder: str | os.PathLike[str]) -> list[str]:
    """Returns every problem of a set in MMRec's layout: what :func:`~dgmrec_pyg.datasets.read_mmrec` would refuse, mask
    files that do not fit, and splits that a run cannot do without.

    Each is one line that names the file, its first bad lines or rows and how many there are, and what to do. What
    depends on a part that is wrong is not looked at: with files of features that do not tell the number of items, no
    item is said to be beyond it.

    Args:
        folder (str or PathLike): The folder of the set.

    Raises:
        UserError: If there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder '{folder}'; give the folder of a set, which holds the .inter and "
                        '_feat.npy files')
    problems = _Problems()
    headers = _check_features(folder, problems)
    feature_file = items_file(headers) if _agree(headers) else None
    num_items = None if feature_file is None else headers[feature_file].shape[0]
    _check_interactions(folder, problems, num_items, feature_file.name if feature_file else '')
    _check_raw_ids(folder, problems, num_items)
    modalities = [path.name.removesuffix(FEATURE_SUFFIX) for path in find_feature_files(folder)]
    if modalities:
        with problems.collect():
            for path in find_mask_files(folder).values():
                with problems.collect():
                    check_mask_file(path, modalities, num_items, problems.collect)
    return problems.found


def _agree(headers: Mapping[Path, NpyHeader]) -> bool:
    """Whether the feature files tell the number of items: more than half of them have as many rows."""
    rows = [header.shape[0] for header in headers.values()]
    return any(2 * rows.count(number) > len(rows) for number in rows)


def _check_features(folder: Path, problems: _Problems) -> dict[Path, NpyHeader]:
    """Checks the feature files; returns the headers of those that can be read."""
    paths, headers = find_feature_files(folder), {}
    if not paths:
        problems.found.append(str(no_features(folder)))
    for path in paths:
        with problems.collect():
            check_file(folder, path)
            headers[path] = open_matrix(path)
    for path, header in headers.items():
        with problems.collect():
            check_same_rows(path, headers)
        with problems.collect():
            values = read_matrix(path, header)
            for check in FEATURE_CHECKS:
                with problems.collect():
                    check(path, values)
    return headers


def _check_interactions(folder: Path, problems: _Problems, num_items: int | None, feature_file: str) -> None:
    before = len(problems.found)
    with problems.collect():
        path = find_inter_file(folder)
        check_file(folder, path)
        table = read_table(path, '\t', COLUMNS)
        if table.empty:
            raise UserError(f"'{path}' holds no interactions, only the names of columns")
        values = {name: numbers_or_negative(table[name]) for name in COLUMNS}
        for name, numbers in values.items():
            with problems.collect():
                whole_numbers(path, table[name])
            if name != 'itemID' or num_items is not None:
                with problems.collect():
                    check_limit(path, table[name], numbers, num_items or 0, feature_file)
        if all((values[name] >= 0).all() for name in ('userID', 'x_label')):
            _check_splits(path, values['userID'], values['x_label'], problems)
    problems.found[before:] = sorted(problems.found[before:], key=_line)


def _line(problem: str) -> int:
    """The line that a problem speaks of; 0 where it is no single one."""
    found = re.search(r"' line (\d+): ", problem)
    return int(found[1]) if found else 0


def _check_splits(path: Path, user: np.ndarray, label: np.ndarray, problems: _Problems) -> None:
    if not (label == TRAIN).any():
        problems.found.append(f"'{path}' holds no training interactions; mark them by 0 in the column x_label")
        return
    has_training = np.isin(user, user[label == TRAIN])
    for name, number in SPLITS.items():
        if not ((label == number) & has_training).any():
            problems.found.append(f"'{path}' holds no {name} interactions of users with training interactions; mark "
                                  f'some by {number} in the column x_label')


def _check_raw_ids(folder: Path, problems: _Problems, num_items: int | None) -> None:
    for path in find_raw_id_files(folder):
        with problems.collect():
            check_file(folder, path)
    for kind in ('user', 'item'):
        with problems.collect():
            check_raw_ids(folder, kind, num_items, problems.collect)
