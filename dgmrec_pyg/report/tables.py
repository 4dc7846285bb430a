"""The tables of a report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dgmrec_pyg.evaluation import Comparison, Interval
from dgmrec_pyg.report.layout import LESS_IS_BETTER, SEED, Layout, badness, interval, metric_of, place_text
from dgmrec_pyg.report.significance import LEVEL, Comparisons
from dgmrec_pyg.report.source import Source
from dgmrec_pyg.results import Cell

MISSING = '\N{EN DASH}'


@dataclass(frozen=True)
class Entry:
    """What stands in a table.

    Attributes:
        text (str): What is shown.
        key (float, str, optional): What is sorted by; entries without one stand last.
        best (bool): Whether it is the best of its column.
        mark (str): What stands behind it.
    """

    text: str
    key: float | str | None = None
    best: bool = False
    mark: str = ''


@dataclass(frozen=True)
class Table:
    """A table that sorts by any column.

    Attributes:
        title (str): Its heading.
        columns (list): Names of the columns.
        rows (list): Its entries.
        note (str): What is said below the heading.
        folded (bool): Whether it is shown only when asked for.
    """

    title: str
    columns: list[str]
    rows: list[list[Entry]]
    note: str = ''
    folded: bool = False


def text(value: Any) -> Entry:
    """Returns an entry that sorts as a number where it is one, else as text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return number(value, '.0f' if isinstance(value, int) else 'g')
    return Entry(str(value), str(value))


def number(value: Any, form: str = '.4f') -> Entry:
    """Returns a number as an entry; a dash for what is none.

    Args:
        value (Any): The number.
        form (str): How it is written. (default: :obj:`'.4f'`)
    """
    try:
        value = float(value)
    except (TypeError, ValueError, OverflowError):
        return Entry(MISSING)
    return Entry(format(value, form), value) if math.isfinite(value) else Entry(MISSING)


def spread(found: Interval | None, metric: str, best: bool = False, mark: str = '') -> Entry:
    """Returns mean and standard deviation over seeds as an entry.

    Args:
        found (Interval, optional): The interval.
        metric (str): The metric.
        best (bool): Whether it is the best of its column. (default: :obj:`False`)
        mark (str): What stands behind it. (default: nothing)
    """
    if found is None:
        return Entry(MISSING)
    digits = 1 if metric in LESS_IS_BETTER else 4
    shown = f'{found.mean:.{digits}f}' + (f' ± {found.std:.{digits}f}' if found.count > 1 else '')
    return Entry(shown, found.mean, best, mark)


def comparison_tables(source: Source, layout: Layout, tests: Comparisons) -> list[Table]:
    """Returns the test metrics by row: all of them in one table, or by place in one table each.

    Args:
        source (Source): The results.
        layout (Layout): How they are laid out.
        tests (Comparisons): Which rows differ from the reference.
    """
    metrics = source.header.metrics
    compared = len(layout.rows) > 1
    note = _averaged(source) + ('; the best of each column in bold.' if compared else '.')
    if tests.all:
        note += f" * differs from {layout.reference} (p < {LEVEL} by Wilcoxon's test over users, corrected by Holm)."
    if layout.axis is None:
        return [_by_column('Comparison' if compared else 'Test metrics', layout,
                           {metric: (metric, None) for metric in metrics}, tests, note)]
    return [_by_column(f'{metric} by {plain(layout.axis)}', layout,
                       {place_text(place): (metric, place) for place in layout.places}, tests,
                       note if metric == metrics[0] else '') for metric in metrics]


def _averaged(source: Source) -> str:
    """What an entry is, as the beginning of a note."""
    seeds = {cell.cell.get(SEED) for cell in source.done}
    return 'Mean over seeds, ± standard deviation' if len(seeds) > 1 else 'One seed'


def _by_column(title: str, layout: Layout, columns: Mapping[str, tuple[str, Any]], tests: Comparisons, note: str
               ) -> Table:
    """A table with a column for each metric and place."""
    rows = {row: {name: interval(layout.at(row, place), metric) for name, (metric, place) in columns.items()}
            for row in layout.rows}
    entries = _entries(rows, {name: metric for name, (metric, _) in columns.items()},
                       lambda row, name: '*' if tests.differs(row, columns[name][1], columns[name][0]) else '')
    seeds = [max((one.count for one in row.values() if one is not None), default=0) for row in rows.values()]
    return Table(title, [plain(layout.row_name), 'seeds', *columns], [
        [name, number(count, 'g'), *found] for (name, *found), count in zip(entries, seeds, strict=True)], note)


def tests_table(layout: Layout, tests: Comparisons) -> Table | None:
    """Returns the paired tests; :obj:`None` where there are none.

    Args:
        layout (Layout): How the results are laid out.
        tests (Comparisons): The tests.
    """
    if not tests.all:
        return None
    place = [] if layout.axis is None else [plain(layout.axis)]
    rows = [[*(text(test.place) for _ in place), text(test.metric), text(test.row), *_tested(test.found)]
            for test in tests.all]
    return Table(f'{layout.reference} less each other',
                 [*place, 'metric', 'against', 'seeds', 'users', 'difference', '95 % interval', 'detectable',
                  'p (t test)', 'p (Wilcoxon)'], rows,
                 'Over test users, each by the mean over the seeds that both have; two-sided paired tests. p values '
                 'are corrected by Holm for the number of rows compared, intervals are not; seeds differ beyond them. '
                 'A true difference of the size under "detectable" is found by the t test in 80 % of cases, at the '
                 'strictest of the corrected levels.')


