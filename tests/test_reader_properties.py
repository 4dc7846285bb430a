"""Properties of everything that reads files and settings: valid content comes back, the rest gives one line."""

from __future__ import annotations

import io
import json
import pickle
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from dgmrec_pyg.config import DGMRecConfig, Settings, TrainingConfig, parse_settings
from dgmrec_pyg.datasets import read_mask_file, read_mmrec, write_mask_file
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.loading import RunSettings

NUM_ITEMS = 6
LETTERS = {'a': 'audio', 't': 'text', 'v': 'image'}
thorough = settings(max_examples=100, deadline=None, derandomize=True)


@contextmanager
def new_set(inter: bytes = b'userID\titemID\tx_label\n0\t0\t0\n', image: bytes | None = None) -> Iterator[Path]:
    """A set in a folder of its own: hypothesis calls a test many times, so that fixtures do not serve."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, 'toy')
        folder.mkdir()
        (folder / 'toy.inter').write_bytes(inter)
        np.save(folder / 'image_feat.npy', np.ones((NUM_ITEMS, 2)))
        if image is not None:
            (folder / 'image_feat.npy').write_bytes(image)
        yield folder


def data_or_one_line(read: Callable[[], Any]) -> Any:
    """What was read; None, having looked at the message, where it was refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # repeated lines
            return read()
    except UserError as error:
        message = str(error)
    assert len(message.splitlines()) == 1
    return None


# Interactions #########################################################################################################

sound_cells = st.integers(0, NUM_ITEMS - 1).map(str)
odd_cells = st.text(max_size=4) | st.sampled_from([
    '', 'nan', 'NA', 'inf', '-1', '1e3', '1.0', '0.5', 'x', '"', '"1"', '1_0', '0x1', 'True', '٣', '1 ', ' 2', '1,0',
    '\x00', '2147483648', '9' * 30, '1e400', '\ufeff1'])


@thorough
@given(rows=st.lists(st.tuples(*[sound_cells | odd_cells] * 3), max_size=8),
       line_end=st.sampled_from(['\n', '\r\n', '\r']), encoding=st.sampled_from(['utf-8', 'utf-8-sig', 'utf-16']))
def test_any_table_of_interactions(rows: list[tuple[str, ...]], line_end: str, encoding: str) -> None:
    text = line_end.join('\t'.join(row) for row in [('userID', 'itemID', 'x_label'), *rows])
    with new_set(text.encode(encoding, errors='replace')) as folder:
        data = data_or_one_line(lambda: read_mmrec(folder))
    if data is not None:
        edges = data['user', 'interacts', 'item'].edge_index
        assert edges.numel() > 0
        assert edges.min() >= 0
        assert edges[1].max() < NUM_ITEMS


@thorough
@given(st.sets(st.tuples(st.integers(0, 9), st.integers(0, NUM_ITEMS - 1)), min_size=1),
       st.permutations(['userID', 'itemID', 'x_label', 'rating']), st.randoms(use_true_random=False))
def test_sound_interactions_come_back(pairs: set[tuple[int, int]], columns: list[str], random: Any) -> None:
    label = {pair: random.choice([0, 1, 2]) for pair in pairs}
    label[min(pairs)] = 0  # training must not be empty
    lines = ['\t'.join(columns)]
    for (user, item), split in label.items():
        values = {'userID': user, 'itemID': item, 'x_label': split, 'rating': 4.5}
        lines.append('\t'.join(str(values[name]) for name in columns))
    assume(max(user for user, _ in pairs) < 10 * len(pairs))
    with new_set('\n'.join(lines).encode()) as folder:
        edges = read_mmrec(folder)['user', 'interacts', 'item']
    for split, key in enumerate(['edge_index', 'val_edge_label_index', 'test_edge_label_index']):
        found = {tuple(pair) for pair in edges[key].t().tolist()}
        assert found == {pair for pair, of in label.items() if of == split}


# Features #############################################################################################################


@pytest.mark.filterwarnings('ignore:Stored array in format 3.0')
@thorough
@given(st_numpy.arrays(st_numpy.scalar_dtypes() | st_numpy.array_dtypes(max_size=2),
                       st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=NUM_ITEMS)),
       st.sampled_from('CF'))
def test_any_array_as_features(array: np.ndarray, order: Any) -> None:
    file = io.BytesIO()
    np.save(file, np.asarray(array, order=order), allow_pickle=False)
    with new_set(image=file.getvalue()) as folder:
        data = data_or_one_line(lambda: read_mmrec(folder))
    if data is None:
        return
    with np.errstate(over='ignore'):
        expected = array.astype(np.float32)
    assert np.array_equal(data['item'].x_image.numpy(), expected, equal_nan=True)
    assert data['item'].missing_image.tolist() == np.isnan(expected).all(axis=1).tolist()


# Masks ################################################################################################################

mask_arrays = st_numpy.arrays(st_numpy.boolean_dtypes(), NUM_ITEMS)
members = st.dictionaries(
    st.sampled_from(['image', 'image.npy', 'text.npy', '../image.npy', '/image', '', 'x.npy']) | st.text(max_size=5),
    st.binary(max_size=300) | mask_arrays, max_size=4)


