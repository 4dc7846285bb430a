"""What a run writes down after each epoch: several logs of one kind, such as a CSV file or TensorBoard's events.

Each is started with the epochs before, none in a new run: so it shows each epoch once, however often a run was stopped
and gone on with, and whatever a killed process had left half written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dgmrec_pyg.command_line import require_library
from dgmrec_pyg.config import TrainingConfig
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.files import csv_cell, csv_text, write_text

EPOCHS = 'metrics.jsonl'
EPOCHS_TABLE = 'epochs.csv'
EVENTS = 'events.out.tfevents.*'
_FIRST_COLUMNS = ('epoch', 'learning_rate', 'train_seconds', 'eval_seconds', 'loss')

Record = dict[str, Any]


class EpochLog:
    """One log of a run's epochs."""

    def start(self, folder: Path, description: Mapping[str, Any], records: Sequence[Record]) -> None:
        """Begins the log.

        Args:
            folder (Path): The run directory.
            description (Mapping): What ``config.json`` holds.
            records (Sequence): The epochs before, as :class:`~dgmrec_pyg.training.Fit` keeps them.

        Raises:
            UserError: If it cannot be written.
        """
        raise NotImplementedError

    def add(self, record: Record) -> None:
        """Writes down one more epoch.

        Args:
            record (dict): The epoch.

        Raises:
            UserError: If it cannot be written.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Ends the log."""

    def discard(self, folder: Path) -> None:
        """Removes the log of a run that came to nothing.

        Args:
            folder (Path): The run directory.
        """
        raise NotImplementedError


class JsonLinesLog(EpochLog):
    """``metrics.jsonl``: each epoch as it is, a line of JSON."""

    def start(self, folder: Path, description: Mapping[str, Any], records: Sequence[Record]) -> None:
        self._path = folder / EPOCHS
        write_text(self._path, ''.join(map(_json_line, records)))

    def add(self, record: Record) -> None:
        _append(self._path, _json_line(record))

    def discard(self, folder: Path) -> None:
        (folder / EPOCHS).unlink(missing_ok=True)


class CsvLog(EpochLog):
    """``epochs.csv``: a row per epoch with the columns of :func:`scalars`; a cell is empty where an epoch was not
    evaluated."""

    def start(self, folder: Path, description: Mapping[str, Any], records: Sequence[Record]) -> None:
        self._path = folder / EPOCHS_TABLE
        self._training = TrainingConfig.from_dict(description['training'])
        self._rows = [scalars(record, self._training) for record in records]
        self._columns: list[str] = []
        self._write()

    def add(self, record: Record) -> None:
        row = scalars(record, self._training)
        self._rows.append(row)
        if row.keys() <= set(self._columns):
            _append(self._path, csv_text([self._cells(row)]))
        else:
            self._write()

    def discard(self, folder: Path) -> None:
        (folder / EPOCHS_TABLE).unlink(missing_ok=True)

    def _write(self) -> None:
        """Writes all rows, under the columns that any of them has."""
        self._columns = list(dict.fromkeys([*_FIRST_COLUMNS, *(column for row in self._rows for column in row)]))
        write_text(self._path, csv_text([map(csv_cell, self._columns), *map(self._cells, self._rows)]))

    def _cells(self, row: Mapping[str, float]) -> list[float | str]:
        return [row.get(column, '') for column in self._columns]


class TensorBoardLog(EpochLog):
    """Event files for TensorBoard (extra ``track``): :func:`scalars` by epoch, and the settings as text and as
    hyperparameters.

    A run that is gone on with adds a file of its own, as is usual there; TensorBoard drops the epochs of older files
    that were trained again, and shows the hyperparameters of the first.

    Raises:
        UserError: If tensorboard is not installed.
    """

    def __init__(self) -> None:
        require_library('tensorboard', '--tensorboard')

    def start(self, folder: Path, description: Mapping[str, Any], records: Sequence[Record]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._training = TrainingConfig.from_dict(description['training'])
        self._folder = folder
        # Files that are there hold these epochs, save perhaps the last: a checkpoint is written before its record.
        records = records[-1:] if any(folder.glob(EVENTS)) else records
        first = records[0]['epoch'] if records else 0
        _wait_for_a_later_name(folder)
        with _write_errors(folder):
            # The purge makes TensorBoard forget what older files hold from this step on.
            self._writer = SummaryWriter(str(folder), purge_step=first)
            self._add_settings(description, first)
        for record in records:
            self._add(record)
        self._flush()

    def add(self, record: Record) -> None:
        self._add(record)
        self._flush()

    def close(self) -> None:
        with _write_errors(self._folder):
            self._writer.close()

    def discard(self, folder: Path) -> None:
        for file in folder.glob(EVENTS):
            file.unlink(missing_ok=True)

    def _add(self, record: Record) -> None:
        for name, value in scalars(record, self._training).items():
            if name != 'epoch':
                self._writer.add_scalar(name, value, record['epoch'])

    def _add_settings(self, description: Mapping[str, Any], step: int) -> None:
        from torch.utils.tensorboard.summary import hparams

        text = json.dumps(description, indent=2)
        self._writer.add_text('settings', ''.join(f'    {line}\n' for line in text.splitlines()), step)
        values = {f'{part}/{name}': value if isinstance(value, (bool, int, float, str)) else str(value)
                  for part in ('run', 'model', 'training') for name, value in description[part].items()}
        # SummaryWriter.add_hparams would make a run of its own for them.
        for summary in hparams(values, {'val/recall@20': 0.0}):
            self._writer._get_file_writer().add_summary(summary)

    def _flush(self) -> None:
        with _write_errors(self._folder):
            self._writer.flush()


def scalars(record: Mapping[str, Any], training: TrainingConfig) -> dict[str, float]:
    """Returns an epoch on one level: ``epoch``, ``learning_rate``, ``train_seconds``, ``eval_seconds``, ``loss``, each
    term of it before its weight as ``loss/<term>`` and, where it was evaluated, ``val/<metric>``.

    Args:
        record (Mapping): The epoch, as :class:`~dgmrec_pyg.training.Fit` keeps it.
        training (TrainingConfig): Says the learning rate.
    """
    return {
        'epoch': record['epoch'],
        'learning_rate': training.learning_rate * training.learning_rate_factor(record['epoch'] - 1),
        'train_seconds': record['train_seconds'],
        'eval_seconds': record['eval_seconds'],
        'loss': record['loss'],
        **{f'loss/{name}': value for name, value in record['terms'].items()},
        **{f'val/{name}': value for name, value in (record['val'] or {}).items()},
    }


def _json_line(record: Record) -> str:
    return json.dumps(record) + '\n'


def _append(path: Path, text: str) -> None:
    with _write_errors(path), open(path, 'a', encoding='utf-8', newline='') as file:
        file.write(text)


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write '{path}': {error.strerror}; free some space or choose another "
                        'folder') from error


def _wait_for_a_later_name(folder: Path) -> None:
    """TensorBoard reads event files in the order of their names, and these begin with the second: a second file of the
    same second may stand before the first."""
    now = time.time()
    if any(folder.glob(f'events.out.tfevents.{int(now)}.*')):
        time.sleep(int(now) + 1 - now)
