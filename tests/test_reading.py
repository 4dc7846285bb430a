"""Tests of dgmrec_pyg.reading, and that every reader of the package goes through it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dgmrec_pyg.datasets import MultimodalDataset, mmrec, read_mask_file, read_mmrec
from dgmrec_pyg.datasets.npy import NpyHeader, read_matrix
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.reading import check_inside, check_plain_file, read_bytes, read_json, unchanged
from dgmrec_pyg.rundir import RunDirectory

FILES = ('toy.inter', 'image_feat.npy', 'items.csv', 'missing_0.5.npz')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound set of 2 users and 4 items."""
    folder = tmp_path / 'toy'
    folder.mkdir()
    (folder / 'toy.inter').write_text('userID\titemID\tx_label\n0\t0\t0\n1\t3\t0\n')
    np.save(folder / 'image_feat.npy', np.ones((4, 3), dtype=np.float32))
    (folder / 'items.csv').write_text('itemID,asin\n0,a\n')
    np.savez(folder / 'missing_0.5.npz', image=np.arange(4) == 1)
    return folder


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    message = str(error.value)
    assert '\n' not in message
    return message


@pytest.mark.parametrize('name', FILES)
def test_links_out_of_the_folder_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).rename(tmp_path / 'elsewhere')
    (folder / name).symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(UserError, match='is a link that leads out of its folder') as caught:
        MultimodalDataset.from_folder(folder)
    assert f"{folder / name}'" in one_line(caught)
    assert f"to '{tmp_path / 'elsewhere'}'" in one_line(caught)


@pytest.mark.parametrize('name', FILES)
def test_links_within_the_folder_and_to_the_folder_are_followed(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).rename(folder / 'kept')
    (folder / name).symlink_to('kept')
    (tmp_path / 'link').symlink_to(folder)
    data = MultimodalDataset(tmp_path, 'link')[0]
    assert data['item'].missing_image.tolist() == [False, True, False, False]
    assert data.raw_id['item'][0] == 'a'


def test_a_mask_file_given_by_name_may_be_anywhere(folder: Path, tmp_path: Path) -> None:
    (folder / 'missing_0.5.npz').rename(tmp_path / 'mine.npz')
    (tmp_path / 'link.npz').symlink_to(tmp_path / 'mine.npz')
    assert MultimodalDataset.from_folder(folder, missing=tmp_path / 'link.npz')[0]['item'].missing_image.any()


@pytest.mark.parametrize('name', ['toy.inter', 'image_feat.npy'])
@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir, lambda path: path.symlink_to('/dev/zero')],
                         ids=['pipe', 'folder', 'device'])
def test_what_is_no_plain_file_is_refused(folder: Path, name: str, make: Callable[[Path], None]) -> None:
    # Else the process would wait for a writer, or read zeros until memory is full.
    (folder / name).unlink()
    make(folder / name)
    with pytest.raises(UserError, match=r'it is a (folder|pipe or a device); put a plain file there') as caught:
        read_mmrec(folder)
    assert name in one_line(caught)


@pytest.mark.parametrize('target', ['/dev/zero', '/dev/stdin'])
def test_masks_and_json_from_a_device_are_refused(tmp_path: Path, target: str) -> None:
    for name in ('m.npz', 'config.json'):
        (tmp_path / name).symlink_to(target)
    for read in (lambda: read_mask_file(tmp_path / 'm.npz', ['image'], 4), lambda: read_json(tmp_path / 'config.json')):
        with pytest.raises(UserError, match='cannot read'):
            read()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read '.*none': No such file"):
        check_plain_file(tmp_path / 'none')


def test_a_folder_of_a_similar_name_is_not_inside(tmp_path: Path) -> None:
    for name in ('set', 'set2'):
        (tmp_path / name).mkdir()
    (tmp_path / 'set2' / 'file').touch()
    (tmp_path / 'set' / 'file').symlink_to('../set2/file')
    with pytest.raises(UserError, match='leads out'):
        check_inside(tmp_path / 'set', tmp_path / 'set' / 'file')
    check_inside(tmp_path / 'set2', tmp_path / 'set2' / 'file')


