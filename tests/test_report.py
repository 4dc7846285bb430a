"""Tests of dgmrec_pyg.report, by what the page says; tests/test_report_browser.py opens it in a browser."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_case import METRICS, MODELS, failed_cell, header, make_cell, recall, users, write_models, write_ratios
from scipy import stats
from small_set import write_small_set

from dgmrec_pyg import run
from dgmrec_pyg.report import charts, drawing
from dgmrec_pyg.report.__main__ import main
from dgmrec_pyg.report.layout import Layout
from dgmrec_pyg.report.significance import Comparisons
from dgmrec_pyg.report.source import read_source
from dgmrec_pyg.report.tables import MISSING
from dgmrec_pyg.results import ResultFile

EVIL = '<script>window.injected=1</script>"\'><img src=x onerror=window.injected=1>'
Output = pytest.CaptureFixture[str]


class Page(HTMLParser):
    """What stands on a page: tags with their attributes, tables as text, all text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding='utf-8')
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.text = ''
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == 'table':
            self.tables.append([])
        elif tag == 'tr':
            self.tables[-1].append([])
        elif tag in ('td', 'th'):
            self.tables[-1][-1].append('')

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f'/{tag}', {}))

    def handle_data(self, data: str) -> None:
        self.text += data
        open_tags = [tag for tag, _ in self.tags if tag in ('td', '/td', 'th', '/th')]
        if open_tags and open_tags[-1] in ('td', 'th'):
            self.tables[-1][-1][-1] += data

    def table(self, *columns: str) -> list[list[str]]:
        """The rows of the first table with these columns."""
        return next(rows for head, *rows in ([[cell.strip() for cell in row] for row in table] for table in self.tables)
                    if set(columns) <= set(head))


def report(folder: Path) -> Page:
    assert main([str(folder)]) == 0
    return Page(folder / 'report.html')


def check_error(arguments: list[str], message: str, capsys: Output) -> None:
    assert main(arguments) == 2
    shown, errors = capsys.readouterr()
    assert shown == ''
    assert errors.startswith('error: ')
    assert errors.count('\n') == 1
    assert message in errors


# Content ##############################################################################################################


def test_means_and_deviations_by_ratio(tmp_path: Path) -> None:
    write_ratios(tmp_path)
    rows = report(tmp_path).table('model', 'seeds', '0', '0.4', '0.8')
    assert [row[0] for row in rows] == ['dgmrec', 'lightgcn', 'vbpr']
    for model, row in zip(MODELS, rows, strict=True):
        assert row[1] == '2'
        for entry, place in zip(row[2:], (0.0, 0.4, 0.8), strict=True):
            values = [recall(model, place, seed) for seed in (0, 1)]
            assert entry.rstrip('*') == f'{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}'
            assert entry.endswith('*') == (model != 'dgmrec')


def test_the_best_is_set_off(tmp_path: Path) -> None:
    write_models(tmp_path, seeds=(0, ))
    source = report(tmp_path).source
    assert re.findall('<strong>([\\d.]+)</strong>', source)[:2] == ['0.3000', '0.1500']


def test_a_small_median_rank_is_the_best(tmp_path: Path) -> None:
    results = ResultFile(tmp_path, header('retrieval', metrics=('median_rank', )))
    for model, rank in (('far', 40.5), ('near', 3.0)):
        results.add(make_cell({'model': model, 'seed': 0}, 0.1, metrics={'val': {}, 'test': {'median_rank': rank}}))
    page = report(tmp_path)
    assert [row[:1] + row[2:] for row in page.table('model', 'median_rank')] == [['near', '3.0'], ['far', '40.5']]
    assert '<strong>3.0</strong>' in page.source


