"""What the benchmarks that compare models leave beside ``cells.jsonl``: a CSV, Markdown, plots."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgmrec_pyg.evaluation import Interval, mean_interval
from dgmrec_pyg.files import atomic_path, csv_cell, csv_text, write_text
from dgmrec_pyg.nn import MODELS
from dgmrec_pyg.results import Cell, ResultFile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TABLE = 'table.md'
CSV = 'cells.csv'
NOTHING = Interval(math.nan, math.nan, math.nan, math.nan, 0)
"""Stands where no cell has a value."""
LEAST_SPAN = 0.2
"""The least height of what a picture of lines shows, as a share of its middle."""


def write(results: ResultFile, markdown: str) -> str:
    """Writes ``cells.csv`` and ``table.md`` and returns what to print.

    Args:
        results (ResultFile): The results.
        markdown (str): The tables.
    """
    write_text(results.folder / CSV, _csv(results))
    write_text(results.folder / TABLE, markdown)
    return f'{markdown}\nwritten to {results.folder}'


def _csv(results: ResultFile) -> str:
    """One row per cell: axes, status, validation and test metrics."""
    axes = list(dict.fromkeys(axis for cell in results.cells for axis in cell.cell))
    columns = list(dict.fromkeys((split, name) for cell in results.cells for split, found in cell.metrics.items()
                                 for name in found))
    header = [*axes, 'status', 'seconds', 'best_epoch', *(f'{split} {name}' for split, name in columns)]
    rows = [[*(cell.cell.get(axis, '') for axis in axes), cell.status, cell.seconds, cell.best_epoch,
             *(_digits(cell.metrics.get(split, {}).get(name)) for split, name in columns)] for cell in results.cells]
    return csv_text([header, *(map(csv_cell, row) for row in rows)])


def _digits(value: float | None) -> str:
    return '' if value is None else f'{value:.6g}'


def models(results: ResultFile) -> list[str]:
    """Returns the models that have a cell, in the order of :obj:`dgmrec_pyg.nn.MODELS`, however cells came to end.

    Args:
        results (ResultFile): The results.
    """
    found = results.values('model')
    return [model for model in MODELS if model in found]


def heading(results: ResultFile, text: str) -> list[str]:
    """Returns the first lines of a benchmark's Markdown: what it is, of which set, by what settings.

    Args:
        results (ResultFile): The results.
        text (str): What the benchmark shows.
    """
    header = results.header
    shown = {name: ' '.join(value) if isinstance(value, list) else value for name, value in header.common.items()}
    settings = ', '.join(f'{name} {value}' for name, value in shown.items() if value not in (None, ''))
    seeds = ', '.join(map(str, results.values('seed')))
    lines = [f'# {header.dataset}: {text}', '',
             f'Test metrics, models chosen by validation. Seeds {seeds}; {settings}; '
             f'dgmrec_pyg {header.package_version}.', '']
    if results.failed:
        names = ', '.join(cell.name for cell in results.failed[:3])
        lines += [f'**{len(results.failed)} of {len(results.cells)} cells failed** and are not counted ({names}'
                  f"{', ...' if len(results.failed) > 3 else ''}).", '']
    return lines


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Returns a Markdown table and an empty line: first column to the left, all others to the right.

    Args:
        header (Sequence[str]): Names of the columns.
        rows (Iterable[Sequence[str]]): The cells.
    """
    lines = [header, ['---', *['---:'] * (len(header) - 1)], *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), '']


def over_seeds(cells: Iterable[Cell], metric: str, group: str | None = None) -> Interval:
    """Returns mean and interval of a test metric over cells that differ by their seeds; :obj:`NOTHING` where none has
    it.

    Args:
        cells (Iterable[Cell]): The cells.
        metric (str): Its name.
        group (str, optional): A part of the items. (default: all items)
    """
    values = [value for value in (cell.test(metric, group) for cell in cells) if not math.isnan(value)]
    return mean_interval(values) if values else NOTHING


def show(interval: Interval, digits: int = 4, bold: bool = False) -> str:
    """Returns ``0.1234 ± 0.0012``: mean and standard deviation; the mean alone of a single value.

    Args:
        interval (Interval): What to show; a dash for :obj:`NOTHING`.
        digits (int): Digits after the point. (default: :obj:`4`)
        bold (bool): Whether to set it off. (default: :obj:`False`)
    """
    if interval.count == 0:
        return '-'
    text = f'{interval.mean:.{digits}f}' + (f' ± {interval.std:.{digits}f}' if interval.count > 1 else '')
    return f'**{text}**' if bold else text


