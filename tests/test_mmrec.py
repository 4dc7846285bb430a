"""Reading MMRec's layout: what is read, and that every wrong file gives one line that says so."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dgmrec_pyg.datasets.mmrec import read_mmrec
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.schema import modality_names

LINES = ['0\t0\t0', '0\t1\t0', '1\t2\t0', '1\t3\t1', '2\t0\t0', '2\t1\t2']
IMAGE = np.arange(12, dtype=np.float64).reshape(4, 3)
TEXT = np.ones((4, 2), dtype=np.float32)


def write_inter(folder: Path, lines: list[str], header: str = 'userID\titemID\tx_label') -> None:
    (folder / f'{folder.name}.inter').write_text('\n'.join([header, *lines]) + '\n')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound set of 3 users and 4 items, for a test to add to or to break."""
    folder = tmp_path / 'toy'
    folder.mkdir()
    write_inter(folder, LINES)
    np.save(folder / 'image_feat.npy', IMAGE)
    np.save(folder / 'text_feat.npy', TEXT)
    return folder


def test_reads_the_schema(folder: Path) -> None:
    data = read_mmrec(folder)
    assert data['user'].num_nodes == 3
    assert data['item'].num_nodes == 4
    assert modality_names(data) == ['image', 'text']
    edges = data['user', 'interacts', 'item']
    assert edges.edge_index.tolist() == [[0, 0, 1, 2], [0, 1, 2, 0]]
    assert edges.val_edge_label_index.tolist() == [[1], [3]]
    assert edges.test_edge_label_index.tolist() == [[2], [1]]
    assert data['item', 'rev_interacts', 'user'].edge_index.tolist() == [[0, 1, 2, 0], [0, 0, 1, 2]]
    assert edges.edge_index.dtype == torch.int64
    assert data['item'].x_image.dtype == torch.float32
    assert torch.equal(data['item'].x_image, torch.from_numpy(IMAGE).float())
    assert not data['item'].missing_image.any()
    assert 'raw_id' not in data


@pytest.mark.parametrize('dtype', ['float16', '<f4', '>f8', 'int16', 'uint8', 'bool'])
def test_feature_types(folder: Path, dtype: str) -> None:
    values = np.array([[0, 1], [1, 0], [1, 1], [0, 0]])
    np.save(folder / 'text_feat.npy', np.asfortranarray(values.astype(dtype)))
    x = read_mmrec(folder)['item'].x_text
    assert x.dtype == torch.float32
    assert x.is_contiguous()
    assert torch.equal(x, torch.from_numpy(values).float())


def test_rows_of_nan_are_missing_and_equal_rows_are_fine(folder: Path) -> None:
    image = np.zeros((4, 3))
    image[[1, 3]] = np.nan
    np.save(folder / 'image_feat.npy', image)
    item = read_mmrec(folder)['item']
    assert item.missing_image.tolist() == [False, True, False, True]
    assert not item.missing_text.any()
    assert item.x_image[[1, 3]].isnan().all()


@pytest.mark.parametrize('lines', [
    ['', *LINES[:3], '', *LINES[3:], ''],
    [f'{line}\t5.0\textra\t7' for line in LINES],
    [line.replace('\t', '.0\t') + '.0' for line in LINES],
], ids=['blank lines', 'further columns', 'floats'])
def test_harmless_variants_of_the_inter_file(folder: Path, lines: list[str]) -> None:
    expected = read_mmrec(folder)['user', 'interacts', 'item']
    extra = '\trating\tx\ty' if 'extra' in lines[0] else ''
    write_inter(folder, lines, f'userID\titemID\tx_label{extra}')
    edges = read_mmrec(folder)['user', 'interacts', 'item']
    for key in ('edge_index', 'val_edge_label_index', 'test_edge_label_index'):
        assert torch.equal(edges[key], expected[key])


def test_another_name_for_the_inter_file_and_hidden_files(folder: Path) -> None:
    (folder / 'toy.inter').rename(folder / 'clicks.inter')
    (folder / '._image_feat.npy').write_bytes(b'left by a file manager')
    (folder / '.x.inter').touch()
    assert modality_names(read_mmrec(folder)) == ['image', 'text']


def test_one_modality_empty_splits_and_items_without_edges_are_fine(folder: Path) -> None:
    (folder / 'text_feat.npy').unlink()
    write_inter(folder, ['0\t0\t0', '4\t0\t0'])
    data = read_mmrec(folder)
    assert data['user'].num_nodes == 5
    assert data['item'].num_nodes == 4
    assert data['user', 'interacts', 'item'].val_edge_label_index.shape == (2, 0)
    assert data['user', 'interacts', 'item'].test_edge_label_index.shape == (2, 0)


def test_repeated_pairs_are_dropped_once_each(folder: Path) -> None:
    write_inter(folder, [*LINES, '0\t1\t0', '1\t3\t1', '0\t1\t0'])
    with pytest.warns(UserWarning, match=r'dropped 3 interactions that repeat') as caught:
        edges = read_mmrec(folder)['user', 'interacts', 'item']
    assert len(caught) == 1
    assert edges.edge_index.tolist() == [[0, 0, 1, 2], [0, 1, 2, 0]]
    assert edges.val_edge_label_index.tolist() == [[1], [3]]


