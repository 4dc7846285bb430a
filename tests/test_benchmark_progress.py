"""What a benchmark shows while it runs."""

from __future__ import annotations

from pathlib import Path

import progress
import pytest

from dgmrec_pyg.loading import RunSettings
from dgmrec_pyg.results import FAILED, Cell, Header, ResultFile


def make_task(model: str, seed: int) -> object:
    from cell_worker import Task
    return Task({'model': model, 'seed': seed}, RunSettings(model=model, seed=seed))


def make_cell(model: str, seed: int, seconds: float) -> Cell:
    return Cell({'model': model, 'seed': seed}, seconds=seconds, metrics={'test': {'recall@20': 0.5}})


@pytest.fixture
def results(tmp_path: Path) -> ResultFile:
    return ResultFile(tmp_path, Header('compare', 'tiktok', 'abc', ('recall@20', )))


def test_the_time_left_goes_by_each_models_own_cells(results: ResultFile) -> None:
    tasks = [make_task(model, seed) for seed in (0, 1) for model in ('dgmrec', 'bprmf')]
    shown = progress.Progress(results, 4, tasks, jobs=1)
    assert shown.seconds_left() is None
    shown.finish(tasks[0], (make_cell('dgmrec', 0, 100.0), None))
    assert shown.seconds_left() == 300.0  # the other model's are taken to be as long
    shown.finish(tasks[1], (make_cell('bprmf', 0, 10.0), None))
    assert shown.seconds_left() == 110.0
    shown.finish(tasks[2], (make_cell('dgmrec', 1, 200.0), None))
    shown.finish(tasks[3], (make_cell('bprmf', 1, 10.0), None))
    assert shown.seconds_left() == 0.0


def test_cells_of_earlier_runs_and_jobs_count_for_the_time_left(results: ResultFile) -> None:
    results.add(make_cell('dgmrec', 0, 100.0))
    tasks = [make_task('dgmrec', seed) for seed in (1, 2, 3)]
    assert progress.Progress(results, 4, tasks, jobs=2).seconds_left() == 150.0


def test_cells_are_written_down_as_they_end(results: ResultFile, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = [make_task('dgmrec', 0), make_task('dgmrec', 1)]
    with progress.Progress(results, 2, tasks, jobs=1) as shown:
        shown.finish(tasks[0], (make_cell('dgmrec', 0, 130.0), None))
        assert len(ResultFile(results.folder).done) == 1
        shown.finish(tasks[1], None)  # its process was killed
    failed, = ResultFile(results.folder).failed
    assert failed == Cell({'model': 'dgmrec', 'seed': 1}, FAILED, progress.KILLED)
    assert capsys.readouterr().out.splitlines() == [
        'dgmrec,seed=0: test recall@20 0.5000 (2 min)', f'dgmrec,seed=1: failed: {progress.KILLED}']


@pytest.mark.parametrize(('seconds', 'text'), [(0, '0 s'), (48.4, '48 s'), (99, '99 s'), (100, '2 min'),
                                               (720, '12 min'), (12_600, '3.5 h')])
def test_durations(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text
