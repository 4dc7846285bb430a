"""How new items are recommended, and old ones beside them, with and without missing modalities.

    python benchmarks/new_items.py --dataset tiktok --models dgmrec lightgcn milk sibrar --ratios 0 0.6 --seeds 0 1 2

A fifth of the items is held out: all their interactions become test interactions. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cells
import outputs
from cell_worker import Task

from dgmrec_pyg.evaluation import Interval
from dgmrec_pyg.results import ResultFile
from dgmrec_pyg.transforms import MissingModality

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATIOS = (0.0, 0.6)
AXIS = 'missing_ratio'
COLUMNS = {'all items': None, 'old items': 'old', 'new items': 'new', 'new among new': 'among new'}
"""Columns of the tables, and the groups of a cell that they show."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the ratios."""
    group = parser.add_argument_group('what is missing')
    group.add_argument('--ratios', '--missing-ratio', nargs='+', type=float, default=list(RATIOS), metavar='R',
                       help='shares of the items, of new and old ones alike, that lack a modality '
                            f"(default: {' '.join(map(str, RATIOS))})")


def tasks(arguments: argparse.Namespace) -> list[Task]:
    """Returns a task per seed, ratio and model; whole seeds come first."""
    return [cells.make_task(arguments, {'model': model, AXIS: ratio, 'seed': seed},
                            cells.base_run(arguments, model, seed, new_items=True),
                            MissingModality(ratio=ratio, seed=seed))
            for seed in arguments.seeds for ratio in dict.fromkeys(arguments.ratios) for model in arguments.models]


def common(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns what all cells share."""
    return {'masks': 'drawn'}


def rows_at(results: ResultFile, ratio: float, metric: str) -> dict[str, dict[str, Interval]]:
    """Returns a test metric by model and part of the items, over the seeds.

    Args:
        results (ResultFile): The results.
        ratio (float): The missing ratio.
        metric (str): The metric.
    """
    return {model: {column: outputs.over_seeds(results.select(model=model, missing_ratio=ratio), metric, group)
                    for column, group in COLUMNS.items()} for model in outputs.models(results)}


def report(results: ResultFile, arguments: argparse.Namespace) -> str:
    """Returns a table per ratio and metric, and draws new and old items apart."""
    first, ratios = results.header.metrics[0], results.values(AXIS)
    lines = outputs.heading(results, 'new and old items')
    lines += outputs.plot(results.folder / 'new_items.png', lambda figure: draw(
        figure, first, {ratio: rows_at(results, ratio, first) for ratio in ratios}), width=10.0,
        height=1.6 + 0.45 * len(outputs.models(results)))
    lines += ['Of old and of new items all are ranked, and labels are limited to these. In the last column only new '
              'items are ranked: beside old ones, which have interactions to learn from, most models hardly ever put '
              'them among the first.', '']
    for ratio in ratios:
        for metric in results.header.metrics:
            lines += [f'## {metric}, missing ratio {ratio:g}', '',
                      *outputs.metric_table('model', rows_at(results, ratio, metric), list(COLUMNS))]
    return '\n'.join(lines)


def draw(figure: Figure, metric: str, found: dict[float, dict[str, dict[str, Interval]]]) -> None:
    """Draws bars for old items, for new ones, and for new ones among themselves, with one bar per ratio.

    Args:
        figure (Figure): Where to draw.
        metric (str): The metric.
        found (dict): Intervals by ratio, model and column.
    """
    pictures = figure.subplots(1, 3, sharey=True)
    names = list(reversed(next(iter(found.values()))))
    height = 0.8 / len(found)
    for axes, column in zip(pictures, list(COLUMNS)[1:], strict=True):
        for number, (ratio, rows) in enumerate(found.items()):
            intervals = [rows[name][column] for name in names]
            places = [place + 0.4 - height * (number + 0.5) for place in range(len(names))]
            bars = axes.barh(places, [interval.mean for interval in intervals],
                             height=height, label=f'{ratio:g} missing', color=f'C{number}')
            axes.bar_label(bars, fmt='%.3f', fontsize=7, padding=2)
        axes.set(title=column, xlabel=f'test {metric}')
        axes.margins(x=0.2)
        axes.locator_params(axis='x', nbins=4)
        axes.grid(alpha=0.3, axis='x')
    pictures[0].set_yticks(range(len(names)), names)
    figure.legend(*pictures[0].get_legend_handles_labels(), loc='outside right center', frameon=False)


BENCHMARK = cells.Benchmark('new_items', 'How new items are recommended, and old ones beside them.', add_arguments,
                            tasks, common, report)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    return cells.main(BENCHMARK, argv)


if __name__ == '__main__':
    sys.exit(main())