def test_training_pairs_do_not_leak_into_validation_and_test(folder: Path) -> None:
    write_inter(folder, ['0\t0\t2', '0\t0\t1', *LINES])  # (0, 0) is a training pair, later in the file
    with pytest.warns(UserWarning, match=r'dropped 2 validation or test interactions that are also training'):
        edges = read_mmrec(folder)['user', 'interacts', 'item']
    assert edges.edge_index.tolist() == [[0, 0, 1, 2], [0, 1, 2, 0]]
    assert edges.val_edge_label_index.tolist() == [[1], [3]]
    assert edges.test_edge_label_index.tolist() == [[2], [1]]


@pytest.mark.parametrize(('name', 'content', 'raw', 'names'), [
    ('items.csv', 'itemID\tartist\tname\n0\t80\tA, "B"\n3\t66\tC\n', ['80', '1', '2', '66'], ['A, "B"', '1', '2', 'C']),
    ('items.csv', 'itemID,artist,name\n3,66,NA\n0,80,"A, B"\n', ['80', '1', '2', '66'], ['A, B', '1', '2', 'NA']),
    ('items.csv', 'itemID,name\n1,B\n2,\n', None, ['0', 'B', '2', '3']),
    ('items.csv', 'itemID,asin\n1,007\n', ['0', '007', '2', '3'], None),
    ('i_id_mapping.csv', 'asin\titemID\nB00A\t0\nB00B\t2\n', ['B00A', '1', 'B00B', '3'], None),
])
def test_raw_ids_and_names_of_items(folder: Path, name: str, content: str, raw: list[str] | None,
                                    names: list[str] | None) -> None:
    (folder / name).write_text(content)
    data = read_mmrec(folder)
    assert (data.raw_id if 'raw_id' in data else {}) == ({} if raw is None else {'item': raw})
    assert (data.item_name if 'item_name' in data else None) == names


def test_raw_ids_of_users_leave_out_users_without_interactions(folder: Path) -> None:
    (folder / 'u_id_mapping.csv').write_text('user_id\tuserID\nanna\t0\nbob\t2\nnobody\t9\n')
    assert read_mmrec(folder).raw_id == {'user': ['anna', '1', 'bob']}


def npy(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def huge_header() -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {'descr': '<f8', 'fortran_order': False, 'shape': (10**9, 10**6)})
    return file.getvalue() + bytes(64)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('x.npy', npy(IMAGE))
    return file.getvalue()


def with_value(value: float, *places: tuple[int, int]) -> bytes:
    image = IMAGE.copy()
    image[tuple(zip(*places, strict=True))] = value
    return npy(image)


def inter(*lines: str, header: str = 'userID\titemID\tx_label') -> Callable[[Path], object]:
    return lambda folder: write_inter(folder, list(lines), header)


