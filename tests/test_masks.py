"""Mask files of both forms, and that a released one runs nothing."""

from __future__ import annotations

import io
import pickle
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dgmrec_pyg.datasets.masks import MAX_BYTES, find_mask_files, read_mask_file, write_mask_file
from dgmrec_pyg.errors import UserError

NUM_ITEMS = 8
THREE = ['audio', 'image', 'text']


def write_released(path: Path, content: object) -> Path:
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
    return path


def write_pickle(path: Path, content: bytes) -> Path:
    """An object array's header, then whatever bytes are to stand for the pickle."""
    with open(path, 'wb') as file:
        np.lib.format.write_array_header_1_0(file, {'descr': '|O', 'fortran_order': False, 'shape': ()})
        file.write(content)
    return path


def ids(*items: int) -> np.ndarray:
    return np.array(items, dtype=np.int64)


def lacking(masks: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    return {name: mask.nonzero().flatten().tolist() for name, mask in masks.items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / 'missing_items_0.6.npy'


@pytest.mark.parametrize(('modalities', 'expected'), [
    (['audio', 'image', 'text'], {'audio': [2, 4, 5, 6], 'image': [1, 3, 5, 6], 'text': [0, 3, 4, 6]}),
    (['text', 'image'], {'text': [0, 3, 4, 6], 'image': [1, 3, 5, 6]}),
    (['audio', 'image'], {'audio': [2, 4, 5, 6], 'image': [1, 3, 5, 6]}),
    (['image', 'smell'], {'image': [1, 3, 5, 6], 'smell': [6]}),
])
def test_released_keys(path: Path, modalities: list[str], expected: dict[str, list[int]]) -> None:
    write_released(path, {'t': ids(0), 'v': ids(1), 'a': ids(2), 'tv': ids(3), 'ta': ids(4), 'va': ids(5),
                          'all': ids(6)})
    masks = read_mask_file(path, modalities, NUM_ITEMS)
    assert lacking(masks) == expected
    assert all(mask.dtype == torch.bool and mask.shape == (NUM_ITEMS,) for mask in masks.values())


@pytest.mark.parametrize('items', [[3, 1], (1, 3), {1, 3}, np.array([1, 3], '>i4'), np.array([3, 1], np.uint8)],
                         ids=['list', 'tuple', 'set', 'big endian', 'bytes'])
def test_released_items_as_any_integers(path: Path, items: object) -> None:
    # Protocol 4: before it a set was pickled as a call of a function.
    content = np.array({'v': items, 't': np.array([]), 'all': []}, dtype=object)
    write_pickle(path, pickle.dumps(content, protocol=4))
    assert lacking(read_mask_file(path, THREE, NUM_ITEMS)) == {'audio': [], 'image': [1, 3], 'text': []}


@pytest.mark.parametrize('protocol', [3, 4])  # what numpy.save has been using
def test_released_pickle_protocols(path: Path, protocol: int) -> None:
    content = np.array({'v': ids(2)}, dtype=object)
    write_pickle(path, pickle.dumps(content, protocol=protocol))
    assert lacking(read_mask_file(path, ['image'], NUM_ITEMS)) == {'image': [2]}


def test_what_pickles_share_is_read(path: Path) -> None:
    # One array under two keys, and one long text, before whose number a frame begins.
    items, name = ids(2), 't' * 100_000
    write_pickle(path, pickle.dumps(np.array({'v': items, 't': items, 'all': []}, dtype=object), protocol=4))
    assert lacking(read_mask_file(path, ['image', 'text'], NUM_ITEMS)) == {'image': [2], 'text': [2]}
    write_pickle(path, pickle.dumps(np.array({name: [name]}, dtype=object), protocol=4))
    with pytest.raises(UserError, match='it holds list where a list of item ids is needed'):
        read_mask_file(path, THREE, NUM_ITEMS)


def test_only_all_applies_to_modalities_of_other_names(path: Path) -> None:
    write_released(path, {'t': ids(), 'v': ids(), 'all': ids(1, 2)})
    assert lacking(read_mask_file(path, ['smell', 'taste'], NUM_ITEMS)) == {'smell': [1, 2], 'taste': [1, 2]}


def test_the_mask_of_tiktok(real_data_root: Path) -> None:
    masks = read_mask_file(real_data_root / 'tiktok' / 'missing_items_0.6.npy', ['audio', 'image'], 6710)
    assert (masks['image'].sum(), masks['audio'].sum()) == (2685, 2685)
    assert (masks['image'] & masks['audio']).sum() == 1791
    assert read_mask_file(real_data_root / 'tiktok' / 'missing_items_0.6.npy', THREE, 6710)['text'].sum() == 2681


def test_the_mask_of_lfm2k(real_data_root: Path) -> None:
    masks = read_mask_file(real_data_root / 'lfm2k' / 'missing_0.6.npz', ['text', 'vggish', 'whisper'], 1425)
    assert [int(mask.sum()) for mask in masks.values()] == [570, 570, 570]
    assert torch.stack(list(masks.values())).all(dim=0).sum() == 285


def test_round_trip(tmp_path: Path) -> None:
    masks = {name: torch.rand(NUM_ITEMS, generator=torch.Generator().manual_seed(n)) < 0.5
             for n, name in enumerate(THREE)}
    write_mask_file(tmp_path / 'missing_0.5.npz', masks)
    found = read_mask_file(tmp_path / 'missing_0.5.npz', [*THREE, 'smell'], NUM_ITEMS)
    assert all(torch.equal(found[name], masks[name]) for name in THREE)
    assert not found['smell'].any()
    assert [path.name for path in tmp_path.iterdir()] == ['missing_0.5.npz']


def test_files_are_found_by_their_ratio(tmp_path: Path) -> None:
    names = ['missing_items_0.6.npy', 'missing_0.6.npz', 'missing_items_0.75.npy', 'missing_0.10.npz',
             'missing_few.npz', 'missing_1.2.3.npz', 'missing_0.5.npy', 'image_feat.npy']
    for name in names:
        (tmp_path / name).touch()
    found = find_mask_files(tmp_path)
    assert list(found.items()) == [(0.1, tmp_path / 'missing_0.10.npz'), (0.6, tmp_path / 'missing_0.6.npz'),
                                   (0.75, tmp_path / 'missing_items_0.75.npy')]
    assert find_mask_files(tmp_path / 'nowhere') == {}


class Touch:
    """Touches a file when it is unpickled by an ordinary unpickler."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_a_harmful_pickle_does_nothing(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / 'touched'
    write_released(path, {'v': ids(0), 'all': Touch(victim)})
    np.load(path, allow_pickle=True)
    assert victim.exists()  # so it would
    victim.unlink()
    with pytest.raises(UserError, match='not to be trusted') as caught:
        read_mask_file(path, THREE, NUM_ITEMS)
    assert '\n' not in str(caught.value)
    assert not victim.exists()


@pytest.mark.parametrize('content', [
    b'cos\nsystem\n(S"true"\ntR.',
    b'cbuiltins\neval\n(S"1"\ntR.',
    b'cnumpy\nload\n(S"x"\ntR.',
    b'\x80\x04\x8c\x05numpy\x8c\x0cndarray.dump\x93.',
    b'cnumpy.core.multiarray\n_reconstruct.__globals__\n.',
    b'(S"true"\nios\nsystem\n.',
    b'\x82\x01.',
    b'P1\n.',
    b'\x80\x04Nr\xff\xff\xff\x7f.',                   # a place in the memo that would take 32 GiB
    b'\x80\x05\x8e\xff\xff\xff\xff\xff\x00\x00\x00.',  # bytes that claim to be 1 TiB
    b'\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.',
    b'(cnumpy\nndarray\no}b0.',
    b'cnumpy\nndarray\n(I99999999999\ntR.',            # an array of 800 GB, were it made
    b'I1\n.',                                          # written as text, as pickles were before Python 3
    b'\x80\x02\x8b\x00\x00\x00\x00.',                  # a number of any length
    b'not a pickle',
    b'',
], ids=repr)
def test_crafted_pickles_are_refused(path: Path, content: bytes) -> None:
    write_pickle(path, content)
    with pytest.raises(UserError, match='cannot read the mask file') as caught:
        read_mask_file(path, THREE, NUM_ITEMS)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(('content', 'message'), [
    # As the key of a dict, tuples in tuples in tuples overflow the stack: without a limit the process dies here.
    (b'\x80\x03})' + b'\x85' * 2_000_000 + b'Ns.', 'tuples, far more than arrays need'),
    # Numbers with one and the same hash, which a set takes quadratic time for.
    (b'\x80\x04\x8f(' + b'\x8a\x20' + ((2**61 - 1) << 99).to_bytes(32, 'little') + b'\x90.',
     'a number of more than 64 bits'),
    # t = (t, t), 60 times, as a key: hashing it takes 2 ** 60 steps.
    (b'\x80\x03})' + b''.join(b'q%ch%c\x86' % (n, n) for n in range(60)) + b'Ns.', 'refers to a tuple again'),
    (b'\x80\x04})' + b''.join(b'\x94h%c\x86' % n for n in range(60)) + b'Ns.', 'refers to a tuple again'),
    # The same, with an opcode in between that leaves the tuple where it was.
    (b'\x80\x04})' + b''.join(b'(u\x94h%c\x86' % n for n in range(60)) + b'Ns.', 'refers to a tuple again'),
    (b'\x80\x04})' + b''.join(b'Nb\x94h%c\x86' % n for n in range(60)) + b'Ns.', 'refers to a tuple again'),
    (b'\x80\x04\x8f(\x8b\x20\x00\x00\x00' + ((2**61 - 1) << 99).to_bytes(32, 'little') + b'\x90.', 'it uses LONG4'),
], ids=['deep tuples', 'long numbers', 'doubled tuples', 'doubled tuples, no number', 'doubled tuples, nothing set',
        'doubled tuples, nothing built', 'numbers of any length'])
def test_pickles_that_exhaust_stack_or_time_are_refused(path: Path, content: bytes, message: str) -> None:
    write_pickle(path, content)
    with pytest.raises(UserError, match=message):
        read_mask_file(path, THREE, NUM_ITEMS)


def test_one_array_under_many_keys_does_not_fill_memory(path: Path) -> None:
    array = np.zeros(100_000, dtype=np.uint8)
    write_released(path, {'t' * n: array for n in range(1, 1000)})  # 0.2 MB in the file, 800 MB if they were made
    tracemalloc.start()
    with pytest.raises(UserError, match='it names one array again and again'):
        read_mask_file(path, THREE, NUM_ITEMS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * 2**20


def npz(**arrays: np.ndarray) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.savez(folder / 'missing_0.5.npz', **arrays)
        return folder / 'missing_0.5.npz'
    return write


def released(content: object) -> Callable[[Path], Path]:
    return lambda folder: write_released(folder / 'missing_items_0.5.npy', content)


def raw(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name
    return write


def archive(member: bytes, name: str = 'image.npy', times: int = 1, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, 'w', compression) as opened:
        warnings.simplefilter('ignore')  # that a name is there twice
        for _ in range(times):
            opened.writestr(name, member)
    return file.getvalue()


def bool_header(num_items: int) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {'descr': '|b1', 'fortran_order': False, 'shape': (num_items,)})
    return file.getvalue()


GOOD = np.zeros(NUM_ITEMS, dtype=bool)
SOUND = bool_header(NUM_ITEMS) + bytes(NUM_ITEMS)
BAD_MASKS = {
    'no file': (lambda folder: folder / 'missing_0.1.npz', ['cannot read', 'missing_0.1.npz']),
    'a folder': (lambda folder: [(folder / 'x.npz').mkdir(), folder / 'x.npz'][1], ['cannot read', 'x.npz']),
    'another ending': (raw('missing_0.1.csv', b''), ['is no mask file', 'missing_<ratio>.npz']),
    'unknown modality': (npz(images=GOOD), ["'images'", "did you mean 'image'?", 'audio, image, text']),
    'too short': (npz(image=GOOD[1:]), ["mask of 'image' is bool [7]", 'bool [8] is needed']),
    'too long': (npz(image=np.zeros(10**6, dtype=bool)), ['bool [1000000]', 'bool [8]']),
    'not bool': (npz(image=GOOD.astype(int)), ['int64 [8]', 'bool [8]']),
    'objects in npz': (npz(image=GOOD.astype(object)), ['object [8]', 'bool [8]']),
    'two dimensions': (npz(image=GOOD[None]), ['bool [1, 8]']),
    'no archive': (raw('m.npz', b'text'), ['cannot read', 'm.npz']),
    'empty npz': (raw('m.npz', b''), ['cannot read', 'm.npz']),
    'less than claimed': (raw('m.npz', archive(bool_header(NUM_ITEMS))), ['too early']),
    'far more claimed': (raw('m.npz', archive(bool_header(10**12))), ['bool [1000000000000]']),
    'small archive of much': (raw('m.npz', archive(bytes(10**7))), ['cannot read', 'm.npz']),
    'a name that leads out': (raw('m.npz', archive(SOUND, '../../image.npy')), ["masks '../../image'"]),
    'an absolute name': (raw('m.npz', archive(SOUND, '/etc/image.npy')), ["masks '/etc/image'", 'the set lacks']),
    'one member many times': (raw('m.npz', archive(SOUND, times=1000)), ['two members of one name']),
    'another packing': (raw('m.npz', archive(SOUND, compression=zipfile.ZIP_LZMA)), ['packed in another way']),
    'too large a file': (raw('m.npz', bytes(MAX_BYTES + 1)), ['refused', f'{MAX_BYTES:,}']),
    'plain array as npy': (lambda folder: [np.save(folder / 'm.npy', GOOD), folder / 'm.npy'][1],
                           ['holds bool', 'm.npy']),
    'empty npy': (raw('m.npy', b''), ['cannot read', 'm.npy']),
    'no dict': (released([1, 2]), ['cannot read']),
    'numbers as keys': (released({1: ids(1)}), ['names as keys']),
    'unknown key': (released({'x': ids(1)}), ["unknown key 'x'", 't (text)']),
    'empty key': (released({'': ids(1)}), ["unknown key ''"]),
    'item out of range': (released({'v': ids(1, 8, 9)}), ["item 8 under 'v'", '2 such', '8 items']),
    'item out of range, modality not there': (released({'t': ids(-1)}), ["item -1 under 't'"]),
    'fractions': (released({'v': np.array([0.5])}), ['f8 [1]', 'item ids']),
    'nested arrays': (released({'v': np.array([[1]])}), ['i8 [1, 1]']),
    'texts': (released({'v': ['a']}), ['list', 'item ids']),
    'text': (released({'v': 'abc'}), ['str', 'item ids']),
}


@pytest.mark.parametrize(('make', 'words'), BAD_MASKS.values(), ids=BAD_MASKS.keys())
def test_bad_mask_is_one_line(tmp_path: Path, make: Callable[[Path], Path], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        read_mask_file(make(tmp_path), THREE, NUM_ITEMS)
    message = str(caught.value)
    assert '\n' not in message
    for word in words:
        assert word in message


def test_letters_without_their_modalities(path: Path) -> None:
    write_released(path, {'v': ids(1), 'all': ids(2)})
    with pytest.raises(UserError, match=r'smell, taste; give its masks as missing_<ratio>\.npz'):
        read_mask_file(path, ['smell', 'taste'], NUM_ITEMS)


def test_masks_are_written_as_npz_only(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not as 'missing_0\.5\.npy'"):
        write_mask_file(tmp_path / 'missing_0.5.npy', {'image': torch.from_numpy(GOOD)})
    with pytest.raises(UserError, match='cannot write'):
        write_mask_file(tmp_path / 'nowhere' / 'missing_0.5.npz', {'image': torch.from_numpy(GOOD)})


@pytest.mark.parametrize('mask', [np.arange(4), torch.tensor([0.0, 1.0]), np.zeros((2, 2), dtype=bool)])
def test_only_bool_masks_are_written(tmp_path: Path, mask: object) -> None:
    path = tmp_path / 'missing_0.5.npz'
    with pytest.raises(UserError, match='give a bool per item'):
        write_mask_file(path, {'text': mask})
    assert not path.exists()


def test_numpy_masks_are_written(tmp_path: Path) -> None:
    mask = np.array([True, False, True])
    write_mask_file(tmp_path / 'missing_0.5.npz', {'text': mask})
    assert read_mask_file(tmp_path / 'missing_0.5.npz', ['text'], 3)['text'].tolist() == mask.tolist()