def test_tests_are_those_of_scipy(tmp_path: Path) -> None:
    """Users' metrics are averaged over seeds, then paired; p values are corrected for two comparisons."""
    results = write_models(tmp_path)
    source = read_source(tmp_path)
    found = Comparisons(source, Layout(source)).all
    assert [(test.row, test.metric) for test in found] == [
        (row, metric) for metric in METRICS for row in ('lightgcn', 'vbpr')]
    means = {model: np.mean([results.users(cell)['recall@20'] for cell in results.select(model=model)], axis=0,
                            dtype=np.float64) for model in MODELS}
    p_values = sorted(stats.ttest_rel(means['dgmrec'], means[other]).pvalue for other in ('lightgcn', 'vbpr'))
    assert sorted(test.found.t_test_p for test in found[:2]) == pytest.approx([
        min(1, 2 * p_values[0]), max(2 * p_values[0], p_values[1])])
    assert found[0].found.test.difference.mean == pytest.approx((means['dgmrec'] - means['lightgcn']).mean())
    rows = report(tmp_path).table('against', 'p (Wilcoxon)')
    assert [row[:4] for row in rows[:2]] == [['recall@20', 'lightgcn', '2', '60'], ['recall@20', 'vbpr', '2', '60']]
    assert rows[0][4] == f'{found[0].found.test.difference.mean:+.4f}'


def test_only_seeds_that_both_have_are_tested(tmp_path: Path) -> None:
    results = write_models(tmp_path, models=('dgmrec', 'lightgcn'))
    results.add(make_cell({'model': 'dgmrec', 'seed': 2}, 0.9), users(0.9, 2))
    source = read_source(tmp_path)
    [test, _] = Comparisons(source, Layout(source)).all
    assert test.found.seeds == 2
    assert test.found.test.difference.mean == pytest.approx(0.1, abs=1e-6)


def test_parts_of_the_items(tmp_path: Path) -> None:
    write_models(tmp_path)
    rows = report(tmp_path).table('model', 'missing:none (40 users)', 'missing:text (40 users)')
    values = [1.5 * recall('lightgcn', 0, seed) for seed in (0, 1)]
    assert rows[1][:2] == ['lightgcn', f'{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}']


def test_parts_of_a_single_model(tmp_path: Path) -> None:
    write_models(tmp_path, models=('dgmrec', ))
    assert [row[:2] for row in report(tmp_path).table('part', *METRICS)] == [
        ['missing:none', '40'], ['missing:text', '40']]


def test_generated_features(tmp_path: Path) -> None:
    results = write_models(tmp_path)
    cosines = {'num_items': 12, 'cosine': {'generated': 0.9, 'imputed': 0.8},
               'centered_cosine': {'generated': 0.4, 'imputed': 0.0}}
    results.add(make_cell({'model': 'dgmrec', 'seed': 5}, 0.3, generation={'text': {'all': cosines}}), users(0.3, 5))
    assert report(tmp_path).table('modality', 'cosine: generated') == [
        ['dgmrec', '5', 'text', 'all', '12', '0.9000', '0.8000', '0.4000', '0.0000']]


def test_what_was_run(tmp_path: Path) -> None:
    write_ratios(tmp_path)
    text = report(tmp_path).text
    for expected in ('18 of 18 cells done', 'feed' * 16, 'beef' * 16, 'epochs=3', 'torch 2.13.0', '27.0 s',
                     'Settings of dgmrec', 'model: num_layers', 'training: epochs'):
        assert expected in text
    assert 'imputer' not in text  # None was given.


def test_settings_that_differ_between_cells_are_all_shown(tmp_path: Path) -> None:
    results = write_models(tmp_path)
    results.add(make_cell({'model': 'vbpr', 'seed': 9}, 0.1, configuration={'model': {'num_layers': 4}}), users(0.1, 9))
    assert '3 | 4' in report(tmp_path).text


def test_failed_cells_and_their_errors(tmp_path: Path) -> None:
    results = write_models(tmp_path)
    results.add(failed_cell({'model': 'slmrec', 'seed': 1}, 'not enough memory; take less'))
    page = report(tmp_path)
    assert '6 of 7 cells done' in page.text
    assert '1 cell failed' in page.text
    assert page.table('cell', 'error') == [['model slmrec, seed 1', 'not enough memory; take less', '0.3']]
    assert 'slmrec' not in [row[0] for row in page.table('model', 'recall@20')]