def append(path: Path) -> None:
    with open(path, 'a') as file:
        file.write('1\t1\t0\n')


def replace(path: Path) -> None:
    """Another file of the same size and time."""
    content, status = path.read_bytes(), path.stat()
    path.rename(path.with_suffix('.old'))
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def overwrite(path: Path) -> None:
    """The same size, later."""
    size, before = path.stat().st_size, path.stat().st_mtime_ns
    path.write_bytes(b'x' * size)
    os.utime(path, ns=(before + 1, before + 1))


@pytest.mark.parametrize('change', [append, replace, overwrite, Path.unlink])
def test_a_file_that_changes_is_noticed(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / 'file'
    path.write_text('text')
    with unchanged([path]):
        pass
    with pytest.raises(UserError, match='file\' changed while it was read; try again'), unchanged([path]):
        change(path)


def test_a_change_is_told_in_place_of_what_it_led_to(tmp_path: Path) -> None:
    path = tmp_path / 'file'
    path.touch()

    def fail(change: Callable[[Path], object]) -> None:
        with unchanged([path]):
            change(path)
            raise UserError('line 3 is short')

    with pytest.raises(UserError, match='changed while it was read'):
        fail(append)
    with pytest.raises(UserError, match='line 3 is short'):
        fail(Path.read_text)


def write_before(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Lets another process, so to speak, change something after the headers were read and before the values are."""

    def changed(path: Path, header: NpyHeader) -> np.ndarray:
        change()
        return read_matrix(path, header)

    monkeypatch.setattr(mmrec, 'read_matrix', changed)


@pytest.mark.parametrize(('name', 'change'), [
    ('toy.inter', append),
    ('image_feat.npy', lambda path: os.truncate(path, 150)),  # a mapped file would end the process here
    ('items.csv', append),
])
def test_a_set_that_changes_while_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str,
                                             change: Callable[[Path], None]) -> None:
    write_before(monkeypatch, lambda: change(folder / name))
    with pytest.raises(UserError, match='changed while it was read') as caught:
        read_mmrec(folder)
    assert name in one_line(caught)


def test_read_bytes_is_limited(tmp_path: Path) -> None:
    path = tmp_path / 'file'
    path.write_bytes(b'12345')
    assert read_bytes(path, 5) == b'12345'
    with pytest.raises(UserError, match=r'has 5 bytes; at most 4 are read, so it is refused'):
        read_bytes(path, 4)


@pytest.mark.parametrize(('content', 'message'), [
    (b'[' * 100_000, 'its brackets are nested too deeply'),
    (b'{"a": ', r'it is no JSON \(Expecting value'),
    (b'\xff\xff', 'it is no JSON'),
    (b'9' * 5000, 'it is no JSON'),
    (b' ' * 2**21, 'at most 1,048,576 are read'),
])
def test_bad_json(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / 'config.json'
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_json(path, max_bytes=2**20)
    assert str(path) in one_line(caught)


def test_json_is_read(tmp_path: Path) -> None:
    (tmp_path / 'a.json').write_text(json.dumps({'a': [1, 'ü']}))
    assert read_json(tmp_path / 'a.json') == {'a': [1, 'ü']}


@pytest.mark.parametrize('content', [b'[' * 100_000, bytes(17 * 2**20)], ids=['deep', 'large'])
def test_a_run_directory_with_a_hostile_config(tmp_path: Path, content: bytes) -> None:
    (tmp_path / 'config.json').write_bytes(content)
    with pytest.raises(UserError, match=r'config\.json.*start a new run in another folder') as caught:
        RunDirectory(tmp_path, resume=True).read_config()
    assert len(one_line(caught)) < 1000


def test_reading_changes_no_rights(folder: Path) -> None:
    for name in FILES:
        (folder / name).chmod(0o444)
    MultimodalDataset.from_folder(folder)
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in FILES} == {0o444}
