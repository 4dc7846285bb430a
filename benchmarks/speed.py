"""Times the package, part by part, beside a textbook version and what the released implementation costs.

    python benchmarks/speed.py --dataset tiktok --root data

Everything is counted in units: one naive InfoNCE of 2,048 x 64, forward and backward, timed in the same run between
the parts. Each version runs in a process of its own. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import speed_report as show
import torch
from item_graph import Task as ItemGraphTask
from item_graph import count, in_own_process
from shapes import BABY, GROWTH, SMOKE, Shape

from dgmrec_pyg.command_line import PYTORCH_VARIABLES, run_command
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.experiment import data_sizes, resolve_device, resolve_settings
from dgmrec_pyg.files import atomic_path, write_text
from dgmrec_pyg.loading import RunSettings, load_data
from dgmrec_pyg.memory import check_memory, estimate_memory, require_bytes

FOLDER = Path(__file__).resolve().parent
SHAPES = {'baby-shaped': BABY}
PRESET_OF = {'baby-shaped': 'baby'}  # any other set is its own
TEXTBOOK_STEPS = {'baby-shaped': 5}  # where a whole epoch of the textbook version takes minutes
GROWTH_STEPS = 10
GROWTH_FACTORS = (1, 3, 10, 30, 100)
GROWTH_ROWS = 1_024  # items whose exact neighbors are computed, to extrapolate the time of the exact graph
TEXTBOOK_TABLES = 5  # items x items at once: similarities, graph, its normalization and a comparison of two
SMOKE_UNIT_REPEATS = 3


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(prog='speed.py', description='Times training and evaluation, in units.')
    parser.add_argument('--dataset', metavar='NAME',
                        help='synthetic (default), baby-shaped (made here), or the folder of a set under --root')
    parser.add_argument('--root', default='data', metavar='DIR', help='where sets are kept (default: data)')
    parser.add_argument('--preset', default='reference', choices=('reference', 'default'),
                        help='settings (default: reference, the mathematics of the paper)')
    parser.add_argument('--set', nargs='+', default=[], metavar='KEY=VALUE', dest='settings', help='change settings')
    parser.add_argument('--epochs', type=count, default=2, metavar='N', help='timed epochs (default: 2)')
    parser.add_argument('--repeats', type=count, default=5, metavar='N', help='of all other parts (default: 5)')
    parser.add_argument('--steps', type=count, metavar='N', help='time N steps per epoch only and extrapolate')
    parser.add_argument('--textbook', action=argparse.BooleanOptionalAction, default=True,
                        help='time the textbook version too (default: yes)')
    parser.add_argument('--textbook-steps', type=count, metavar='N',
                        help='steps of the textbook version (default: all; 5 on baby-shaped)')
    parser.add_argument('--time-to', type=float, metavar='RECALL',
                        help='also train until validation has this Recall@20')
    parser.add_argument('--profile', action='store_true', help='also write a trace and print the dearest operations')
    parser.add_argument('--growth', nargs='*', type=count, metavar='FACTOR',
                        help='time the package on synthetic sets so many times as large, instead (default: '
                             f'{" ".join(map(str, GROWTH_FACTORS))})')
    parser.add_argument('--smoke', action='store_true',
                        help='the smallest size, made here, to see that everything works; in place of --dataset')
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='of sets, parameters and batches (default: 0)')
    parser.add_argument('--device', default='auto', choices=('auto', 'cpu', 'cuda'), help='where to compute')
    parser.add_argument('--threads', type=count, metavar='N', help='CPU threads (default: as PyTorch chooses)')
    parser.add_argument('--output', type=Path, default=FOLDER / 'results', metavar='DIR',
                        help='where results are written (default: results beside this file)')
    return parser


def speed(arguments: argparse.Namespace) -> None:
    """Measures one set and writes ``speed-<dataset>.json`` and a plot."""
    if arguments.smoke and arguments.dataset is not None:
        raise UserError('--smoke times a set of its own; leave out --dataset')
    dataset = 'smoke' if arguments.smoke else arguments.dataset or 'synthetic'
    shape = SMOKE if arguments.smoke else SHAPES.get(dataset)
    task = base_task(arguments, shape, PRESET_OF.get(dataset, dataset))
    check_fit(task['run'], shape, arguments.textbook)
    name = report_name(dataset, arguments)
    report: dict[str, Any] = {'dataset': dataset, 'preset': arguments.preset, 'machine': machine(),
                              'released': show.RELEASED.get(dataset, {}), 'targets': show.TARGETS.get(dataset, {}),
                              'versions': {'package': run_task(task | {'kind': 'parts'})}}
    if arguments.textbook:
        steps = arguments.textbook_steps or arguments.steps or TEXTBOOK_STEPS.get(dataset)
        report['versions']['textbook'] = run_task(task | {'kind': 'parts', 'version': 'textbook', 'epochs': 1,
                                                          'repeats': min(2, task['repeats']), 'steps': steps})
    if arguments.time_to is not None:
        report['time_to'] = run_task(task | {'kind': 'time_to', 'recall': arguments.time_to})
    if arguments.profile:
        trace = arguments.output / f'trace-{name}.json'
        report['profile'] = run_task(task | {'kind': 'profile', 'trace': str(trace)})
    report['unit'] = summary([seconds for part in (*report['versions'].values(), report.get('time_to', {}))
                              for seconds in part.get('unit_seconds', [])])
    print(heading(report))
    print(show.speed_table(report))
    if 'time_to' in report:
        print(show.time_to_line(report['time_to'], report))
    if 'profile' in report:
        print(show.profile_table(report['profile']))
    write(report, arguments.output, f'speed-{name}', show.plot_speed)


def growth(arguments: argparse.Namespace) -> None:
    """Measures the package on synthetic sets of growing size and writes ``growth.json`` and a plot.

    With faiss the item graphs are approximate, unless settings say otherwise: exact ones take time with the square of
    the number of items. What these would take is measured by the way.
    """
    factors = sorted(set(arguments.growth)) or list(GROWTH_FACTORS)
    if find_spec('faiss') is not None and not any(pair.startswith('knn_index=') for pair in arguments.settings):
        arguments.settings = [*arguments.settings, 'knn_index=approximate']
    tasks = {factor: base_task(arguments, GROWTH.grown(factor), 'synthetic') for factor in factors}
    for factor, task in tasks.items():
        check_fit(task['run'], GROWTH.grown(factor))
    report: dict[str, Any] = {'preset': arguments.preset, 'settings': arguments.settings, 'machine': machine(),
                              'cells': []}
    for factor, task in tasks.items():
        measured = run_task(task | {'kind': 'parts', 'steps': arguments.steps or GROWTH_STEPS, 'repeats': 1})
        report['cells'].append({'factor': factor, 'set': measured['set'], 'measured': measured,
                                'exact_item_graphs': exact_graph_seconds(GROWTH.grown(factor), arguments)})
        print(f'x{factor}: {measured["seconds"]["epoch"]:.2f} s per epoch', file=sys.stderr)
    print(show.growth_table(report))
    suffix = '-cuda' if report['cells'][0]['measured']['device'] != 'cpu' else ''
    write(report, arguments.output, f'growth{suffix}', show.plot_growth)


def exact_graph_seconds(shape: Shape, arguments: argparse.Namespace) -> float:
    """Returns the seconds that exact item graphs of all modalities take on CPU, extrapolated from some rows."""
    return sum(in_own_process(ItemGraphTask(shape.num_items, size, min(GROWTH_ROWS, shape.num_items)), 'exact',
                              arguments.threads)['seconds'] for size in shape.features.values())


def check_fit(run: dict[str, Any], shape: Shape | None, textbook: bool = False) -> None:
    """Refuses a set that does not fit into memory; of a set made here, before anything is allocated.

    Args:
        run (dict): What :class:`~dgmrec_pyg.loading.RunSettings` takes.
        shape (Shape, optional): The set, where it is made here; else it is the run's.
        textbook (bool): Whether the textbook version is to run, too. (default: :obj:`False`)

    Raises:
        UserError: If the estimate is above what the machine has to give.
    """
    settings = RunSettings(**{**run, 'settings': tuple(run['settings'])})
    sizes = data_sizes(load_data(settings)) if shape is None else shape.sizes()
    device = resolve_device(settings.device)
    estimate = estimate_memory(sizes, *resolve_settings(settings), device)
    what = f'a set of {sizes.num_users:,} users, {sizes.num_items:,} items and {sizes.num_train:,} interactions'
    check_memory(estimate, device, what)
    if textbook:
        require_bytes(estimate.total + 4 * TEXTBOOK_TABLES * sizes.num_items ** 2, f'the textbook version on {what}',
                      'give --no-textbook or take a smaller set', device)


def base_task(arguments: argparse.Namespace, shape: Shape | None, dataset: str) -> dict[str, Any]:
    """Returns what all tasks of a call have in common."""
    run = {'dataset': dataset, 'root': arguments.root, 'preset': arguments.preset, 'settings': arguments.settings,
           'seed': arguments.seed, 'device': arguments.device}
    task = {'run': run, 'shape': None if shape is None else asdict(shape), 'threads': arguments.threads,
            'steps': arguments.steps, 'epochs': arguments.epochs, 'repeats': arguments.repeats}
    return task | ({'epochs': 1, 'repeats': 1, 'unit_repeats': SMOKE_UNIT_REPEATS} if arguments.smoke else {})


def run_task(task: dict[str, Any]) -> dict[str, Any]:
    """Carries out a task in a process of its own and counts its seconds in its own units.

    Args:
        task (dict): What :class:`~speed_worker.Task` takes.

    Raises:
        UserError: If the process ends with one.
    """
    environment = {**PYTORCH_VARIABLES, **os.environ}  # As a run has them.
    if task['threads'] is not None:
        environment['OMP_NUM_THREADS'] = str(task['threads'])
    process = subprocess.run([sys.executable, str(FOLDER / 'speed_worker.py'), json.dumps(task)],  # noqa: S603
                             capture_output=True, text=True, env=environment, check=False)
    if process.returncode == 2 and process.stderr:
        raise UserError(process.stderr.strip().splitlines()[-1].removeprefix('error: '))
    if process.returncode != 0:
        raise RuntimeError(f"the process of {task['kind']} ended with {process.returncode}:\n{process.stderr}")
    measured = json.loads(process.stdout)
    if 'unit_seconds' in measured:
        unit, seconds = median(measured['unit_seconds']), measured['seconds']
        measured['units'] = ({part: value / unit for part, value in seconds.items()} if isinstance(seconds, dict)
                             else seconds / unit)
    return measured


def summary(seconds: list[float]) -> dict[str, float]:
    """Returns median and spread of all measurements of the unit."""
    return {'seconds': median(seconds), 'lowest': min(seconds), 'highest': max(seconds), 'measurements': len(seconds)}


def machine() -> dict[str, Any]:
    """Describes the machine as it is before anything is measured."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
        model = next((line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')), '')
    except OSError:
        model = platform.processor()
    return {'cpu': model, 'cores': os.cpu_count(), 'torch': torch.__version__, 'python': platform.python_version(),
            'gpu': torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            'load_average': list(os.getloadavg())}


def heading(report: dict[str, Any]) -> str:
    """Returns the lines above the table."""
    package, unit = report['versions']['package'], report['unit']
    size = package['set']
    device = report['machine']['cpu'] if package['device'] == 'cpu' else package['device']
    features = ', '.join(f'{name} {width}' for name, width in size['features'].items())
    lowest, middle, highest = (1e3 * unit[name] for name in ('lowest', 'seconds', 'highest'))
    return (f"{report['dataset']}: {size['num_users']:,} users, {size['num_items']:,} items, {size['num_train']:,} "
            f"training interactions, {features}; preset {report['preset']}\n"
            f"{device}, {package['threads']} CPU threads, load {report['machine']['load_average'][0]:.1f} at start\n"
            f"one unit {middle:.2f} ms ({lowest:.2f} to {highest:.2f} in {unit['measurements']} measurements)\n")


def report_name(dataset: str, arguments: argparse.Namespace) -> str:
    """Returns what distinguishes the files of a report: set, preset, device."""
    on_gpu = arguments.device == 'cuda' or (arguments.device == 'auto' and torch.cuda.is_available())
    preset = '' if arguments.preset == 'reference' else f'-{arguments.preset}'
    return f"{Path(dataset).name}{preset}{'-cuda' if on_gpu else ''}"


def write(report: dict[str, Any], folder: Path, name: str, plot: Callable[[dict[str, Any], Path], None]) -> None:
    """Writes a report as JSON and, where matplotlib is installed, as a plot."""
    write_text(folder / f'{name}.json', json.dumps(report, indent=2) + '\n')
    plotted = find_spec('matplotlib') is not None
    if plotted:
        with atomic_path(folder / f'{name}.png') as path:
            plot(report, path)
    print(f"written to {folder / name}.json{' and .png' if plotted else ''}")


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    return run_command(_run, argv)


def _run(argv: list[str]) -> int:
    arguments = build_parser().parse_args(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (speed if arguments.growth is None else growth)(arguments)
    return 0


if __name__ == '__main__':
    sys.exit(main())
