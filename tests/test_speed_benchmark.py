"""The speed benchmark at its smallest size, and the sets that it makes; no time is judged."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from dgmrec_pyg import memory
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.memory import available_bytes
from dgmrec_pyg.schema import INTERACTS, ITEM, item_features, missing_matrix, modality_names, training_edges

BENCHMARKS = Path(__file__).resolve().parent.parent / 'benchmarks'
PARTS = {'epoch', 'evaluation', 'item_graphs', 'generation', 'refresh'}


@pytest.fixture(scope='module', autouse=True)
def package_in_other_processes() -> Iterator[None]:
    """Lets scripts find the package where it is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYTHONPATH', str(BENCHMARKS.parent), prepend=os.pathsep)
        yield


@pytest.fixture(scope='module')
def modules() -> Iterator[dict[str, ModuleType]]:
    """The modules of the benchmark that are used without a process of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import shapes
        import speed
        import speed_report
        yield {'shapes': shapes, 'speed': speed, 'speed_report': speed_report}


@pytest.fixture(scope='module')
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, Path]:
    """The report of the smallest run, what it printed, and where it wrote."""
    folder = tmp_path_factory.mktemp('results')
    answer = subprocess.run([sys.executable, str(BENCHMARKS / 'speed.py'), '--smoke', '--device', 'cpu', '--threads',
                             '1', '--output', str(folder)], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return json.loads((folder / 'speed-smoke.json').read_text(encoding='utf-8')), answer.stdout, folder


def test_smoke_report_is_complete(smoke: tuple[dict[str, Any], str, Path]) -> None:
    report = smoke[0]
    assert report.keys() == {'dataset', 'preset', 'machine', 'released', 'targets', 'versions', 'unit'}
    assert report['machine'].keys() == {'cpu', 'cores', 'torch', 'python', 'gpu', 'load_average'}
    assert report['versions'].keys() == {'package', 'textbook'}
    for version in report['versions'].values():
        assert version['seconds'].keys() == version['units'].keys() == PARTS
        assert all(value > 0 for value in version['seconds'].values())
        assert version['threads'] == 1
        assert version['steps_timed'] == version['steps_per_epoch']
        assert version['set'] == {'num_users': 120, 'num_items': 80, 'num_train': 900,
                                  'features': {'image': 12, 'text': 8}}
    unit = report['unit']
    assert unit['lowest'] <= unit['seconds'] <= unit['highest']
    # Before and after the epochs, and between all other parts.
    assert unit['measurements'] == sum(len(v['unit_seconds']) for v in report['versions'].values()) == 14


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='peak memory is read from /proc')
def test_smoke_is_a_set_of_its_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import speed

    assert speed.main(['--smoke', '--dataset', 'nope', '--output', str(tmp_path)]) == 2
    assert 'leave out --dataset' in capsys.readouterr().err


def test_what_a_set_has_no_figures_for_takes_no_column(smoke: tuple[dict[str, Any], str, Path]) -> None:
    assert 'target' not in smoke[1].splitlines()[4]
    assert 'textbook/package' in smoke[1]


def test_smoke_measures_memory(smoke: tuple[dict[str, Any], str, Path]) -> None:
    for version in smoke[0]['versions'].values():
        assert 0 < version['library_bytes'] < version['peak_bytes']


def test_smoke_shows_a_row_per_part_and_a_plot(smoke: tuple[dict[str, Any], str, Path]) -> None:
    _, shown, folder = smoke
    for title in ('training epoch', 'evaluation of one split', 'item graphs', 'generation', 'refresh',
                  'Peak memory of the package', 'Peak memory of the textbook'):
        assert sum(line.startswith(title) for line in shown.splitlines()) == 1, title
    pytest.importorskip('matplotlib')
    assert (folder / 'speed-smoke.png').stat().st_size > 1000


def test_table_names_yardsticks_and_extrapolation(modules: dict[str, ModuleType],
                                                  smoke: tuple[dict[str, Any], str, Path]) -> None:
    show = modules['speed_report']
    package = {**smoke[0]['versions']['package'], 'units': dict.fromkeys(PARTS, 100.0), 'peak_bytes': 600e6}
    textbook = {**package, 'units': dict.fromkeys(PARTS, 250.0), 'steps_timed': 3, 'steps_per_epoch': 58}
    report = {**smoke[0], 'versions': {'package': package, 'textbook': textbook},
              'released': show.RELEASED['tiktok'], 'targets': show.TARGETS['tiktok']}
    lines = {line.split('  ')[0]: line.split() for line in show.speed_table(report).splitlines()}
    assert lines['training epoch'][-7:] == ['100.0', '250.0', '2.5', '440', '4.4', '110', 'yes']
    assert lines['evaluation of one split'][-5:] == ['2.5', '73', '0.7', '12', 'no']
    assert 'target 590' in show.speed_table(report)
    assert "textbook's epoch is extrapolated from 3 of its 58 steps" in show.speed_table(report)


def test_made_set_has_its_sizes_and_every_user_its_interactions(modules: dict[str, ModuleType]) -> None:
    shapes = modules['shapes']
    shape = dataclasses.replace(shapes.BABY, features={'image': 6, 'text': 4})
    data = shapes.make_set(shape, seed=1)
    splits = [training_edges(data), data[INTERACTS].val_edge_label_index, data[INTERACTS].test_edge_label_index]
    assert [pairs.size(1) for pairs in splits] == [118_551, 20_559, 21_682]
    for pairs, fewest in zip(splits, (3, 1, 1), strict=True):
        assert int(torch.bincount(pairs[0], minlength=19_445).min()) == fewest
    assert torch.cat(splits, dim=1).unique(dim=1).size(1) == 160_792
    popularity = torch.bincount(splits[0][1], minlength=7_050).sort(descending=True).values
    assert popularity[:705].sum() > 0.3 * popularity.sum()  # a tenth of the items has much of it,
    assert (popularity > 0).float().mean() > 0.99  # and hardly any has nothing
    assert modality_names(data) == ['image', 'text']
    assert missing_matrix(data).any(dim=1).float().mean().item() == pytest.approx(2 / 3, abs=1e-3)


def test_made_set_depends_on_the_seed_alone(modules: dict[str, ModuleType]) -> None:
    shapes = modules['shapes']
    first, again, other = (shapes.make_set(shapes.SMOKE, seed) for seed in (0, 0, 1))
    assert training_edges(first).equal(training_edges(again))
    assert item_features(first, 'image').equal(item_features(again, 'image'))
    assert not training_edges(first).equal(training_edges(other))
    assert first[ITEM].num_nodes == 80


def test_impossible_sets_are_refused(modules: dict[str, ModuleType]) -> None:
    shapes = modules['shapes']
    with pytest.raises(UserError, match='3 interactions or more'):
        shapes.make_set(dataclasses.replace(shapes.SMOKE, num_train=300))
    with pytest.raises(UserError, match='take more items'):
        shapes.make_set(dataclasses.replace(shapes.SMOKE, num_items=20))


def test_too_large_a_set_is_refused_with_the_estimate(modules: dict[str, ModuleType], tmp_path: Path,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    if available_bytes() is None:
        pytest.skip('the system does not say how much memory is free')
    assert modules['speed'].main(['--growth', '1', '1000000', '--device', 'cpu', '--output', str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: a set of 2,000,000,000 users, 1,000,000,000 items and 16,000,000,000 interactions '
                            'needs about ')
    assert error.count('\n') == 1
    assert list(tmp_path.iterdir()) == []


def test_named_sets_and_settings_are_checked_too(modules: dict[str, ModuleType], tmp_path: Path,
                                                 capsys: pytest.CaptureFixture[str],
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, 'available_bytes', lambda device: 10**9)
    monkeypatch.setattr(modules['speed'], 'run_task', lambda task: pytest.fail('something was run'))
    arguments = ['--device', 'cpu', '--output', str(tmp_path), '--set', 'hidden_channels=20000']
    assert modules['speed'].main(arguments) == 2
    assert 'a set of 1,000 users, 800 items' in capsys.readouterr().err


def test_the_textbook_version_needs_more_memory(modules: dict[str, ModuleType], tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str],
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    run = {'dataset': 'baby-shaped', 'settings': [], 'device': 'cpu'}
    items = 100_000
    shape = modules['shapes'].Shape(2_000, items, 16_000, 2_000, 2_000, {'image': 8, 'text': 8})
    dense = 4 * 5 * items**2
    monkeypatch.setattr(memory, 'available_bytes', lambda device: dense)
    modules['speed'].check_fit(run, shape)
    with pytest.raises(UserError, match=r'the textbook version on a set of .*; give --no-textbook'):
        modules['speed'].check_fit(run, shape, textbook=True)


def growth_report(epochs: list[float], edges: list[int]) -> dict[str, Any]:
    return {'cells': [{
        'factor': count, 'exact_item_graphs': 1e-9 * count**2,
        'set': {'num_users': count, 'num_items': count, 'num_train': count},
        'measured': {'seconds': {'epoch': epoch, 'item_graphs': 1.0}, 'steps_timed': 1, 'steps_per_epoch': count,
                     'peak_bytes': 1e6 * count}} for epoch, count in zip(epochs, edges, strict=True)]}


def test_growth_names_the_powers_between_the_last_two_sizes(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    show = modules['speed_report']
    report = growth_report([5.0, 1.0, 10.0**1.5], [100, 1000, 10_000])
    line = show.growth_table(report).splitlines()[-1]
    assert line.endswith('(1 is linear): epoch 1.50, step 0.50, item graphs 0.00, exact item graphs 2.00, '
                         'peak memory 1.00.')
    one = growth_report([5.0], [100])
    assert len(show.growth_table(one).splitlines()) == 2
    pytest.importorskip('matplotlib')
    for number, each in enumerate((report, one)):
        show.plot_growth(each, tmp_path / f'{number}.png')
        assert (tmp_path / f'{number}.png').stat().st_size > 1000


def test_an_error_of_a_measuring_process_is_one_line(modules: dict[str, ModuleType], tmp_path: Path,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    assert modules['speed'].main(['--dataset', 'nowhere', '--root', str(tmp_path), '--output', str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert 'nowhere' in error
    assert error.count('\n') == 1