def test_all_cells_failed(tmp_path: Path) -> None:
    ResultFile(tmp_path, header()).add(failed_cell({'model': 'vbpr', 'seed': 0}, 'no features'))
    page = report(tmp_path)
    assert '0 of 1 cells done' in page.text
    assert 'no features' in page.text


def test_without_users_metrics_there_are_no_tests(tmp_path: Path) -> None:
    write_models(tmp_path)
    for file in (tmp_path / 'users').iterdir():
        file.unlink()
    page = report(tmp_path)
    assert 'No tests: ' in page.text
    assert page.table('model', *METRICS)


@pytest.mark.parametrize('damage', ['text', 'shape', 'users'])
def test_users_metrics_that_do_not_fit_are_no_tests(tmp_path: Path, damage: str) -> None:
    results = write_models(tmp_path)
    found = users(0.2, 0)
    if damage == 'text':
        found['recall@20'] = np.array(['x'] * 60)
    elif damage == 'shape':
        found['recall@20'] = found['recall@20'][:5]
    else:
        found['user'] = found['user'] + 1
    results.add(results.select(model='lightgcn', seed=0)[0], found)
    assert 'No tests: ' in report(tmp_path).text


def test_the_same_results_give_the_same_page_and_are_left_alone(tmp_path: Path) -> None:
    write_ratios(tmp_path / 'results')
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    pages = [tmp_path / 'one.html', tmp_path / 'two.html']
    for given, page in zip((tmp_path / 'results', tmp_path / 'results' / 'cells.jsonl'), pages, strict=True):
        assert main([str(given), '--out', str(page)]) == 0
    assert pages[0].read_bytes() == pages[1].read_bytes()
    assert {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file() and path not in pages} == before


def test_a_run_directory(tmp_path: Path) -> None:
    folder = write_small_set(tmp_path / 'data' / 'tiny')
    assert run.main(['--dataset', str(folder), '--epochs', '2', '--set', 'hidden_channels=8', 'knn_k=4', '--quiet',
                     '--compare', 'popularity', '--missing-ratio', '0.5', '--output', str(tmp_path / 'run')]) == 0
    metrics = json.loads((tmp_path / 'run' / 'metrics.json').read_text(encoding='utf-8'))
    page = report(tmp_path / 'run')
    found = {row[0]: row[2].rstrip('*') for row in page.table('model', 'seeds', 'recall@20', 'hit_ratio@20')}
    assert found == {'dgmrec': f"{metrics['test']['recall@20']:.4f}",
                     'popularity': f"{metrics['compare']['popularity']['test']['recall@20']:.4f}"}
    assert page.table('modality', 'cosine: generated')
    assert 'hidden_channels' in page.text
    assert json.loads((tmp_path / 'run' / 'config.json').read_text(encoding='utf-8'))['data']['hash'] in page.text


# Charts ###############################################################################################################


def test_lines_rise_where_the_metric_does(tmp_path: Path) -> None:
    write_ratios(tmp_path)
    found = charts.chart(Layout(read_source(tmp_path)), 'recall@20')
    assert found is not None
    assert [series.name for series in found.series if series.stands_out] == ['dgmrec']
    for series in found.series:
        assert [point.x for point in series.points] == sorted({point.x for point in series.points})
        ys = [point.y for point in series.points]
        assert ys == sorted(ys)  # The metric falls, and y is counted from above.
        assert all(found.top <= y <= found.bottom for y in ys)
        assert all(point.high < point.y < point.low for point in series.points)
        assert len(series.band.split()) == 6
    assert {series.color for series in found.series} == {0, 1, 2}


def test_a_band_needs_more_than_one_seed(tmp_path: Path) -> None:
    write_ratios(tmp_path, seeds=(0, ))
    found = charts.chart(Layout(read_source(tmp_path)), 'recall@20')
    assert found is not None
    assert [series.band for series in found.series] == [''] * 3
    assert '<polygon' not in report(tmp_path).source


def test_one_model_without_places_needs_no_picture(tmp_path: Path) -> None:
    write_models(tmp_path, models=('dgmrec', ))
    assert charts.chart(Layout(read_source(tmp_path)), 'recall@20') is None


