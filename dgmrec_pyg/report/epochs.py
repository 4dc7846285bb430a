"""The epochs of a run as curves, read from its ``metrics.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dgmrec_pyg.epoch_logs import EPOCHS
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.reading import read_bytes

LOSS = 'loss'
TERM = 'loss/'
VALIDATION = 'val/'
_MAX_BYTES = 64 * 2**20
_TOO_LARGE = 1e12  # for an axis

Curves = dict[str, list[tuple[int, float]]]
"""Epochs with a value each: of the loss (``'loss'``), its terms before their weights (``'loss/<term>'``) and metrics on
validation (``'val/<metric>'``)."""


def read_curves(folder: Path) -> Curves:
    """Reads the curves of a run.

    A last line that is not whole, as a killed run leaves it, is dropped; so are values that are no finite numbers.

    Args:
        folder (Path): The run directory.

    Returns:
        dict: The curves by name; none where no epochs are on record.

    Raises:
        UserError: If the file cannot be read or a line of it is damaged.
    """
    path = folder / EPOCHS
    if not path.exists():
        return {}
    *lines, _ = read_bytes(path, _MAX_BYTES).split(b'\n')
    curves: Curves = {}
    for number, line in enumerate(lines, start=1):
        try:
            epoch, values = _epoch(line)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"line {number} of '{path}' is damaged ({type(error).__name__}); remove the "
                            'line') from error
        for name, value in values:
            if _is_number(value):
                curves.setdefault(name, []).append((epoch, float(value)))
    return curves


def _epoch(line: bytes) -> tuple[int, list[tuple[str, Any]]]:
    record = json.loads(line)
    if not isinstance(record['epoch'], int) or not 0 < record['epoch'] < _TOO_LARGE:
        raise ValueError('no epoch')
    return record['epoch'], [(LOSS, record['loss']), *_named(TERM, record['terms']), *_named(VALIDATION, record['val'])]


def _named(prefix: str, values: dict[str, Any] | None) -> Iterator[tuple[str, Any]]:
    return ((prefix + name, value) for name, value in (values or {}).items())


def _is_number(value: Any) -> bool:
    """Whether a value can be drawn: a number, finite and not too large for an axis."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _TOO_LARGE
