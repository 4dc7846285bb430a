"""Benchmarks that are killed or interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmark_case import BENCHMARKS, QUICK, write_set

from dgmrec_pyg.results import CELLS, read_results


@pytest.fixture(scope='module')
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp('sets') / 'small')


@pytest.mark.slow
def test_a_killed_benchmark_goes_on_where_it_was(dataset: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / 'compare.py'), '--dataset', str(dataset), '--models', 'popularity',
               'lightgcn', '--seeds', *map(str, range(30)), '--out', str(tmp_path), *QUICK]
    environment = {**os.environ, 'PYTHONPATH': str(BENCHMARKS.parent)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not (tmp_path / CELLS).exists() or (tmp_path / CELLS).read_bytes().count(b'\n') < 4:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = (tmp_path / CELLS).read_bytes()
    done = read_results(tmp_path).done
    assert 3 <= len(done) < 60
    with open(tmp_path / CELLS, 'a') as file:
        file.write('{"cell": {"model": "light')
    command[command.index('--seeds') + 1:command.index('--out')] = ['0', '1', '2', '3']
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    results = read_results(tmp_path)
    assert len(results.cells) == len({json.dumps(cell.cell) for cell in [*done, *results.select()]})
    assert (tmp_path / CELLS).read_bytes().startswith(before[:before.rindex(b'\n')])
    assert all(results.find({'model': model, 'seed': seed}).done for model in ('popularity', 'lightgcn')
               for seed in range(4))


def test_interrupt_ends_cleanly(dataset: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / 'compare.py'), '--dataset', str(dataset), '--models', 'lightgcn',
               '--seeds', '0', '1', '--out', str(tmp_path), '--epochs', '100000', '--set', 'patience=100000']
    process = subprocess.Popen(command, env={**os.environ, 'PYTHONPATH': str(BENCHMARKS.parent)},
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / CELLS).exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    time.sleep(1.0)  # until the first cell trains
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130, error
    assert 'Traceback' not in error
    kept, stopped = error.splitlines()[-2:]
    assert kept == 'cells that are done are kept; the same command goes on with the others'
    assert stopped == 'stopped'
    assert len((tmp_path / CELLS).read_text().splitlines()) == 1  # the header: a model trained by half is no result
