"""The benchmarks that compare models, each run whole at a small size."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark_case import NAMES, QUICK, SCRIPTS, write_set

from dgmrec_pyg.config import DGMRecConfig
from dgmrec_pyg.experiment import Result, build_model
from dgmrec_pyg.loading import RunSettings, load_data
from dgmrec_pyg.results import CELLS, read_results

CELLS_OF = {
    'missing_ratio': (['--models', 'dgmrec', 'popularity', '--ratios', '0', '0.5'], 8),
    'missing_level': (['--models', 'lightgcn', 'popularity'], 12),
    'new_items': (['--models', 'dgmrec', 'popularity', '--ratios', '0.5'], 4),
    'ablation': (['--missing-ratio', '0.6', '--without', 'generation', 'CLUB', 'noise', 'graph refresh'], 6),
    'compare': (['--models', 'dgmrec', 'popularity', 'lightgcn'], 6),
    'retrieval': (['--missing-ratio', '0.6'], 2),
}
"""Arguments of each benchmark, and the number of cells that these come to with two seeds."""

Finished = Callable[[str], Path]


@pytest.fixture(scope='module')
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp('sets') / 'small')


@pytest.fixture(scope='module')
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Runs a benchmark whole, once for all tests, and returns the folder of its results."""
    @cache
    def run_whole(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        assert SCRIPTS[name].main(whole_run(name, dataset, folder)) == 0
        return folder
    return run_whole


def whole_run(name: str, dataset: Path, folder: Path) -> list[str]:
    """The arguments of a whole run."""
    return ['--dataset', str(dataset), '--seeds', '0', '1', '--out', str(folder), *QUICK, *CELLS_OF[name][0]]


@pytest.mark.parametrize('name', NAMES)
def test_a_whole_run_leaves_results_tables_and_plots(name: str, finished: Finished) -> None:
    folder = finished(name)
    results = read_results(folder)
    assert results.header.benchmark == name
    assert results.header.dataset == 'small'
    assert len(results.done) == len(results.cells) == CELLS_OF[name][1]
    for cell in results.cells:
        assert 0 <= cell.test(results.header.metrics[0]) <= 1
        assert cell.configuration['training']['epochs'] == 2
        assert cell.data_hash
        assert cell.versions['torch']
        assert cell.threads == 1
        assert cell.seconds > 0
    assert (folder / f'{name}.png').read_bytes().startswith(b'\x89PNG')
    with open(folder / 'cells.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['seed'] for row in rows] == [str(cell.cell['seed']) for cell in results.cells]
    metric = results.header.metrics[0]
    assert [float(row[f'test {metric}']) for row in rows] == pytest.approx(
        [cell.test(metric) for cell in results.cells], rel=1e-5)


@pytest.mark.parametrize('name', NAMES)
def test_tables_hold_the_means_over_seeds(name: str, finished: Finished) -> None:
    folder = finished(name)
    results, table = read_results(folder), (folder / 'table.md').read_text()
    if name == 'retrieval':  # one model: each search has a mean
        group = next(iter(results.cells[0].groups))
        shown = [cell.test('mrr', group) for cell in results.cells]
    else:
        place = {key: value for key, value in results.cells[0].cell.items() if key != 'seed'}
        shown = [cell.test('recall@20') for cell in results.select(**place)]
    assert len(shown) == 2
    assert f'{np.mean(shown):.4f} ± {np.std(shown, ddof=1):.4f}' in table


@pytest.mark.parametrize('name', [name for name in NAMES if name != 'retrieval'])
def test_users_metrics_are_those_of_the_cell(name: str, finished: Finished) -> None:
    results = read_results(finished(name))
    for cell in results.cells:
        users = results.users(cell)
        assert users['user'].tolist() == sorted(set(users['user'].tolist()))
        for metric in results.header.metrics:
            assert users[metric].mean() == pytest.approx(cell.test(metric), abs=1e-6)


@pytest.mark.parametrize('name', NAMES)
def test_finished_cells_are_skipped(name: str, finished: Finished, dataset: Path,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    folder, count = finished(name), CELLS_OF[name][1]
    before = (folder / CELLS).read_bytes()
    capsys.readouterr()
    assert SCRIPTS[name].main(whole_run(name, dataset, folder)) == 0
    assert f'{count} of {count} cells are done already' in capsys.readouterr().out
    assert (folder / CELLS).read_bytes() == before


@pytest.mark.parametrize('name', NAMES)
def test_a_torn_file_costs_its_last_cell_alone(name: str, finished: Finished,
                                               dataset: Path, tmp_path: Path,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / name
    shutil.copytree(finished(name), folder)
    whole = (folder / CELLS).read_bytes()
    (folder / CELLS).write_bytes(whole[:whole.rindex(b'\n', 0, -1) + 50])
    before = read_results(finished(name)).cells
    assert SCRIPTS[name].main(whole_run(name, dataset, folder)) == 0
    assert f'{len(before) - 1} of {len(before)} cells are done already' in capsys.readouterr().out
    *kept, again = read_results(folder).cells
    assert kept == before[:-1]
    assert replace(again, seconds=0.0) == replace(before[-1], seconds=0.0)  # the same numbers once more
    assert (folder / 'cells.csv').read_text().count('\n') == 1 + len(before)


def test_retention_is_taken_seed_by_seed(finished: Finished) -> None:
    results = read_results(finished('missing_ratio'))
    kept = SCRIPTS['missing_ratio'].retention(results, 'recall@20')
    for model in ('dgmrec', 'popularity'):
        value = {(cell.cell['missing_ratio'], cell.cell['seed']): cell.test('recall@20')
                 for cell in results.select(model=model)}
        assert kept[model][0.0].mean == 1.0
        assert kept[model][0.5].mean == pytest.approx(np.mean([value[0.5, seed] / value[0.0, seed] for seed in (0, 1)]))
    assert kept['popularity'][0.5].mean == 1.0  # it sees no features


def test_the_strongest_peer_is_marked(finished: Finished) -> None:
    folder = finished('compare')
    results = read_results(folder)
    mean = {model: np.mean([cell.test('recall@20') for cell in results.select(model=model)])
            for model in ('popularity', 'lightgcn')}
    table = (folder / 'table.md').read_text()
    assert f'| {max(mean, key=mean.get)} (strongest peer) |' in table
    assert table.count('strongest peer)') == 1


def test_variants_of_the_ablation_differ_by_their_part(finished: Finished) -> None:
    results = read_results(finished('ablation'))
    assert set(results.values('variant')) == {'full', 'without generation', 'without graph refresh'}  # others are off
    configuration = {variant: results.select(variant=variant)[0].configuration['model']
                     for variant in results.values('variant')}
    changed = {key for key, value in configuration['without graph refresh'].items()
               if configuration['full'][key] != value}
    assert changed == {'graph_refresh_rate'}
    hidden = [cell.generation['image']['all']['cosine'] for cell in results.select(variant='without generation')]
    assert all(cosine['generated'] == pytest.approx(cosine['imputed'], abs=1e-3) for cosine in hidden)


def test_retrieval_knows_the_truth_when_it_sees_it(dataset: Path) -> None:
    """A model that generates the truth finds it; one that generates that of another item does not."""
    retrieval = SCRIPTS['retrieval']
    data = load_data(RunSettings(dataset=str(dataset), missing_ratio=0.6))
    model = build_model(data, 'dgmrec', DGMRecConfig(hidden_channels=8), 0, torch.device('cpu'))
    truth = {m: data['item'][f'x_{m}'] for m in ('image', 'text')}
    with torch.no_grad():
        for m, x in truth.items():
            model.feature_tables[m].copy_(x / model.scale[m])
    found, groups = retrieval.judge(data, Result(model, None, {}))
    assert found['recall@1'] == 1.0
    assert groups['image to text: mean']['test'] == pytest.approx(groups['image to text: chance']['test'])
    with torch.no_grad():
        for m, x in truth.items():
            model.feature_tables[m].copy_(x.roll(1, dims=0) / model.scale[m])
    assert retrieval.judge(data, Result(model, None, {}))[0]['recall@1'] < 0.3
    hidden = {m: data['item'][f'missing_{m}'] for m in truth}
    assert groups['image to text: ridge']['queries'] == int((hidden['text'] & ~hidden['image']).sum())
