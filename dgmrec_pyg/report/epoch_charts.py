"""Pictures of training: validation and losses by epoch, the epoch that was chosen marked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dgmrec_pyg.report.drawing import Chart, Point, Series, across, ticks, upward
from dgmrec_pyg.report.epochs import LOSS, TERM, VALIDATION
from dgmrec_pyg.report.layout import SEED, Layout
from dgmrec_pyg.report.source import Source
from dgmrec_pyg.report.tables import plain

_LOGARITHMIC_FROM = 20.0  # largest value by smallest


@dataclass(frozen=True)
class _Curve:
    """What is drawn of one cell: its row, what it is called, its epochs with their values, the epoch chosen."""

    row: str
    label: str
    values: list[tuple[int, float]]
    best_epoch: int | None


def training_charts(source: Source, layout: Layout) -> tuple[list[Chart], list[Chart]]:
    """Returns pictures by epoch, of all models and seeds whose epochs are on record.

    Args:
        source (Source): The results.
        layout (Layout): How they are laid out; gives rows their colors.

    Returns:
        tuple: The first metric on validation and the loss; then each term of the loss. Empty where there are no epochs.
    """
    metric = source.header.metrics[0]
    terms = sorted({name for curves in source.epochs.values() for name in curves if name.startswith(TERM)})
    titles = {f'{VALIDATION}{metric}': f'Validation {metric} by epoch', LOSS: 'Training loss by epoch'}
    main = [_chart(title, _curves(source, layout, name), layout) for name, title in titles.items()]
    of_terms = [_chart(plain(name[len(TERM):]), _curves(source, layout, name), layout) for name in terms]
    return [chart for chart in main if chart is not None], [chart for chart in of_terms if chart is not None]


def _curves(source: Source, layout: Layout, name: str) -> list[_Curve]:
    found = []
    for row, cells in layout.rows.items():
        for cell in cells:
            if values := source.epochs.get(cell.name, {}).get(name):
                place = '' if layout.axis is None else f', {plain(layout.axis)} {cell.cell.get(layout.axis)}'
                found.append(_Curve(row, f'{row}{place}, seed {cell.cell.get(SEED)}', values, cell.best_epoch))
    return found


def _chart(title: str, curves: Sequence[_Curve], layout: Layout) -> Chart | None:
    if not curves:
        return None
    values = [value for curve in curves for _, value in curve.values]
    last = max(epoch for curve in curves for epoch, _ in curve.values)
    x = across(1, last)
    y, y_ticks, is_logarithmic = _vertical(min(values), max(values))
    series = [_series(curve, x, y, layout.number_of(curve.row)) for curve in curves]
    x_ticks = [(x(tick), f'{tick:g}') for tick, _ in ticks(1, max(last, 2)) if tick == round(tick)]
    note = 'A line for each seed; the epoch that validation chose is marked.'
    return Chart(title, note + (' The scale is logarithmic.' if is_logarithmic else ''), 'epoch', title, x_ticks,
                 [(y(tick), text) for tick, text in y_ticks], series)


def _vertical(low: float, high: float) -> tuple[Callable[[float], float], list[tuple[float, str]], bool]:
    """The positions of values, their ticks, and whether the scale is logarithmic, as for losses that fall by far."""
    if low > 0 and high / low > _LOGARITHMIC_FROM:
        position = upward(math.log10(low) - 0.05, math.log10(high) + 0.05)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1, ) if len(powers) > 4 else (1, 3)
        found = [step * 10.0 ** power for power in powers[::math.ceil(len(powers) / 7)] for step in steps]
        return (lambda value: position(math.log10(value)),
                [(tick, f'{tick:g}') for tick in found if low <= tick <= high], True)
    margin = 0.05 * ((high - low) or abs(high) or 1.0)
    return upward(low - margin, high + margin), ticks(low - margin, high + margin), False


def _series(curve: _Curve, x: Callable[[float], float], y: Callable[[float], float], number: int) -> Series:
    points = [Point(x(epoch), y(value), math.nan, math.nan, f'{curve.label}: {value:.4g} in epoch {epoch}')
              for epoch, value in curve.values]
    chosen = [point for point, (epoch, _) in zip(points, curve.values, strict=True) if epoch == curve.best_epoch]
    return Series(curve.row, number, points, marks=chosen)
