"""Tests of dgmrec_pyg.table_files."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import pandas as pd
import pytest

from dgmrec_pyg.errors import UserError
from dgmrec_pyg.table_files import ENDINGS, check_table_path, read_ids, write_table

FRAME = pd.DataFrame({'user': ['a', 'a', '=1+1'], 'rank': [1, 2, 1], 'score': [0.5, 1 / 3, -2.0]})


def read(path: Path) -> list[tuple]:
    if path.suffix == '.csv':
        with open(path, encoding='utf-8', newline='') as file:
            return [tuple(row) for row in csv.reader(file)]
    if path.suffix == '.jsonl':
        return [tuple(json.loads(line).values()) for line in path.read_text(encoding='utf-8').splitlines()]
    return [tuple(row) for row in pd.read_parquet(path).itertuples(index=False)]


@pytest.mark.parametrize('ending', ENDINGS)
def test_each_kind_holds_the_table(ending: str, tmp_path: Path) -> None:
    if ending == '.parquet':
        pytest.importorskip('pyarrow')
    before = FRAME.copy()
    write_table(FRAME, tmp_path / f'out{ending}')
    rows = read(tmp_path / f'out{ending}')
    if ending == '.csv':
        assert rows == [('user', 'rank', 'score'), ('a', '1', '0.5'), ('a', '2', '0.333333'), ("'=1+1", '1', '-2')]
    else:
        assert rows == [('a', 1, 0.5), ('a', 2, pytest.approx(1 / 3)), ('=1+1', 1, -2.0)]
    assert before.equals(FRAME)
    assert [path.name for path in tmp_path.iterdir()] == [f'out{ending}']


def test_bad_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, message in ((tmp_path / 'a.parqet', r'what kind of table to write \(known endings: \.csv, \.jsonl'),
                          (tmp_path / 'a', 'does not say what kind of table'),
                          (tmp_path / 'no' / 'a.csv', 'there is no folder')):
        with pytest.raises(UserError, match=message):
            check_table_path(path)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=r'pip install "dgmrec-pyg\[parquet\]"'):
        check_table_path(tmp_path / 'a.parquet')


def test_ids_come_one_per_line(tmp_path: Path) -> None:
    path = tmp_path / 'ids.txt'
    path.write_bytes('\ufeffb 1\r\n\r\n  ä\nb 1'.encode())
    assert read_ids(path) == ['b 1', 'ä', 'b 1']


@pytest.mark.parametrize(('content', 'message'), [(b'a\n\xff', r'no text in UTF-8 \(byte 2\)'),
                                                   (b' \n', 'holds no id')])
def test_bad_ids(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / 'ids.txt'
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_ids(path)
    with pytest.raises(UserError, match='cannot read'):
        read_ids(tmp_path / 'absent.txt')