def best(intervals: Iterable[Interval]) -> float:
    """Returns the largest mean; NaN where there is none.

    Args:
        intervals (Iterable): What to choose from.
    """
    return max((interval.mean for interval in intervals if interval.count > 0), default=math.nan)


def metric_table(first: str, rows: Mapping[str, Mapping[str, Interval]], columns: Sequence[str],
                 digits: int = 4) -> list[str]:
    """Returns a Markdown table of intervals with the best of each column in bold.

    Args:
        first (str): Name of the first column.
        rows (Mapping): For each row's name its intervals by column.
        columns (Sequence[str]): The columns.
        digits (int): Digits after the point. (default: :obj:`4`)
    """
    top = {column: best(row.get(column, NOTHING) for row in rows.values()) for column in columns}

    def entry(row: Mapping[str, Interval], column: str) -> str:
        interval = row.get(column, NOTHING)
        return show(interval, digits, bold=len(rows) > 1 and interval.mean == top[column])

    return table([first, *columns], [[name, *(entry(row, column) for column in columns)] for name, row in rows.items()])


def plot(path: Path, draw: Callable[[Figure], None], width: float = 9.0, height: float = 4.2) -> list[str]:
    """Draws a picture and returns the Markdown that shows it; nothing where matplotlib is not installed.

    Args:
        path (Path): Where to write it, as PNG.
        draw (Callable): Draws on the figure.
        width, height (float): Its size in inches.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return []
    figure = Figure(figsize=(width, height), layout='constrained')
    draw(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return [f'![{path.stem}]({path.name})', '']


def styles(models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Returns how to draw the line of each model: DGMRec stands out, no two are alike.

    Args:
        models (Sequence[str]): The models.
    """
    colors = [f'C{number}' for number in (0, 1, 2, 4, 5, 6, 7, 8, 9)]
    markers = 'osD^vP*X'
    others = [model for model in models if model != 'dgmrec']
    found: dict[str, dict[str, Any]] = {
        model: {'color': colors[number % len(colors)], 'marker': markers[number % len(markers)], 'linewidth': 1.2,
                'markersize': 4, 'linestyle': '-' if number < len(colors) else '--'}
        for number, model in enumerate(others)}
    return found | {'dgmrec': {'color': 'C3', 'marker': 'o', 'linewidth': 2.6, 'markersize': 6, 'zorder': 5}}


def draw_lines(axes: Axes, lines: Mapping[str, Mapping[float, Interval]]) -> None:
    """Draws a line with its confidence band for each model.

    The lines decide what part is shown: the bands of two seeds would be several times as high. It is never so small
    that differences of a percent look like cliffs.

    Args:
        axes (Axes): Where to draw.
        lines (Mapping): For each model its intervals by the value on the horizontal axis.
    """
    look = styles(list(lines))
    known = {model: {x: interval for x, interval in sorted(points.items()) if interval.count > 0}
             for model, points in lines.items()}
    for model, points in known.items():
        axes.plot(list(points), [interval.mean for interval in points.values()], label=model, **look[model])
    low, high = axes.get_ylim()
    for model, points in known.items():
        if all(interval.count > 1 for interval in points.values()):
            axes.fill_between(list(points), [interval.low for interval in points.values()],
                              [interval.high for interval in points.values()], color=look[model]['color'], alpha=0.12,
                              linewidth=0)
    margin = max(0.15 * (high - low), (LEAST_SPAN * (low + high) / 2 - (high - low)) / 2)
    axes.set_ylim(low - margin, high + margin)
    axes.grid(alpha=0.3)


def draw_bars(axes: Axes, bars: Mapping[str, Interval], first: str) -> None:
    """Draws a bar with its confidence interval for each name, from the top.

    The means decide what part is shown: the intervals of two seeds would be several times as long.

    Args:
        axes (Axes): Where to draw.
        bars (Mapping): Intervals by name.
        first (str): The name that stands out.
    """
    known = {name: interval for name, interval in reversed(list(bars.items())) if interval.count > 0}
    means = [interval.mean for interval in known.values()]
    axes.barh(list(known), means, height=0.7, color=['C3' if name == first else 'C7' for name in known])
    limit = 1.25 * max(means, default=1.0) or 1.0
    axes.errorbar(means, list(known), fmt='none', ecolor='black', capsize=3, xerr=[
        0.0 if interval.count < 2 else interval.high - interval.mean for interval in known.values()])
    axes.set_xlim(0.0, limit)
    axes.grid(alpha=0.3, axis='x')
