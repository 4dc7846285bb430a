"""Tests of dgmrec_pyg.epoch_logs."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from dgmrec_pyg.config import TrainingConfig
from dgmrec_pyg.epoch_logs import EVENTS, CsvLog, EpochLog, JsonLinesLog, TensorBoardLog, scalars
from dgmrec_pyg.errors import UserError

DESCRIPTION: dict[str, Any] = {
    'run': {'model': 'dgmrec', 'seed': 3, 'missing_file': None},
    'model': {'knn_k': 10, 'imputation': 'mean'},
    'training': {'epochs': 5, 'learning_rate': 0.01, 'learning_rate_decay': 0.5},
}


def record(epoch: int, evaluated: bool = True, **terms: float) -> dict[str, Any]:
    return {'epoch': epoch, 'loss': 1.0 / epoch, 'terms': {'bpr': 0.5, **terms}, 'train_seconds': 2.0,
            'eval_seconds': 0.25, 'val': {'recall@20': 0.1 * epoch} if evaluated else None}


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / 'epochs.csv', encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """By tag, the steps and values that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in shown.Scalars(tag)] for tag in shown.Tags()['scalars']}


def written(log: EpochLog, folder: Path) -> list[int]:
    """The epochs that a log's files hold."""
    if isinstance(log, JsonLinesLog):
        return [json.loads(line)['epoch'] for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    if isinstance(log, CsvLog):
        return [int(row['epoch']) for row in table(folder)]
    return [step for step, _ in events(folder).get('loss', [])]


@pytest.fixture(params=[JsonLinesLog, CsvLog, TensorBoardLog])
def log(request: pytest.FixtureRequest) -> EpochLog:
    if request.param is TensorBoardLog:
        pytest.importorskip('tensorboard')
    return request.param()


def test_each_epoch_once_however_often_it_is_gone_on_with(log: EpochLog, tmp_path: Path) -> None:
    records = [record(epoch) for epoch in range(1, 7)]
    log.start(tmp_path, DESCRIPTION, [])
    for one in records[:4]:
        log.add(one)
    assert written(log, tmp_path) == [1, 2, 3, 4]  # Without having been closed.
    log.close()
    again = type(log)()
    again.start(tmp_path, DESCRIPTION, records[:2])  # The checkpoint was older than the log.
    for one in records[2:]:
        again.add(one)
    again.close()
    assert written(again, tmp_path) == [1, 2, 3, 4, 5, 6]


def test_what_was_half_written_is_whole_again(log: EpochLog, tmp_path: Path) -> None:
    log.start(tmp_path, DESCRIPTION, [])
    log.add(record(1))
    log.close()
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-3])
    again = type(log)()
    again.start(tmp_path, DESCRIPTION, [record(1)])
    again.add(record(2))
    again.close()
    assert written(again, tmp_path) == [1, 2]
    if isinstance(log, TensorBoardLog):
        assert events(tmp_path)['val/recall@20'] == [(1, pytest.approx(0.1)), (2, pytest.approx(0.2))]


def test_discard_removes_only_the_log(log: EpochLog, tmp_path: Path) -> None:
    (tmp_path / 'notes.txt').touch()
    log.start(tmp_path, DESCRIPTION, [])
    log.close()
    assert len(list(tmp_path.iterdir())) > 1
    log.discard(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['notes.txt']


def test_a_folder_that_cannot_be_written_to(log: EpochLog, tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='cannot write'):
        log.start(tmp_path / 'file', DESCRIPTION, [])


def test_scalars_are_those_of_the_record() -> None:
    training = TrainingConfig.from_dict(DESCRIPTION['training'])
    assert scalars(record(51, generation=0.25), training) == {
        'epoch': 51, 'learning_rate': 0.005, 'train_seconds': 2.0, 'eval_seconds': 0.25, 'loss': 1 / 51,
        'loss/bpr': 0.5, 'loss/generation': 0.25, 'val/recall@20': pytest.approx(5.1)}
    assert not any(name.startswith('val/') for name in scalars(record(1, evaluated=False), training))


def test_csv_has_a_column_for_whatever_comes(tmp_path: Path) -> None:
    log = CsvLog()
    log.start(tmp_path, DESCRIPTION, [])
    assert (tmp_path / 'epochs.csv').read_text() == 'epoch,learning_rate,train_seconds,eval_seconds,loss\n'
    for one in (record(1, evaluated=False), record(2), record(3, evaluated=False, **{'=late': 0.75})):
        log.add(one)
    first, second, third = table(tmp_path)
    assert (first['val/recall@20'], second['val/recall@20'], third['val/recall@20']) == ('', '0.2', '')
    assert (first['loss/=late'], third['loss/=late']) == ('', '0.75')
    assert float(third['loss']) == 1 / 3


def test_tensorboard_shows_scalars_settings_and_hyperparameters(tmp_path: Path) -> None:
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = TensorBoardLog()
    log.start(tmp_path, DESCRIPTION, [record(1)])
    log.add(record(2, evaluated=False))
    log.close()
    found = events(tmp_path)
    assert found['loss'] == [(1, 1.0), (2, 0.5)]
    assert found['val/recall@20'] == [(1, pytest.approx(0.1))]
    assert found['learning_rate'][0] == (1, pytest.approx(0.01))
    shown = EventAccumulator(str(tmp_path)).Reload()
    [text] = shown.Tensors('settings/text_summary')
    assert b'"knn_k": 10' in text.tensor_proto.string_val[0]
    plugin = shown.SummaryMetadata('_hparams_/session_start_info').plugin_data
    assert b'model/knn_k' in plugin.content
    assert b'model/imputation' in plugin.content
    assert list(tmp_path.iterdir()) == list(tmp_path.glob(EVENTS))  # No folder of its own for the hyperparameters.


def test_tensorboard_goes_on_in_a_file_of_its_own(tmp_path: Path) -> None:
    """The last epoch had its checkpoint, but was not yet in the log when the run was killed."""
    pytest.importorskip('tensorboard')
    log = TensorBoardLog()
    log.start(tmp_path, DESCRIPTION, [])
    log.add(record(1))
    log.close()
    [before] = tmp_path.iterdir()
    content = before.read_bytes()
    log.start(tmp_path, DESCRIPTION, [record(1), record(2)])
    log.close()
    assert before.read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 2
    assert events(tmp_path)['loss'] == [(1, 1.0), (2, 0.5)]


def test_names_of_event_files_rise(tmp_path: Path) -> None:
    pytest.importorskip('tensorboard')
    seconds = []
    for _ in range(3):
        log = TensorBoardLog()
        log.start(tmp_path, DESCRIPTION, [])
        log.close()
        seconds.append(sorted(int(file.name.split('.')[3]) for file in tmp_path.glob(EVENTS)))
    assert [len(set(some)) for some in seconds] == [1, 2, 3]


def test_tensorboard_may_be_asked_for_later(tmp_path: Path) -> None:
    pytest.importorskip('tensorboard')
    log = TensorBoardLog()
    log.start(tmp_path, DESCRIPTION, [record(1), record(2)])
    log.close()
    assert events(tmp_path)['loss'] == [(1, 1.0), (2, 0.5)]


def test_tensorboard_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=r'^--tensorboard needs tensorboard: pip install "dgmrec-pyg\[track\]"$'):
        TensorBoardLog()
