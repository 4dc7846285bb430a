"""Tests of dgmrec_pyg.export and dgmrec_pyg.exporting."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from finished_run import ITEM_IDS, USER_IDS, make_run
from small_set import SIZES

from dgmrec_pyg.datasets.raw_ids import read_raw_ids
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.export import main
from dgmrec_pyg.exporting import FORMATS, export_run, filled_tables
from dgmrec_pyg.inference import FinishedRun, load_run
from dgmrec_pyg.schema import item_features, missing_mask

Output = pytest.CaptureFixture[str]
ARRAYS = {'user_embedding', 'item_embedding',
          *(f'{m}_{kind}' for m in SIZES for kind in ('feat', 'missing', 'generated'))}


@pytest.fixture(scope='module')
def run(finished: Path) -> FinishedRun:
    return load_run(finished)


def read(folder: Path, kind: str) -> dict[str, np.ndarray]:
    if kind == 'npy':
        return {path.stem: np.load(path) for path in folder.glob('*.npy')}
    if kind == 'safetensors':
        from safetensors.numpy import load_file
        return load_file(folder / 'arrays.safetensors')
    frames = [pd.read_parquet(folder / f'{kind}s.parquet') for kind in ('user', 'item')]
    assert [frame.iloc[3, 1] for frame in frames] == ['u003', 'i003']
    return {name: np.stack(frame[name]) for frame in frames for name in frame if name in ARRAYS}


@pytest.mark.parametrize('kind', FORMATS)
def test_each_format_holds_the_same(kind: str, run: FinishedRun, tmp_path: Path) -> None:
    if kind != 'npy':
        pytest.importorskip({'safetensors': 'safetensors', 'parquet': 'pyarrow'}[kind])
    files = export_run(run, tmp_path / 'out', kind)
    found = read(tmp_path / 'out', kind)
    assert found.keys() == ARRAYS
    user, item = run.model.embed()
    np.testing.assert_array_equal(found['user_embedding'], user.numpy())
    np.testing.assert_array_equal(found['item_embedding'], item.numpy())
    for name, array in filled_tables(run).items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert set(files) == set((tmp_path / 'out').iterdir())


def test_ids_beside_the_rows_are_read_as_those_of_a_set(run: FinishedRun, tmp_path: Path) -> None:
    export_run(run, tmp_path / 'out')
    assert read_raw_ids(tmp_path / 'out', 'user', len(USER_IDS)) == (USER_IDS, None)
    assert read_raw_ids(tmp_path / 'out', 'item', len(ITEM_IDS)) == (ITEM_IDS, run.data.item_name)
    with open(tmp_path / 'out' / 'items.csv', encoding='utf-8', newline='') as file:
        assert next(csv.reader(file)) == ['itemID', 'item', 'name']
    described = json.loads((tmp_path / 'out' / 'export.json').read_text())
    assert described['arrays']['user_embedding'] == ['float32', 40, 8]
    assert described['model'] == 'dgmrec'


def test_observed_rows_are_the_sets_own_and_others_are_generated(run: FinishedRun) -> None:
    tables = filled_tables(run)
    for m in SIZES:
        missing = missing_mask(run.data, m).numpy()
        np.testing.assert_array_equal(tables[f'{m}_missing'], missing)
        np.testing.assert_array_equal(tables[f'{m}_feat'][~missing], item_features(run.data, m).numpy()[~missing])
        np.testing.assert_array_equal(tables[f'{m}_feat'][missing], run.model.features(m).numpy()[missing])
        np.testing.assert_array_equal(tables[f'{m}_generated'], missing)
        assert missing.any()


def test_what_the_model_does_not_generate_is_imputed(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path, '--set', 'generate_for=single'))
    tables = filled_tables(run)
    both = missing_mask(run.data, 'image').numpy() & missing_mask(run.data, 'text').numpy()
    for m in SIZES:
        missing = tables[f'{m}_missing']
        np.testing.assert_array_equal(tables[f'{m}_generated'], missing & ~both)
        mean = item_features(run.data, m).numpy()[~missing].mean(axis=0)
        np.testing.assert_allclose(tables[f'{m}_feat'][both], np.tile(mean, (both.sum(), 1)), atol=1e-6)
    assert both.any()


def test_hidden_features_do_not_go_out(run: FinishedRun) -> None:
    spoilt = run.data.clone()
    for m in SIZES:
        missing = missing_mask(run.data, m).unsqueeze(1)
        spoilt['item'][f'x_{m}'] = item_features(run.data, m).masked_fill(missing, math.nan)
    before, after = filled_tables(run), filled_tables(FinishedRun(run.path, run.run, spoilt, run.model))
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def test_another_model_imputes(tmp_path: Path) -> None:
    tables = filled_tables(load_run(make_run(tmp_path, model='lightgcn')))
    assert not any(tables[f'{m}_generated'].any() for m in SIZES)
    assert all(np.isfinite(tables[f'{m}_feat']).all() for m in SIZES)


def test_a_search_of_the_index_finds_what_the_run_recommends(run: FinishedRun, tmp_path: Path) -> None:
    faiss = pytest.importorskip('faiss')
    export_run(run, tmp_path / 'out', index=True)
    users = np.load(tmp_path / 'out' / 'user_embedding.npy')
    scores, items = faiss.read_index(str(tmp_path / 'out' / 'items.faiss')).search(users, 6)
    expected = run.recommend(k=6, exclude_seen=False)
    assert run.item_ids[items.reshape(-1)].tolist() == expected['item'].tolist()
    np.testing.assert_allclose(scores.reshape(-1), expected['score'], atol=1e-5)


SCORE = """
import sys
for package in ('dgmrec_pyg', 'torch_geometric'):
    sys.modules[package] = None  # Whoever imports it gets an ImportError.
