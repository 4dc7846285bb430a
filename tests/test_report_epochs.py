"""The epochs in a report: of a run directory, and of several side by side."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from report_case import EPOCH_VALUES, epoch_record, write_run

from dgmrec_pyg.report.__main__ import main
from dgmrec_pyg.report.drawing import Chart
from dgmrec_pyg.report.epoch_charts import training_charts
from dgmrec_pyg.report.epochs import read_curves
from dgmrec_pyg.report.layout import Layout
from dgmrec_pyg.report.source import read_source


def charts(folder: Path) -> tuple[list[Chart], list[Chart]]:
    source = read_source(folder)
    return training_charts(source, Layout(source))


def test_curves_are_what_the_run_wrote_down(tmp_path: Path) -> None:
    curves = read_curves(write_run(tmp_path / 'run'))
    assert curves['val/recall@20'] == [(1, 0.1), (2, 0.3), (3, 0.2)]
    assert curves['loss'] == [(1, 10.0), (2, 1.0), (3, 0.1)]
    assert curves['loss/odd_term'] == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_epochs_without_validation_and_odd_values_leave_gaps(tmp_path: Path) -> None:
    run = write_run(tmp_path / 'run')
    lines = [{**epoch_record(1, 0.1), 'val': None}, {**epoch_record(2, 0.2), 'loss': math.nan},
             {**epoch_record(3, 0.3), 'loss': 10**400}, {**epoch_record(4, 0.4), 'terms': {'bpr': 'much'}}]
    (run / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines) + '{"epoch": 5, "lo')
    curves = read_curves(run)
    assert [epoch for epoch, _ in curves['val/recall@20']] == [2, 3, 4]
    assert [epoch for epoch, _ in curves['loss']] == [1, 4]
    assert [epoch for epoch, _ in curves['loss/bpr']] == [1, 2, 3]


@pytest.mark.parametrize('line', ['no json', '[]', '{}', '{"epoch": "1"}', '{"epoch": 1, "loss": 1, "terms": 5}',
                                  '{"epoch": -1, "loss": 1, "terms": {}, "val": {}}', '[' * 10**5])
def test_a_damaged_line_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    run = write_run(tmp_path / 'run')
    (run / 'metrics.jsonl').write_text(json.dumps(epoch_record(1, 0.1)) + f'\n{line}\n')
    assert main([str(run)]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"error: line 2 of '.*metrics\.jsonl' is damaged \(\w+\); remove the line\n", error)


def test_the_chosen_epoch_is_marked(tmp_path: Path) -> None:
    (validation, loss), terms = charts(write_run(tmp_path / 'run'))
    for chart in (validation, loss, *terms):
        [series] = chart.series
        assert len(series.points) == 3
        assert series.marked == [series.points[1]]
    heights = [point.y for point in validation.series[0].points]
    assert min(heights) == heights[1]  # up is better, and SVG counts from above
    assert 'vbpr, seed 0: 0.3 in epoch 2' in validation.series[0].marked[0].label
    assert [chart.title for chart in terms] == ['bpr', 'odd term']


def test_a_loss_that_falls_by_far_has_a_logarithmic_scale(tmp_path: Path) -> None:
    (validation, loss), _ = charts(write_run(tmp_path / 'run'))
    assert 'logarithmic' in loss.note
    assert 'logarithmic' not in validation.note
    first, second, third = (point.y for point in loss.series[0].points)
    assert second - first == pytest.approx(third - second)  # a tenth each time
    assert [text for _, text in loss.y_ticks] == ['0.1', '0.3', '1', '3', '10']
    for position, text in loss.y_ticks:
        if text in ('10', '1'):
            assert position == pytest.approx({'10': first, '1': second}[text])


@pytest.mark.parametrize('values', [(1e-300, 1.0), (1e-9, 1e9), (0.0, 0.0), (-1.0, 1e11), (0.3, 0.3)])
def test_any_range_has_a_few_ticks(tmp_path: Path, values: tuple[float, float]) -> None:
    (validation, _), _ = charts(write_run(tmp_path / 'run', values=values))
    assert 1 <= len(validation.y_ticks) <= 9
    for point in validation.series[0].points:
        assert validation.top <= point.y <= validation.bottom


def test_seeds_and_models_share_a_picture(tmp_path: Path) -> None:
    for number, (model, seed) in enumerate([('vbpr', 0), ('vbpr', 1), ('bm3', 0)]):
        write_run(tmp_path / f'run{number}', seed, model, values=EPOCH_VALUES[:2 + number % 2])
    (validation, _), _ = charts(tmp_path)
    assert sorted(series.name for series in validation.series) == ['bm3', 'vbpr', 'vbpr']
    colors = {series.name: series.color for series in validation.series}
    assert colors['bm3'] != colors['vbpr']
    assert {series.color for series in validation.series if series.name == 'vbpr'} == {colors['vbpr']}
    assert main([str(tmp_path)]) == 0
    page = (tmp_path / 'report.html').read_text()
    assert '3 of 3 cells done' in page
    figure = page[page.index('Validation recall@20'):].split('</figure>')[0]
    assert figure.count('<polyline') == 3
    assert figure.count('</title></circle>') == 3  # the chosen epoch of each
    assert figure.count('<li ') == 2  # one for each model, not for each seed


def test_runs_are_told_apart_by_what_they_differ_in(tmp_path: Path) -> None:
    write_run(tmp_path / 'one', settings=['patience=10', 'knn_k=5'], missing_ratio=0.2)
    write_run(tmp_path / 'two', settings=['patience=10'], missing_ratio=0.2)
    source = read_source(tmp_path)
    assert [cell.cell for cell in source.cells] == [{'model': 'vbpr', 'seed': 0, 'settings': 'knn_k=5'},
                                                    {'model': 'vbpr', 'seed': 0, 'settings': ''}]
    assert source.header.common['missing_ratio'] == 0.2
    assert 'settings' not in source.header.common
    assert all(len(source.epochs[cell.name]['loss']) == 3 for cell in source.cells)


def test_the_same_run_twice_is_told_apart_by_its_folder(tmp_path: Path) -> None:
    write_run(tmp_path / 'one')
    write_run(tmp_path / 'two')
    source = read_source(tmp_path)
    assert [cell.cell['run'] for cell in source.cells] == ['one', 'two']
    assert set(Layout(source).rows) == {'one', 'two'}


def test_runs_of_different_sets_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / 'one')
    write_run(tmp_path / 'two', dataset='others')
    assert main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "of different sets, masks or held-out items: 'one' of toys, 'two' of others (their hashes differ)" in error
    assert 'into a folder of their own' in error


def test_a_run_without_epochs_has_no_such_section(tmp_path: Path) -> None:
    run = write_run(tmp_path / 'run')
    (run / 'metrics.jsonl').unlink()
    assert charts(run) == ([], [])
    assert main([str(run)]) == 0
    assert '<h2>Training</h2>' not in (run / 'report.html').read_text()