@pytest.mark.parametrize(('low', 'high', 'expected'), [
    (0.0, 1.0, ['0.0', '0.2', '0.4', '0.6', '0.8', '1.0']),
    (0.0601, 0.0627, ['0.0605', '0.0610', '0.0615', '0.0620', '0.0625']),
    (-3.0, 41.0, ['0', '10', '20', '30', '40']),
])
def test_ticks_are_round_numbers(low: float, high: float, expected: list[str]) -> None:
    assert [text for _, text in drawing.ticks(low, high)] == expected


@pytest.mark.parametrize('count', [1, 9, 10, 11, 40])
def test_of_many_places_some_are_named_evenly_and_the_last(count: int) -> None:
    kept = drawing.thinned(range(count))
    assert kept[-1] == count - 1
    assert len({after - before for before, after in pairwise(kept)}) <= 1
    assert min(count, 5) <= len(kept) <= 9


def test_large_whole_numbers_are_shown_in_full(tmp_path: Path) -> None:
    """Six digits would make one of two seeds of a mask, and of a run."""
    results = ResultFile(tmp_path, header())
    for place, seed in ((20250101, 1234567), (20250102, 7654321)):
        results.add(make_cell({'model': 'dgmrec', 'missing_seed': place, 'seed': seed}, 0.1))
    page = report(tmp_path)
    assert page.table('20250101', '20250102')
    assert [row[1:3] for row in page.table('missing seed', 'seed')] == [
        ['20250101', '1234567'], ['20250102', '7654321']]


# Safety ###############################################################################################################


def test_what_comes_from_files_is_text(tmp_path: Path) -> None:
    """In every field of header and cells; a name in a file's name has its letters replaced by others."""
    results = ResultFile(tmp_path, header(EVIL, dataset=EVIL, data_hash=EVIL, metrics=(EVIL, ), package_version=EVIL,
                                          common={EVIL: [EVIL]}))
    for model in (EVIL, 'dgmrec'):
        for place in (0.0, 0.5):
            results.add(make_cell(
                {'model': model, EVIL: place, 'seed': EVIL}, 0.5, metrics={'val': {EVIL: 0.1}, 'test': {EVIL: 0.1}},
                groups={EVIL: {'test': {EVIL: 0.1}, 'users': EVIL}}, configuration={EVIL: {EVIL: EVIL}}, device=EVIL,
                versions={EVIL: EVIL}, data_hash=EVIL,
                generation={EVIL: {EVIL: {'num_items': EVIL, 'cosine': {'generated': EVIL}}}}))
    results.add(failed_cell({EVIL: EVIL}, EVIL))
    results.add(make_cell({'model': 'odd'}, 0.1, seconds=10**400, best_epoch=10**400, threads=-1))
    page = report(tmp_path)
    names = [tag for tag, _ in page.tags]
    assert names.count('script') == 1
    assert 'img' not in names
    assert not any(name.startswith('on') for _, attributes in page.tags for name in attributes)
    assert page.text.count(EVIL) > 20


def test_the_page_needs_nothing_else_and_runs_no_other_script(tmp_path: Path) -> None:
    write_ratios(tmp_path)
    page = report(tmp_path)
    links = [value for _, attributes in page.tags for name, value in attributes.items()
             if name in ('src', 'href', 'xlink:href', 'srcset', 'action', 'data')]
    assert links == []
    assert 'http:' not in page.source
    assert 'https:' not in page.source
    assert not re.search('url\\((?!#)|@import', page.source)
    policy = next(found['content'] for tag, found in page.tags if tag == 'meta' and 'http-equiv' in found)
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert 'unsafe' not in policy


def test_control_characters_are_shown_as_escapes(tmp_path: Path) -> None:
    """Half a surrogate, which no file could hold, and what turns text round."""
    results = write_models(tmp_path)
    results.add(failed_cell({'model': 'x\u202egpj\ud800', 'seed': 0}, 'bell \x07\x1b[2J'))
    text = report(tmp_path).text
    assert 'x\\u202egpj\\ud800' in text
    assert 'bell \\x07\\x1b[2J' in text


