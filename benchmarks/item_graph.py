"""Measures how an item graph is built: exactly, block by block, and by an approximate index.

    python benchmarks/item_graph.py --items 1000000 --channels 384 --rows 1024

All pairs of a million items would take hours, so the exact neighbors of some rows only are computed, against the whole
table, and the time of all is extrapolated. Each way runs in a process of its own. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from speed_report import open_pyplot
from speed_worker import status_bytes
from torch import Tensor

from dgmrec_pyg.command_line import make_main, require_library
from dgmrec_pyg.config import KNN_INDEX
from dgmrec_pyg.console import table
from dgmrec_pyg.files import atomic_path, write_text
from dgmrec_pyg.memory import LIBRARY_BYTES, require_bytes
from dgmrec_pyg.nn import build_knn_graph
from dgmrec_pyg.nn.knn_graph import connect
from dgmrec_pyg.nn.nearest import exact_neighbors

CLUSTER_ITEMS = 50
NOISE = 1.0  # beside centers of the same size: a cosine of about 0.5 between items of one cluster
MADE_ROWS = 65_536  # made at a time
EDGE_BYTES = 120  # per edge, while edges are put together


@dataclass(frozen=True)
class Task:
    """What is measured.

    Attributes:
        items (int): Number of items.
        channels (int): Size of their features.
        rows (int): Items whose exact neighbors are computed.
        k (int): Neighbors per item.
        seed (int): Draws the features.
    """

    items: int = 1_000_000
    channels: int = 384
    rows: int = 1_024
    k: int = 10
    seed: int = 0

    def estimated_bytes(self) -> int:
        """About what the process of either way holds: features, and a copy or an index of them or, later, the edges."""
        features = 4 * self.items * self.channels
        return LIBRARY_BYTES + features + max(features, EDGE_BYTES * self.items * self.k)


def make_features(task: Task) -> Tensor:
    """Makes clustered features, ``[items, channels]``."""
    generator = torch.Generator().manual_seed(task.seed)
    centers = torch.randn(max(1, task.items // CLUSTER_ITEMS), task.channels, generator=generator)
    cluster = torch.randint(centers.size(0), (task.items,), generator=generator)
    x = torch.empty(task.items, task.channels)
    for first in range(0, task.items, MADE_ROWS):
        rows = x[first:first + MADE_ROWS].normal_(0.0, NOISE, generator=generator)
        rows += centers[cluster[first:first + MADE_ROWS]]
    return x


def chosen_rows(task: Task) -> Tensor:
    """The rows whose exact neighbors are computed, spread evenly."""
    return torch.linspace(0, task.items - 1, task.rows).long().unique()


def measure_exact(task: Task) -> dict[str, Any]:
    """Computes the exact neighbors of some rows and puts together as many edges as all rows would have."""
    x, rows = make_features(task), chosen_rows(task)
    missing = torch.zeros(task.items, dtype=torch.bool)
    fixed, _ = _timed(lambda: exact_neighbors(x, task.k, rows=rows[:1]))
    of_rows, (neighbor, similarity) = _timed(lambda: exact_neighbors(x, task.k, rows=rows))
    repeated = torch.arange(task.items) % rows.numel()
    rest, _ = _timed(lambda: connect(neighbor[repeated], similarity[repeated], missing, positive=False))
    per_row = (of_rows - fixed).clamp(min=0) / max(rows.numel() - 1, 1)
    seconds, cpu_seconds = (fixed + per_row * task.items + rest).tolist()
    return {'seconds': seconds, 'cpu_seconds': cpu_seconds, 'rows': rows.numel(), 'seconds_of_rows': of_rows[0].item(),
            'peak_bytes': status_bytes('VmHWM'), 'threads': torch.get_num_threads(), 'neighbors': neighbor}


def measure_approximate(task: Task) -> dict[str, Any]:
    """Builds the whole graph by the approximate index."""
    x, rows = make_features(task), chosen_rows(task)
    taken, ((source, target), _) = _timed(lambda: build_knn_graph(x, task.k, index='approximate'))
    wanted = torch.isin(target, rows)
    seconds, cpu_seconds = taken.tolist()
    return {'seconds': seconds, 'cpu_seconds': cpu_seconds, 'rows': task.items, 'peak_bytes': status_bytes('VmHWM'),
            'pairs': target[wanted] * task.items + source[wanted]}


MEASURES = dict(zip(KNN_INDEX, (measure_exact, measure_approximate), strict=True))


def _timed(call: Callable[[], Any]) -> tuple[Tensor, Any]:
    """Seconds that a call takes and that processors spend on it, and its result."""
    start, cpu_start = time.perf_counter(), time.process_time()
    result = call()
    return torch.tensor([time.perf_counter() - start, time.process_time() - cpu_start], dtype=torch.double), result


def in_own_process(task: Task, index: str, threads: int | None = None) -> dict[str, Any]:
    """Measures one way in a new process, so that its peak memory is its own.

    Args:
        task (Task): What is measured.
        index (str): ``'exact'`` or ``'approximate'``.
        threads (int, optional): CPU threads. (default: as PyTorch and faiss choose)
    """
    if threads is not None:  # Read when a process starts.
        os.environ['OMP_NUM_THREADS'] = str(threads)
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        return pool.submit(MEASURES[index], task).result()


def measure(task: Task, threads: int | None = None) -> dict[str, Any]:
    """Returns the report: both ways, and the share of the exact neighbors that the approximate way finds."""
    require_bytes(task.estimated_bytes(), f'a graph of {task.items:,} items with features of {task.channels:,}',
                  'give smaller --items or --channels')
    exact = in_own_process(task, 'exact', threads)
    approximate = in_own_process(task, 'approximate', threads)
    true_pairs = (chosen_rows(task).unsqueeze(1) * task.items + exact.pop('neighbors')).flatten()
    approximate['recall'] = torch.isin(true_pairs, approximate.pop('pairs')).double().mean().item()
    return {'task': asdict(task), 'feature_bytes': 4 * task.items * task.channels,
            'threads': exact.pop('threads'), 'exact': exact, 'approximate': approximate}


def show(report: dict[str, Any]) -> str:
    """Returns the table of a report."""
    task, exact, approximate = report['task'], report['exact'], report['approximate']
    rows = [[name, f"{way['seconds']:.1f}", f"{way['cpu_seconds']:.1f}", _mebibytes(way['peak_bytes']),
             f"{way.get('recall', 1.0):.4f}"] for name, way in (('exact', exact), ('approximate', approximate))]
    text = table(['', 'seconds', 'CPU seconds', 'peak MiB', f"recall of the {task['k']} nearest"], rows)
    if exact['rows'] < task['items']:
        text += (f"\nThe exact time is extrapolated from {exact['rows']:,} of {task['items']:,} rows, which took "
                 f"{exact['seconds_of_rows']:.1f} s; recall is that of these rows.")
    return (f"{task['items']:,} items, features of {task['channels']:,} ({_mebibytes(report['feature_bytes'])} MiB), "
            f"{report['threads']} CPU threads\n{text}")


def plot(report: dict[str, Any], path: Path) -> None:
    """Draws seconds and peak memory of both ways; needs matplotlib."""
    pyplot = open_pyplot()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout='constrained')
    names = [f"approximate\n(recall {report['approximate']['recall']:.3f})", 'exact']
    ways = [report['approximate'], report['exact']]
    if report['exact']['rows'] < report['task']['items']:
        names[1] += f"\n(time from {report['exact']['rows']:,} rows)"
    seconds = left.barh(names, [way['seconds'] for way in ways], height=0.5)
    left.bar_label(seconds, [f"{way['seconds']:,.0f} s\n({way['cpu_seconds']:,.0f} CPU)" for way in ways], padding=3)
    left.set(xlabel='seconds')
    peaks = right.barh(names, [(way['peak_bytes'] or 0) / 2**20 for way in ways], height=0.5)
    right.bar_label(peaks, [f"{_mebibytes(way['peak_bytes'])} MiB" for way in ways], padding=3)
    right.axvline(report['feature_bytes'] / 2**20, color='black', linestyle=':', label='the features themselves')
    right.set(xlabel='peak memory of the process, MiB', yticklabels=[])
    right.legend(loc='center right')
    for axes in (left, right):
        axes.margins(x=0.5)
    figure.suptitle(f"Item graph of {report['task']['items']:,} items, features of {report['task']['channels']}")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _mebibytes(count: int | None) -> str:
    return 'unknown' if count is None else f'{count / 2**20:,.0f}'


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(prog='item_graph.py', description='Measures how an item graph is built.')
    for name, default, text in (('items', Task.items, 'number of items'), ('channels', Task.channels, 'feature size'),
                                ('rows', Task.rows, 'items whose exact neighbors are computed'),
                                ('k', Task.k, 'neighbors per item')):
        parser.add_argument(f'--{name}', type=count, default=default, metavar='N', help=f'{text} (default: {default})')
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='of the features (default: 0)')
    parser.add_argument('--threads', type=count, metavar='N', help='CPU threads (default: as PyTorch chooses)')
    parser.add_argument('--smoke', action='store_true', help='the smallest size, to see that everything works')
    parser.add_argument('--output', type=Path, default=Path(__file__).resolve().parent / 'results', metavar='DIR',
                        help='where results are written (default: results beside this file)')
    return parser


def count(text: str) -> int:
    """Returns a number of the command line, 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'give 1 or more (got {number})')
    return number


def _run(argv: list[str]) -> int:
    """Measures, prints the table and writes ``item-graph.json`` and a plot."""
    arguments = build_parser().parse_args(argv)
    require_library('faiss', 'the approximate way')
    sizes = (2_000, 16, 200) if arguments.smoke else (arguments.items, arguments.channels, arguments.rows)
    task = Task(*sizes[:2], min(sizes[2], sizes[0]), arguments.k, arguments.seed)
    report = measure(task, arguments.threads)
    print(show(report))
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_text(arguments.output / 'item-graph.json', json.dumps(report, indent=2) + '\n')
    if find_spec('matplotlib') is not None:
        with atomic_path(arguments.output / 'item-graph.png') as path:
            plot(report, path)
    print(f"written to {arguments.output / 'item-graph.json'}")
    return 0


main = make_main(_run)

if __name__ == '__main__':
    sys.exit(main())
