"""Models side by side: mean and deviation over seeds, paired tests over users, and the strongest peer.

    python benchmarks/compare.py --dataset tiktok --models dgmrec lightgcn mgcn --seeds 0 1 2 3 4

See README.md beside this file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cells
import outputs
import paired
from cell_worker import Task

from dgmrec_pyg.errors import UserError, check_name
from dgmrec_pyg.evaluation import Interval
from dgmrec_pyg.nn import MODELS
from dgmrec_pyg.results import ResultFile

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the mask, and which model the others are tested against."""
    cells.add_missing_arguments(parser)
    tests = parser.add_argument_group('tests')
    tests.add_argument('--against', metavar='MODEL',
                       help='the model that all others are tested against (default: the first of --models)')


def tasks(arguments: argparse.Namespace) -> list[Task]:
    """Returns a task per seed and model; whole seeds come first."""
    if arguments.against is not None:  # Its cells may be there already, so it need not be among --models.
        check_name('model', arguments.against, MODELS)
    return [cells.make_task(arguments, {'model': model, 'seed': seed},
                            cells.base_run(arguments, model, seed, **cells.given_mask(arguments)))
            for seed in arguments.seeds for model in arguments.models]


def report(results: ResultFile, arguments: argparse.Namespace) -> str:
    """Returns the tables, and draws the first metric by model."""
    models, metric = outputs.models(results), results.header.metrics[0]
    first = arguments.against or next((name for name in arguments.models if name in models), models[0])
    if first not in models:
        raise UserError(f"--against {first}: no cell of this model is done in '{results.path}'")
    rows = {model: {name: outputs.over_seeds(results.select(model=model), name) for name in results.header.metrics}
            for model in models}
    rows = dict(sorted(rows.items(), key=lambda row: -row[1][metric].mean))
    peers = [model for model in rows if model != first]
    strongest = peers[0] if peers else None
    shown = {f'{model} (strongest peer)' if model == strongest else model: row for model, row in rows.items()}
    lines = outputs.heading(results, 'models side by side')
    lines += outputs.plot(results.folder / 'compare.png', lambda figure: draw(figure, metric, first, rows),
                          height=1.2 + 0.3 * len(rows))
    lines += outputs.metric_table('model', shown, results.header.metrics)
    lines += [f'The strongest peer is the best of all but {first} by the mean of {metric} on test.', '']
    for name in results.header.metrics:
        lines += paired.tests_table(name, first, paired.compare(results, 'model', first, name), peers)
    return '\n'.join(lines)


def draw(figure: Figure, metric: str, first: str, rows: dict[str, dict[str, Interval]]) -> None:
    """Draws a bar per model with the interval of its mean over seeds.

    Args:
        figure (Figure): Where to draw.
        metric (str): The metric.
        first (str): The model that stands out.
        rows (dict): Intervals by model and metric, the best model first.
    """
    axes = figure.subplots()
    outputs.draw_bars(axes, {name: row[metric] for name, row in rows.items()}, first)
    axes.set(xlabel=f'test {metric} (mean over seeds, 95 % interval)')


BENCHMARK = cells.Benchmark('compare', 'Models side by side, with paired tests over users.', add_arguments, tasks,
                            cells.missing_description, report)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    return cells.main(BENCHMARK, argv)


if __name__ == '__main__':
    sys.exit(main())