@pytest.mark.filterwarnings('ignore:Duplicate name')
@thorough
@given(members, st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
def test_any_archive_as_masks(content: dict[str, Any], compression: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'missing_0.5.npz')
        with zipfile.ZipFile(path, 'w', compression) as archive:
            for name, value in content.items():
                with archive.open(name.replace('\x00', '') or 'image', 'w') as member:
                    np.save(member, value) if isinstance(value, np.ndarray) else member.write(value)
        masks = data_or_one_line(lambda: read_mask_file(path, ['image', 'text'], NUM_ITEMS))
        assert [entry.name for entry in Path(folder).iterdir()] == [path.name]
    if masks is not None:
        assert {name: mask.shape for name, mask in masks.items()} == dict.fromkeys(['image', 'text'], (NUM_ITEMS,))


@thorough
@given(st.dictionaries(st.sampled_from(['image', 'text', 'audio']), mask_arrays))
def test_written_masks_come_back(masks: dict[str, np.ndarray]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'missing_0.5.npz')
        write_mask_file(path, masks)
        found = read_mask_file(path, ['image', 'text', 'audio'], NUM_ITEMS)
    for name, mask in found.items():
        assert torch.equal(mask, torch.from_numpy(masks.get(name, np.zeros(NUM_ITEMS, dtype=bool))))


def pickled(content: object, protocol: int) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {'descr': '|O', 'fortran_order': False, 'shape': ()})
    return file.getvalue() + pickle.dumps(np.array(content, dtype=object), protocol=protocol)


leaves = (st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3)
          | st.complex_numbers() | st.dates()
          | st_numpy.arrays(st_numpy.scalar_dtypes(), st_numpy.array_shapes(max_dims=2, max_side=3)))
keys = st.sampled_from(['t', 'v', 'tv', 'all', 'x', ''])
objects = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner)
                       | st.dictionaries(keys, inner, max_size=3), max_leaves=8)


@thorough
@given(objects | st.dictionaries(st.sampled_from(['t', 'a', 'va', 'all']), leaves), st.integers(0, 5))
def test_any_pickle_as_masks(content: object, protocol: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'missing_items_0.5.npy')
        path.write_bytes(pickled(content, protocol))
        masks = data_or_one_line(lambda: read_mask_file(path, ['image', 'text'], NUM_ITEMS))
    assert masks is None or masks['image'].shape == (NUM_ITEMS,)


@thorough
@given(st.dictionaries(st.sampled_from(['t', 'v', 'a', 'tv', 'ta', 'va', 'all']),
                       st.lists(st.integers(0, NUM_ITEMS - 1), max_size=4)), st.integers(3, 4),
       st.sampled_from([list, tuple, lambda items: np.array(items, '<i8'), lambda items: np.array(items, '>u2')]))
def test_released_masks_come_back(items_of_key: dict[str, list[int]], protocol: int, kind: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'missing_items_0.5.npy')
        path.write_bytes(pickled({key: kind(items) for key, items in items_of_key.items()}, protocol))
        masks = read_mask_file(path, sorted(LETTERS.values()), NUM_ITEMS)
    for letter, name in LETTERS.items():
        lacking = {item for key, items in items_of_key.items() if key == 'all' or letter in key for item in items}
        assert set(masks[name].nonzero().flatten().tolist()) == lacking


# Settings #############################################################################################################

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2), max_leaves=4)
KNOWN = [*DGMRecConfig().to_dict(), *TrainingConfig().to_dict()]


@thorough
@given(st.sampled_from([DGMRecConfig, TrainingConfig]),
       st.dictionaries(st.sampled_from(KNOWN) | st.text(max_size=5), json_values, max_size=3))
def test_any_json_as_settings(kind: type[Settings], values: dict[str, Any]) -> None:
    found = data_or_one_line(lambda: kind.from_dict(values))
    if found is not None:
        assert found.to_dict().items() >= values.items()
        assert kind.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@thorough
@given(st.dictionaries(st.sampled_from(list(RunSettings.__dataclass_fields__)), json_values, max_size=3))
def test_any_json_as_a_run(values: dict[str, Any]) -> None:
    found = data_or_one_line(lambda: RunSettings.from_json(values))
    assert found is None or 0 <= found.seed < 2**32


@thorough
@given(st.lists(st.tuples(st.sampled_from(KNOWN) | st.text(max_size=5),
                          json_values.map(json.dumps) | st.text(max_size=8)).map('='.join), max_size=3))
def test_any_text_after_set(pairs: list[str]) -> None:
    found = data_or_one_line(lambda: parse_settings(pairs, DGMRecConfig(), TrainingConfig()))
    if found is not None:
        assert parse_settings([f'{key}={json.dumps(value)}' for part in found for key, value in part.to_dict().items()],
                              DGMRecConfig(), TrainingConfig()) == found


@pytest.mark.parametrize('config', [DGMRecConfig(), TrainingConfig()])
@thorough
@given(data=st.data())
def test_a_valid_value_is_taken_as_it_is(config: Settings, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([key for key, value in config.to_dict().items() if type(value) in (int, float)]))
    kind = type(config.to_dict()[name])
    value = data.draw(st.integers(1, 2**31 - 1) if kind is int else st.floats(0.001, 1))
    assert parse_settings([f'{name}={value}'], config) == (config.replace(**{name: value}),)