def _tested(found: Comparison) -> list[Entry]:
    difference = found.test.difference
    return [number(found.seeds, 'g'), number(difference.count, ',.0f'), number(difference.mean, '+.4f'),
            Entry(f'{difference.low:+.4f} to {difference.high:+.4f}', difference.low), number(found.detectable),
            _p(found.t_test_p), _p(found.wilcoxon_p)]


def _p(value: float) -> Entry:
    return Entry(f'{value:.3f}' if value >= 0.001 else f'{value:.1e}', value)


def group_tables(source: Source, layout: Layout) -> list[Table]:
    """Returns the test metrics by part of the items, such as those that lack the same: by place and metric a table of
    rows by parts; where there is but one row, by place one of parts by metrics.

    Args:
        source (Source): The results.
        layout (Layout): How they are laid out.
    """
    metrics = source.header.metrics
    tables = []
    for place in layout.places:
        where = '' if layout.axis is None else f', {plain(layout.axis)} {place_text(place)}'
        cells = {row: layout.at(row, place) for row in layout.rows}
        sizes = {name: found.get('users', found.get('queries')) for of_row in cells.values() for cell in of_row
                 for name, found in cell.groups.items()}
        if not sizes:
            continue
        if len(layout.rows) == 1:
            tables.append(_parts_by_metrics(f'By part{where}', next(iter(cells.values())), sizes, metrics))
            continue
        for metric in metrics:
            rows = {row: {part: interval(of_row, metric, part) for part in sizes} for row, of_row in cells.items()}
            tables.append(Table(
                f'{metric} by part of the items{where}',
                [plain(layout.row_name),
                 *(f'{part} ({number(size, ",.0f").text} users)' for part, size in sizes.items())],
                _entries(rows, dict.fromkeys(sizes, metric)),
                '' if tables else 'What is looked for is limited to items of the part; all items are ranked, except '
                                  'among new ones. Users are those of one seed who look for such items.',
                folded=metric != metrics[0]))
    return tables


def _parts_by_metrics(title: str, cells: Sequence[Cell], sizes: Mapping[str, Any], metrics: Sequence[str]) -> Table:
    rows = [[text(part), number(size, ',.0f'), *(spread(interval(cells, metric, part), metric) for metric in metrics)]
            for part, size in sizes.items()]
    note = 'Mean over seeds, ± standard deviation; users' if len(cells) > 1 else 'Users'
    return Table(title, ['part', 'users or queries', *metrics], rows, f'{note} or queries are those of one seed.')


def _entries(rows: Mapping[str, Mapping[str, Interval | None]], metrics: Mapping[str, str],
             mark: Callable[[str, str], str] = lambda row, column: '') -> list[list[Entry]]:
    """Rows of intervals with the best of each column.

    Args:
        rows (Mapping): For each row its interval by column.
        metrics (Mapping): The metric of each column.
        mark (Callable): What stands behind the entry of a row and a column.
    """
    least = {column: min(badness(row[column], metric) for row in rows.values()) for column, metric in metrics.items()}
    return [[text(name), *(
        spread(row[column], metric, len(rows) > 1 and badness(row[column], metric) == least[column], mark(name, column))
        for column, metric in metrics.items())] for name, row in rows.items()]


def generation_table(source: Source, layout: Layout) -> Table | None:
    """Returns how near generated features come to the true ones; :obj:`None` where no cell says.

    Args:
        source (Source): The results.
        layout (Layout): How they are laid out.
    """
    rows = []
    place = [] if layout.axis is None else [layout.axis]
    for cell in source.done:
        for modality, parts in _objects(cell.generation):
            for part, found in _objects(parts):
                cosines = [number(dict(_objects(found)).get(kind, {}).get(which))
                           for kind in ('cosine', 'centered_cosine') for which in ('generated', 'imputed')]
                rows.append([text(layout.row_of(cell)), *(text(cell.cell.get(axis, '')) for axis in (*place, SEED)),
                             text(modality), text(part), number(found.get('num_items'), ',.0f'), *cosines])
    if not rows:
        return None
    return Table('Generated features beside the true ones',
                 [plain(layout.row_name), *map(plain, place), SEED, 'modality', 'items', 'number',
                  'cosine: generated', 'cosine: imputed', 'centered: generated', 'centered: imputed'], rows,
                 'Cosine similarity to the hidden truth, and the same after removing the mean of the observed items, '
                 'where imputing the mean is 0.')


def _objects(value: Mapping[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    """The entries of an object that are objects."""
    return [(name, found) for name, found in value.items() if isinstance(found, dict)]


def cells_table(source: Source) -> Table:
    """Returns all cells, one a row.

    Args:
        source (Source): The results.
    """
    axes = list(dict.fromkeys(axis for cell in source.cells for axis in cell.cell))
    metrics = source.header.metrics
    rows = [[*(text(cell.cell.get(axis, '')) for axis in axes), text(cell.status), number(cell.seconds, '.1f'),
             number(cell.best_epoch, 'g'), *(number(cell.metrics.get('val', {}).get(metric)) for metric in metrics[:1]),
             *(number(metric_of(cell, metric)) for metric in metrics)] for cell in source.cells]
    return Table('All cells', [*map(plain, axes), 'status', 'seconds', 'best epoch', f'validation {metrics[0]}',
                               *(f'test {metric}' for metric in metrics)], rows)


def failed_table(source: Source) -> Table | None:
    """Returns the cells that failed and why; :obj:`None` where none did.

    Args:
        source (Source): The results.
    """
    if not source.failed:
        return None
    rows = [[text(', '.join(f'{axis} {value}' for axis, value in cell.cell.items())), text(cell.error or MISSING),
             number(cell.seconds, '.1f')] for cell in source.failed]
    return Table('Failed cells', ['cell', 'error', 'seconds'], rows)


def plain(name: str) -> str:
    """Returns a name of code as words."""
    return name.replace('_', ' ')