def put(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def remove(pattern: str) -> Callable[[Path], object]:
    return lambda folder: [path.unlink() for path in folder.glob(pattern)]


def two_other_inter_files(folder: Path) -> None:
    (folder / 'toy.inter').rename(folder / 'a.inter')
    (folder / 'b.inter').touch()


BAD_INPUTS = {
    'no inter file': (remove('*.inter'), ['holds no .inter file', 'toy.inter']),
    'several inter files': (two_other_inter_files, ['a.inter, b.inter', "'toy.inter'"]),
    'empty inter file': (put('toy.inter', b''), ['toy.inter', 'empty']),
    'only a header': (inter(), ['toy.inter', 'no interactions']),
    'binary inter file': (put('toy.inter', bytes(range(256))), ['toy.inter', "no column 'userID'"]),
    'bytes that are no text': (put('toy.inter', b'userID\titemID\tx_label\n0\t0\t0\n\xff\xfe\t0\t0\n'),
                               ['toy.inter', 'line 3', 'UTF-8']),
    'inter file is a folder': (lambda folder: [(folder / 'toy.inter').unlink(), (folder / 'toy.inter').mkdir()],
                               ['toy.inter']),
    'wrong column': (inter('0\t0\t0', header='user\titemID\tx_label'),
                     ["no column 'userID'", "'user', 'itemID', 'x_label'"]),
    'missing column': (inter('0\t0', header='userID\titemID'), ["no column 'x_label'", "'userID', 'itemID'"]),
    'commas': (inter('0,0,0', header='userID,itemID,x_label'), ["no column 'userID'", 'tab separated']),
    'letters': (inter(*LINES, 'abc\t0\t0'), ['line 8', "userID is 'abc'", 'whole number']),
    'letters after a blank line': (inter('0\t0\t0', '', '0\tx\t0', '0\ty\t0'),
                                   ['line 4', "itemID is 'x'", '2 such lines']),
    'empty field': (inter('0\t0\t0', '1\t\t0'), ['line 3', 'itemID']),
    'short line': (inter('0\t0\t0', '1\t1'), ['line 3', 'x_label']),
    'fraction': (inter('0\t0.5\t0'), ['line 2', "itemID is '0.5'"]),
    'infinite id': (inter('inf\t0\t0'), ['line 2', 'userID']),
    'negative user': (inter('0\t0\t0', '-1\t0\t0'), ['line 3', "userID is '-1'", 'from 0']),
    'negative item': (inter('0\t-2\t0'), ['line 2', "itemID is '-2'"]),
    'enormous user': (inter(f'{10**12}\t0\t0'), ['line 2', 'userID', '2147483647']),
    'beyond 64 bits': (inter(f'{10**30}\t0\t0'), ['line 2', 'userID']),
    'item out of range': (inter(*LINES, '0\t4\t0', '0\t9\t0'),
                          ['line 8', "itemID is '4'", "'image_feat.npy' has 4 rows", '2 such lines']),
    'label out of range': (inter(*LINES, '0\t2\t3'), ['line 8', "x_label is '3'", '2 (test)']),
    'no training interactions': (inter('0\t0\t1', '1\t1\t2'), ['no training interactions', 'x_label']),
    'no features': (remove('*.npy'), ['holds no features', 'image_feat.npy']),
    'too few rows': (put('text_feat.npy', npy(TEXT[:3])), ['text_feat.npy', '3 rows', "'image_feat.npy' has 4"]),
    'empty feature file': (put('image_feat.npy', b''), ['image_feat.npy', 'cannot read']),
    'text instead of npy': (put('image_feat.npy', b'1.0 2.0\n'), ['image_feat.npy', 'cannot read']),
    'archive instead of npy': (put('image_feat.npy', zipped()), ['image_feat.npy', 'an archive']),
    'broken archive': (put('image_feat.npy', zipped()[:40]), ['image_feat.npy', 'cannot read']),
    'truncated npy': (put('image_feat.npy', npy(IMAGE)[:-8]), ['image_feat.npy', 'cannot read']),
    'cut in the header': (put('image_feat.npy', npy(IMAGE)[:40]), ['image_feat.npy', 'cannot read']),
    'more claimed than there is': (put('image_feat.npy', huge_header()), ['image_feat.npy', 'cannot read']),
    'objects': (put('image_feat.npy', npy(np.array([[{}]] * 4, dtype=object), allow_pickle=True)),
                ['image_feat.npy', 'cannot read', 'objects']),
    'texts': (put('image_feat.npy', npy(np.array([['a']] * 4))), ['image_feat.npy', 'not numbers']),
    'complex numbers': (put('image_feat.npy', npy(IMAGE + 1j)), ['image_feat.npy', 'complex128, not numbers']),
    'one dimension': (put('image_feat.npy', npy(IMAGE[:, 0])), ['image_feat.npy', 'shape [4]']),
    'three dimensions': (put('image_feat.npy', npy(IMAGE[None])), ['image_feat.npy', 'shape [1, 4, 3]']),
    'zero columns': (put('image_feat.npy', npy(IMAGE[:, :0])), ['image_feat.npy', 'shape [4, 0]']),
    'zero rows': (put('image_feat.npy', npy(IMAGE[:0])), ['image_feat.npy', 'shape [0, 3]']),
    'NaN in part of a row': (put('image_feat.npy', with_value(np.nan, (1, 0), (3, 2))),
                             ['image_feat.npy', 'NaN beside numbers in rows 1, 3', '2 such']),
    'infinity': (put('image_feat.npy', with_value(-np.inf, (2, 1))),
                 ['image_feat.npy', 'infinite', 'row 2 (counted from 0)']),
    'too large for float32': (put('image_feat.npy', with_value(1e300, (0, 1))), ['image_feat.npy', 'float32', 'row 0']),
    'NaN throughout': (put('image_feat.npy', npy(np.full((4, 3), np.nan))), ['image_feat.npy', 'NaN throughout']),
    'control characters in a name': (put('\x1b[2Jx_feat.npy', npy(TEXT)), [r'\x1b[2Jx_feat.npy', 'rename the file']),
    'raw ids without id column': (put('items.csv', b'id,asin\n0,a\n'), ['items.csv', "no column 'itemID'", "'asin'"]),
    'raw id of no item': (put('items.csv', b'itemID,asin\n0,a\n4,b\n'), ['items.csv', 'line 3', "'4'", '4 items']),
    'raw id twice': (put('items.csv', b'itemID,asin\n0,a\n0,b\n'), ['items.csv', 'line 3', 'earlier line']),
    'raw id of a letter': (put('users.csv', b'userID\traw\nx\ta\n'), ['users.csv', 'line 2', "userID is 'x'"]),
    'empty raw ids': (put('users.csv', b''), ['users.csv', 'empty']),
}


@pytest.mark.parametrize(('spoil', 'words'), BAD_INPUTS.values(), ids=BAD_INPUTS.keys())
def test_bad_input_is_one_line(folder: Path, spoil: Callable[[Path], object], words: list[str]) -> None:
    spoil(folder)
    with pytest.raises(UserError) as caught:
        read_mmrec(folder)
    message = str(caught.value)
    assert '\n' not in message
    for word in words:
        assert word in message


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='there is no folder'):
        read_mmrec(tmp_path / 'nowhere')
