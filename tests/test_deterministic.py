"""Tests of dgmrec_pyg.training.deterministic and of ``--deterministic``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_set import write_masks, write_small_set
from test_experiment import timeless
from test_trainer import assert_equal_states, without_times

from dgmrec_pyg.errors import UserError
from dgmrec_pyg.run import main
from dgmrec_pyg.training import load_checkpoint
from dgmrec_pyg.training.deterministic import deterministic

REPOSITORY = Path(__file__).resolve().parent.parent
DEVICES = ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA'))]


def switches() -> tuple[Any, ...]:
    return (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)


def test_it_is_switched_on_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG', raising=False)
    monkeypatch.setattr('torch.backends.cudnn.benchmark', True)
    before = switches()
    with deterministic(False):
        assert switches() == before
        assert 'CUBLAS_WORKSPACE_CONFIG' not in os.environ
    with deterministic():
        assert switches() == (True, False, True, False)
        assert os.environ['CUBLAS_WORKSPACE_CONFIG'] == ':4096:8'
    assert switches() == before
    with pytest.raises(KeyError), deterministic():
        raise KeyError
    assert switches() == before


def test_what_cannot_be_deterministic_is_an_error_of_one_line() -> None:
    unpooled, index = torch.ones(1, 1, 2), torch.zeros(1, 1, 2, dtype=torch.long)
    message = r'^--deterministic cannot be kept \(.*max_unpool.*\); leave it out or take --device cpu$'
    with pytest.raises(UserError, match=message), deterministic():
        torch.nn.functional.max_unpool1d(unpooled, index, 2)
    with pytest.raises(RuntimeError, match='a bug'), deterministic():
        raise RuntimeError('a bug')


@pytest.mark.parametrize('device', DEVICES)
def test_two_processes_give_the_same_bits(tmp_path: Path, device: str) -> None:
    write_masks(write_small_set(tmp_path / 'data' / 'tiny'), 0.6)
    for number in ('1', '2'):
        answer = subprocess.run(
            [sys.executable, '-m', 'dgmrec_pyg.run', '--deterministic', '--dataset', 'tiny', '--root',
             str(tmp_path / 'data'), '--epochs', '3', '--set', 'hidden_channels=8', 'knn_k=4', 'club_weight=0.1',
             'inter_modal_weight=0.1', '--device', device, '--output', str(tmp_path / number)],
            env={**os.environ, 'PYTHONPATH': str(REPOSITORY), 'OMP_NUM_THREADS': '1', 'PYTHONHASHSEED': number},
            capture_output=True, text=True, check=False)
        assert (answer.returncode, answer.stderr) == (0, '')
        assert 'deterministic: the same bits again ' in answer.stdout
        assert 'with the same versions and 1 thread(s)' in answer.stdout
    one, two = tmp_path / '1', tmp_path / '2'
    states = [load_checkpoint(path / 'checkpoint.pt') for path in (one, two)]
    assert_equal_states(*states)
    assert without_times(states[0]['fit']['records']) == without_times(states[1]['fit']['records'])
    assert timeless(json.loads((one / 'metrics.json').read_text())) == timeless(
        json.loads((two / 'metrics.json').read_text()))
    assert (one / 'recommendations.csv').read_bytes() == (two / 'recommendations.csv').read_bytes()
    config = json.loads((one / 'config.json').read_text())
    assert (config['run']['deterministic'], config['threads']) == (True, 1)


def test_the_command_line_resumes_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_small_set(tmp_path / 'data' / 'tiny')
    common = ['--dataset', 'tiny', '--root', str(tmp_path / 'data'), '--model', 'lightgcn']
    assert main([*common, '--deterministic', '--epochs', '1', '--output', str(tmp_path / 'with')]) == 0
    assert main([*common, '--epochs', '1', '--output', str(tmp_path / 'without')]) == 0
    capsys.readouterr()
    assert main(['--resume', '--epochs', '2', '--output', str(tmp_path / 'with')]) == 0
    assert 'deterministic: ' in capsys.readouterr().out
    assert main(['--resume', '--deterministic', '--epochs', '2', '--output', str(tmp_path / 'without')]) == 2
    assert '--deterministic is True, but the run to resume has False' in capsys.readouterr().err
