"""The comparison of the project's own settings with the released ones, at a small size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import default_mode
import numpy as np
import pytest

from dgmrec_pyg.loading import RunSettings

BENCHMARKS = Path(__file__).resolve().parent.parent / 'benchmarks'


@pytest.fixture(scope='module')
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Where a small comparison has left its runs and its results."""
    runs, output = tmp_path_factory.mktemp('runs'), tmp_path_factory.mktemp('output')
    call(runs, output)
    return runs, output


def call(runs: Path, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(BENCHMARKS.parent), os.environ.get('PYTHONPATH', '')])
    command = [sys.executable, str(BENCHMARKS / 'default_mode.py'), '--dataset', 'synthetic', '--seeds', '3',
               '--epochs', '2', '--recall', '0.01', '--runs', str(runs), '--output', str(output), *options]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': path}, check=False)


def test_results_are_those_of_the_runs(folders: tuple[Path, Path]) -> None:
    runs, output = folders
    report = json.loads((output / 'default-mode-synthetic.json').read_text())
    users = default_mode.TestUsers(RunSettings())
    for preset in ('reference', 'default'):
        metrics = json.loads((runs / f'synthetic-{preset}-3' / 'metrics.json').read_text())
        cell, = report['cells'][preset]
        assert cell['test'] == metrics['test']['recall@20']
        of_users = users.metrics(runs / f'synthetic-{preset}-3')
        assert of_users['recall@20'].mean() == pytest.approx(cell['test'], abs=1e-6)
        assert of_users['ndcg@20'].mean() == pytest.approx(cell['test_ndcg'], abs=1e-6)
        assert (cell['seed'], cell['epochs'], cell['epochs_to_recall']) == (3, 2, 1)
    assert report['tests']['recall@20']['mean_difference'] == pytest.approx(
        report['cells']['default'][0]['test'] - report['cells']['reference'][0]['test'], abs=1e-6)
    assert '| default | 3 |' in (output / 'default-mode-synthetic.md').read_text()


def test_settings_stand_apart_by_what_is_missing(folders: tuple[Path, Path]) -> None:
    runs, output = folders
    process = call(runs, output, '--missing-ratio', '0.2', '--new-items')
    assert process.returncode == 0, process.stderr
    config = json.loads((runs / 'synthetic-ratio0.2-new-items-default-3' / 'config.json').read_text())
    assert (config['run']['missing_ratio'], config['run']['new_items']) == (0.2, True)
    report = json.loads((output / 'default-mode-synthetic-ratio0.2-new-items.json').read_text())
    metrics = json.loads((runs / 'synthetic-ratio0.2-new-items-default-3' / 'metrics.json').read_text())
    assert report['cells']['default'][0]['test'] == metrics['test']['recall@20']
    assert report['tests']['ndcg@20']['users'] > 0


def test_finished_runs_are_not_run_again(folders: tuple[Path, Path]) -> None:
    runs, output = folders
    before = {path: path.stat().st_mtime_ns for path in runs.rglob('*')}
    process = call(runs, output)
    assert process.returncode == 0, process.stderr
    assert 'running' not in process.stderr
    assert {path: path.stat().st_mtime_ns for path in runs.rglob('*')} == before


def test_an_unknown_set_is_one_line(tmp_path: Path) -> None:
    process = call(tmp_path, tmp_path, '--dataset', 'nothing', '--root', str(tmp_path))
    assert process.returncode == 2
    assert process.stderr.startswith('error: ')
    assert process.stderr.count('\n') == 1


def test_runs_of_other_settings_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    process = call(folders[0], tmp_path, '--epochs', '3')
    assert process.returncode == 2
    assert 'was made with epochs 2, now it is 3' in process.stderr
    assert process.stderr.count('\n') == 1


def test_epochs_to_a_recall_count_those_without_an_evaluation(tmp_path: Path) -> None:
    (tmp_path / 'config.json').write_text(json.dumps({'run': {'seed': 0}}))
    metrics = {'recall@20': 0.2, 'ndcg@20': 0.1}
    (tmp_path / 'metrics.json').write_text(json.dumps({'val': metrics, 'test': metrics, 'best_epoch': 4, 'seconds': 1}))
    records = [{'epoch': epoch, 'val': {'recall@20': epoch / 20} if epoch % 2 == 0 else None} for epoch in range(1, 5)]
    (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(record) + '\n' for record in records))
    cell = default_mode.read_cell(tmp_path, 0.15)
    assert (cell['epochs'], cell['epochs_to_recall']) == (4, 4)


def test_the_tests_over_users() -> None:
    random = np.random.default_rng(0)
    released = [random.random(400) for _ in range(3)]
    better = {'reference': released, 'default': [x + 0.1 + 0.05 * random.standard_normal(400) for x in released]}
    found = default_mode.compare(better)
    assert found['users'] == 400
    assert found['low'] < 0.1 < found['high']
    assert max(found['t_test_p'], found['wilcoxon_p']) < 1e-6
    same = default_mode.compare({'reference': released, 'default': released})
    assert (same['mean_difference'], same['t_test_p'], same['wilcoxon_p']) == (0.0, 1.0, 1.0)
    # The interval of the mean is that of the differences, not of the two metrics by themselves.
    assert found['high'] - found['low'] < 0.02
