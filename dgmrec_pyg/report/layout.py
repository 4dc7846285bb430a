"""How cells are laid out: rows that are compared, places on an axis of numbers, seeds that are averaged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from dgmrec_pyg.evaluation import Interval, mean_interval
from dgmrec_pyg.report.source import Source
from dgmrec_pyg.results import Cell

SEED = 'seed'
MODEL = 'model'
LESS_IS_BETTER = ('median_rank', )
_REFERENCES = ('dgmrec', 'full')
_TOO_LARGE = 1e12  # for a metric or a place; no axis of a picture could be drawn


class Layout:
    """Rows by places, each entry with its seeds.

    Places are the values of the first axis that has several numbers, such as a missing ratio. Rows are told apart by
    the other axes that have several values; without one, there is one row, named after its model.

    Args:
        source (Source): The results.

    Attributes:
        axis (str, optional): The axis of the places, if there is one.
        places (list): Its values in ascending order; one :obj:`None` without such an axis.
        row_name (str): What the rows are, such as ``'model'``.
        rows (dict): The done cells by the name of the row; the best first, by the first metric at the first
            place.
    """

    def __init__(self, source: Source) -> None:
        values: dict[str, list[Any]] = {}
        for cell in source.done:
            for axis, value in cell.cell.items():
                if value not in values.setdefault(axis, []):
                    values[axis].append(value)
        several = [axis for axis, found in values.items() if axis != SEED and len(found) > 1]
        self.axis: str | None = next((axis for axis in several if _are_numbers(values[axis])), None)
        self.places: list[Any] = [None] if self.axis is None else sorted(values[self.axis])
        self._row_axes = [axis for axis in several if axis != self.axis] or [MODEL]
        self.row_name = ', '.join(self._row_axes)
        self.rows: dict[str, list[Cell]] = {}
        for cell in source.done:
            self.rows.setdefault(self.row_of(cell), []).append(cell)
        metric = source.header.metrics[0]
        self.rows = {row: self.rows[row] for row in sorted(self.rows, key=lambda row: [
            badness(interval(self.at(row, place), metric), metric) for place in self.places])}

    def row_of(self, cell: Cell) -> str:
        """Returns the name of a cell's row."""
        return ', '.join(str(cell.cell.get(axis, '')) for axis in self._row_axes)

    def at(self, row: str, place: Any) -> list[Cell]:
        """Returns the cells of an entry, which differ by their seeds.

        Args:
            row (str): Name of the row.
            place (Any): One of :attr:`places`.
        """
        return [cell for cell in self.rows[row] if self.axis is None or cell.cell.get(self.axis) == place]

    def number_of(self, row: str) -> int:
        """Returns the place of a row among :attr:`rows`."""
        return list(self.rows).index(row)

    @property
    def reference(self) -> str:
        """The row that the others are tested against: DGMRec, or the whole of it, where it is there, else the best."""
        return next((name for name in _REFERENCES if name in self.rows), next(iter(self.rows)))


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _TOO_LARGE
               for value in values)


def place_text(place: float) -> str:
    """Returns a place as it is shown: a whole number in full, which may be a seed, others by six digits."""
    return str(place) if isinstance(place, int) else f'{place:g}'


def metric_of(cell: Cell, metric: str, group: str | None = None) -> float:
    """Returns a test metric; NaN where it is none that a page could show.

    Args:
        cell (Cell): The cell.
        metric (str): The metric.
        group (str, optional): A part of the items. (default: all items)
    """
    try:
        value = cell.test(metric, group)
    except OverflowError:  # An integer that no float holds.
        return math.nan
    return value if abs(value) < _TOO_LARGE else math.nan


def interval(cells: Iterable[Cell], metric: str, group: str | None = None) -> Interval | None:
    """Returns the mean of a test metric over cells and its interval; :obj:`None` where no cell has it.

    Args:
        cells (Iterable[Cell]): The cells.
        metric (str): The metric.
        group (str, optional): A part of the items. (default: all items)
    """
    values = [value for value in (metric_of(cell, metric, group) for cell in cells) if not math.isnan(value)]
    return mean_interval(values) if values else None


def badness(found: Interval | None, metric: str) -> float:
    """Returns a number that is the lower the better a metric is; infinite where there is none.

    Args:
        found (Interval, optional): Its interval.
        metric (str): The metric.
    """
    if found is None:
        return math.inf
    return found.mean if metric in LESS_IS_BETTER else -found.mean