def test_an_endless_error_is_cut(tmp_path: Path) -> None:
    results = write_models(tmp_path)
    results.add(failed_cell({'model': 'x', 'seed': 0}, 'x' * 10**6))
    assert len(report(tmp_path).source) < 10**5


@pytest.mark.parametrize('value', [math.nan, math.inf, 1e300, 10**400, True])
def test_odd_numbers_stand_for_nothing(tmp_path: Path, value: Any) -> None:
    results = write_ratios(tmp_path)
    metrics = {'recall@20': value, 'ndcg@20': 0.1}
    results.add(make_cell({'model': 'odd', 'missing_ratio': value, 'seed': 0}, 0.0,
                          metrics={'val': metrics, 'test': metrics}))
    page = report(tmp_path)
    assert [row[2] for row in page.table('seeds') if row[0].startswith('odd')] == [
        '1.0000' if value is True else MISSING]
    keys = [float(key) for key in re.findall('data-key="(.*?)"', page.source)]
    assert all(map(math.isfinite, keys))


@pytest.mark.parametrize('values', [{}, {'seed': 0}, {'model': None, 'seed': None}])
def test_cells_without_a_model(tmp_path: Path, values: dict[str, Any]) -> None:
    ResultFile(tmp_path, header()).add(make_cell(values, 0.1))
    assert '1 of 1 cells done' in report(tmp_path).text


# Bad input ############################################################################################################


def test_nothing_there(tmp_path: Path, capsys: Output) -> None:
    check_error([str(tmp_path / 'none')], 'there is no', capsys)
    check_error([str(tmp_path)], 'holds no results', capsys)
    check_error([], 'RESULTS', capsys)
    write_models(tmp_path / 'results')
    check_error([str(tmp_path / 'results'), '--out', str(tmp_path / 'none' / 'x.html')], 'cannot write', capsys)


def test_no_cells(tmp_path: Path, capsys: Output) -> None:
    ResultFile(tmp_path, header())
    check_error([str(tmp_path)], 'has no cell yet', capsys)


@pytest.mark.parametrize(('content', 'message'), [
    (b'{"format": 2}\n', 'is of format 2'),
    (b'', 'no header'),
    (b'no json\n', 'damaged'),
    (json.dumps(dataclasses.asdict(header())).encode() + b'\n[]\n', 'line 2'),
])
def test_files_of_another_kind(tmp_path: Path, capsys: Output, content: bytes, message: str) -> None:
    (tmp_path / 'cells.jsonl').write_bytes(content)
    check_error([str(tmp_path)], message, capsys)
    assert not (tmp_path / 'report.html').exists()


@pytest.mark.parametrize(('file', 'content', 'message'), [
    ('config.json', '{}', "'config.json' is damaged"),
    ('metrics.json', '{}', 'is damaged'),
    ('metrics.json', '{"val": 5}', 'is damaged'),
    ('metrics.json', None, 'has no metrics.json yet'),
])
def test_damaged_runs(tmp_path: Path, capsys: Output, file: str, content: str | None, message: str) -> None:
    found = {'run': {'dataset': 'toys', 'model': 'vbpr', 'seed': 0, 'device': 'cpu'}, 'model': {}, 'training': {},
             'compare': {}, 'data': {'hash': 'x'}, 'versions': {'dgmrec_pyg': '0'}, 'threads': 1}
    (tmp_path / 'config.json').write_text(json.dumps(found), encoding='utf-8')
    if content is not None:
        (tmp_path / file).write_text(content, encoding='utf-8')
    check_error([str(tmp_path)], message.replace("'config.json'", f"'{tmp_path / 'config.json'}'"), capsys)


def test_help_answers_without_heavy_libraries() -> None:
    code = ('import runpy, sys\nsys.argv = ["report", "--help"]\ntry:\n'
            '    runpy.run_module("dgmrec_pyg.report", run_name="__main__")\nexcept SystemExit:\n'
            '    print(*sys.modules, file=sys.stderr)')
    answer = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert answer.stdout.startswith('usage: python -m dgmrec_pyg.report RESULTS [--out FILE]')
    assert {'torch', 'pandas', 'jinja2'}.isdisjoint(answer.stderr.split())