import numpy, torch
score = torch.export.load('scorer.pt2').module()
users = torch.arange(40)
numpy.savez('scores.npz', all=score(users), one=score(users[7:8]))
"""


def test_the_scorer_runs_where_this_package_is_not(run: FinishedRun, tmp_path: Path) -> None:
    export_run(run, tmp_path / 'out', scorer=True)
    answer = subprocess.run([sys.executable, '-c', SCORE], cwd=tmp_path / 'out', capture_output=True, text=True,
                            check=False)
    assert answer.returncode == 0, answer.stderr
    expected = run.model.scorer()(torch.arange(40)).numpy()
    with np.load(tmp_path / 'out' / 'scores.npz') as found:
        np.testing.assert_allclose(found['all'], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found['one'], expected[7:8], rtol=1e-5, atol=1e-6)


def test_the_command(run: FinishedRun, tmp_path: Path, capsys: Output) -> None:
    assert main(['--run', str(run.path), '--output', str(tmp_path / 'out')]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"written to {tmp_path / 'out'}"
    assert {line.split()[0] for line in shown[1:]} == {path.name for path in (tmp_path / 'out').iterdir()}
    assert main(['--run', str(run.path), '--output', str(tmp_path / 'out')]) == 2
    assert 'is not empty; give another --output' in capsys.readouterr().err


def test_bad_arguments(run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    with pytest.raises(UserError, match="unknown format 'hdf5'"):
        export_run(run, tmp_path / 'out', 'hdf5')
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    for kind, index, extra in (('parquet', False, 'parquet'), ('safetensors', False, 'safetensors'),
                               ('npy', True, 'ann')):
        with pytest.raises(UserError, match=rf'needs? \w+: pip install "dgmrec-pyg\[{extra}\]"'):
            export_run(run, tmp_path / 'out', kind, index)
    monkeypatch.undo()
    assert main(['--run', str(run.path)]) == 2
    assert 'the following arguments are required: --output' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_model_without_embeddings_leaves_nothing(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path, model='popularity'))
    with pytest.raises(UserError, match='Popularity has no embeddings'):
        export_run(run, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
