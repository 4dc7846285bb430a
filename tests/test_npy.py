"""Tests of dgmrec_pyg.datasets.npy: whatever the header says, no more is taken than the file holds."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from dgmrec_pyg.datasets import npy
from dgmrec_pyg.datasets.npy import open_matrix, read_header, read_matrix
from dgmrec_pyg.errors import UserError


def header(text: str, version: tuple[int, int] = (1, 0), claimed: int | None = None) -> bytes:
    """A header of any text; it may claim another length than it has."""
    content = text.encode() + b'\n'
    length = struct.pack('<H' if version == (1, 0) else '<I', len(content) if claimed is None else claimed)
    return b'\x93NUMPY' + bytes(version) + length + content


def matrix(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / 'image_feat.npy'


@pytest.mark.parametrize('block', [1, 7, 10**6])
@pytest.mark.parametrize('order', ['C', 'F'])
@pytest.mark.parametrize('dtype', ['<f4', '>f8', '<f2', 'u1', '>i8', '?'])
def test_blocks_of_any_size_give_the_same(path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, order: str,
                                          block: int) -> None:
    monkeypatch.setattr(npy, '_BLOCK_VALUES', block)
    values = np.asarray(np.arange(35).reshape(7, 5) % 11, dtype=dtype, order=order)
    np.save(path, values)
    found = read_matrix(path, open_matrix(path))
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert np.array_equal(found, values.astype(np.float32))


def test_what_follows_the_values_is_left_alone(path: Path) -> None:
    np.save(path, np.ones((2, 3)))
    path.write_bytes(path.read_bytes() + b'more')
    assert read_matrix(path, open_matrix(path)).tolist() == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize(('content', 'words'), [
    (header(matrix('(1000000000, 1000000)')), ['claims float32 [1000000000, 1000000]', 'only 64 bytes']),
    (header(matrix(f'({10**600}, 1)')), ['claims float32 [1000', 'only 64 bytes']),
    (header(matrix('(4, -4)')), ['its shape is not of whole numbers']),
    (header(matrix('(True, 4)')), ['its shape is not of whole numbers']),
    (header(matrix('(4, 4)'), (2, 0), claimed=2**32 - 1), ['cannot read', 'array header']),
    (header(matrix('(4, 4)'), (9, 0)), ['cannot read']),
    (header(matrix('(4, 4)', "'|O'")), ['pickled objects, which are not read']),
    (header(matrix('(4, 4)', "[('a', '|O')]")), ['pickled objects']),
    (header(matrix('(4, 4)', "'<f4, <f8'")), ['not numbers']),
    (header(matrix('(4, 4)', "'|V0'")), ['not numbers']),
    (header('__import__("os").mkdir("made")'), ['cannot read']),
    (header('(' * 9000), ['cannot read']),
    (header(matrix('(' + '1,' * 4000 + ')')), ['has shape [1, 1']),
], ids=lambda value: None if isinstance(value, list) else repr(value[:90]))
def test_bad_headers(path: Path, content: bytes, words: list[str]) -> None:
    path.write_bytes(content + bytes(64))
    tracemalloc.start()
    with pytest.raises(UserError) as caught:
        open_matrix(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    message = str(caught.value)
    assert peak < 2**22
    assert '\n' not in message
    assert len(message) < 500
    for word in (str(path), *words):
        assert word in message


def test_a_file_that_has_become_shorter(path: Path) -> None:
    np.save(path, np.ones((100, 3)))
    found = open_matrix(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r'image_feat\.npy\': it ends too early'):
        read_matrix(path, found)
    path.unlink()
    with pytest.raises(UserError, match='No such file'):
        read_matrix(path, found)


def test_only_the_start_is_needed() -> None:
    content = header(matrix('(4, 4)')) + bytes(64)
    found = read_header(content)
    assert (found.shape, found.dtype, found.fortran_order) == ((4, 4), np.dtype('<f4'), False)
    assert len(content) - found.offset == 64
