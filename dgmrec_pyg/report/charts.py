"""Pictures of test metrics: lines against a number, or a row of dots for each model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dgmrec_pyg.evaluation import Interval
from dgmrec_pyg.report import drawing
from dgmrec_pyg.report.drawing import Chart, Point, Series, across, scale, thinned, ticks, upward
from dgmrec_pyg.report.layout import Layout, interval, place_text
from dgmrec_pyg.report.tables import plain

_ROW = 24.0
_NAMES = 190.0
_LONGEST_NAME = 26


def chart(layout: Layout, metric: str) -> Chart | None:
    """Returns a picture of a metric: lines against the places, or a row of dots; :obj:`None` where one row is all.

    Args:
        layout (Layout): How the results are laid out.
        metric (str): The metric.
    """
    found = {row: {place: interval(layout.at(row, place), metric) for place in layout.places} for row in layout.rows}
    rows = {row: {place: one for place, one in of_row.items() if one is not None} for row, of_row in found.items()}
    rows = {row: of_row for row, of_row in rows.items() if of_row}
    if layout.axis is not None and rows:
        return _lines(layout, metric, rows)
    return _dots(layout, metric, {row: of_row[None] for row, of_row in rows.items()}) if len(rows) > 1 else None


def _lines(layout: Layout, metric: str, rows: dict[str, dict[float, Interval]]) -> Chart:
    low, high = _range([one for of_row in rows.values() for one in of_row.values()])
    x, y = across(min(layout.places), max(layout.places)), upward(low, high)
    points = {name: [Point(x(place), y(one.mean), y(one.low), y(one.high),
                           f'{name}, {place_text(place)}: {_shown(one)}')
                     for place, one in sorted(of_row.items())] for name, of_row in rows.items()}
    return Chart(f'Test {metric} by {plain(str(layout.axis))}',
                 _note('Bands', rows.values()), plain(str(layout.axis)),
                 f'test {metric}', [(x(place), place_text(place)) for place in thinned(layout.places)],
                 [(y(tick), text) for tick, text in ticks(low, high)], _series(layout, points))


def _note(marks: str, rows: Iterable[Mapping[Any, Interval]]) -> str:
    if all(one.count < 2 for of_row in rows for one in of_row.values()):
        return 'One seed each: there is no interval.'
    return f"{marks} are 95 % confidence intervals of the mean over seeds (Student's t)."


def _dots(layout: Layout, metric: str, rows: dict[str, Interval]) -> Chart:
    low, high = _range(list(rows.values()))
    height = drawing.TOP + drawing.BOTTOM + _ROW * len(rows)
    x = scale(low, high, _NAMES, drawing.WIDTH - drawing.RIGHT)
    points = {name: [Point(x(one.mean), drawing.TOP + _ROW * (number + 0.5), x(one.low), x(one.high),
                           f'{name}: {_shown(one)}')] for number, (name, one) in enumerate(rows.items())}
    names = [(found[0].y, _shortened(name)) for name, found in points.items()]
    return Chart(f'Test {metric}', _note('Lines', [rows]),
                 f'test {metric}', '', [(x(tick), text) for tick, text in ticks(low, high)], names,
                 _series(layout, points), height, _NAMES, dots=True)


def _series(layout: Layout, points: dict[str, list[Point]]) -> list[Series]:
    compared = len(layout.rows) > 1
    return [Series(name, layout.number_of(name), found, compared and name == layout.reference)
            for name, found in points.items()]


def _shown(one: Interval) -> str:
    return f'{one.mean:.4f}' + (f' ({one.low:.4f} to {one.high:.4f})' if one.count > 1 else '')


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f'{name[:_LONGEST_NAME - 1]}…'


def _range(found: Sequence[Interval]) -> tuple[float, float]:
    """What part of an axis is shown: all means, and of intervals, which are wide with few seeds, at most half as much
    again on each side; nothing below zero for its own sake."""
    low, high = min(one.mean for one in found), max(one.mean for one in found)
    span = (high - low) or 0.2 * abs(high) or 1.0
    ends = [end for one in found for end in (one.low, one.high) if not math.isnan(end)]
    floor = 0.0 if low >= 0 else -math.inf
    return (max(floor, low - 0.5 * span, min([low - 0.1 * span, *ends])),
            min(high + 0.5 * span, max([high + 0.1 * span, *ends])))
