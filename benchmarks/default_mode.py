"""Compares the project's own settings with the released ones: quality over seeds, and the way to a given recall.

    python benchmarks/default_mode.py --dataset tiktok --root data --runs runs/default-mode

Each cell is a run directory of the command line under --runs; finished ones are not run again, and one that was cut
off is gone on with. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed_report import RELEASED

from dgmrec_pyg.command_line import make_main
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.evaluation import detectable_difference, evaluation_users, paired_test
from dgmrec_pyg.experiment import resolve_settings
from dgmrec_pyg.files import write_text
from dgmrec_pyg.loading import RunSettings, load_data
from dgmrec_pyg.schema import INTERACTS, ITEM, USER, training_edges

FOLDER = Path(__file__).resolve().parent
PRESETS = ('reference', 'default')
SEEDS = (999, 42, 2023, 2024, 2025)
K = 20
METRICS = (f'recall@{K}', f'ndcg@{K}')
METRIC = METRICS[0]
_DISCOUNT = 1 / np.log2(np.arange(2, K + 2))


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(prog='default_mode.py',
                                     description="Compares the project's own settings with the released ones.")
    parser.add_argument('--dataset', required=True, metavar='NAME',
                        help='the folder of a set under --root, or synthetic')
    parser.add_argument('--root', default='data', metavar='DIR', help='where sets are kept (default: data)')
    parser.add_argument('--seeds', nargs='+', type=int, default=list(SEEDS), metavar='N',
                        help=f"draw parameters and batches (default: {' '.join(map(str, SEEDS))})")
    parser.add_argument('--missing-ratio', type=float, metavar='R',
                        help="share of the items that lack a modality (default: by the set's own mask)")
    parser.add_argument('--new-items', action='store_true', help='hold out a fifth of the items as new ones')
    parser.add_argument('--epochs', type=int, metavar='N', help='most epochs of each run (default: as the preset says)')
    parser.add_argument('--recall', type=float, metavar='R',
                        help='validation Recall@20 to reach (default: what the released implementation reached)')
    parser.add_argument('--runs', type=Path, default=Path('runs/default-mode'), metavar='DIR',
                        help='where run directories are kept (default: runs/default-mode)')
    parser.add_argument('--output', type=Path, default=FOLDER / 'results', metavar='DIR',
                        help='where results are written (default: results beside this file)')
    return parser


def setting_name(arguments: argparse.Namespace) -> str:
    """Returns the set and what is missing of it, as names of files say it."""
    ratio = '' if arguments.missing_ratio is None else f'-ratio{arguments.missing_ratio:g}'
    return f"{Path(arguments.dataset).name}{ratio}{'-new-items' if arguments.new_items else ''}"


def run_settings(arguments: argparse.Namespace, preset: str = PRESETS[0]) -> RunSettings:
    """Returns what the runs of a preset are made of."""
    settings = () if arguments.epochs is None else (f'epochs={arguments.epochs}', )
    return RunSettings(dataset=arguments.dataset, root=arguments.root, preset=preset, settings=settings,
                       missing_ratio=arguments.missing_ratio, new_items=arguments.new_items)


def run_cell(arguments: argparse.Namespace, preset: str, seed: int) -> Path:
    """Returns the run directory of a cell, after running what is missing of it.

    Raises:
        UserError: If the run ends with an error, or was made with other settings.
    """
    folder = arguments.runs / f'{setting_name(arguments)}-{preset}-{seed}'
    if (folder / 'metrics.json').is_file():
        _check_settings(folder, arguments, preset)
    else:
        command = [sys.executable, '-m', 'dgmrec_pyg.run', '--dataset', arguments.dataset, '--root', arguments.root,
                   '--preset', preset, '--seed', str(seed), '--quiet', '--output', str(folder)]
        command += [] if arguments.epochs is None else ['--epochs', str(arguments.epochs)]
        command += [] if arguments.missing_ratio is None else ['--missing-ratio', str(arguments.missing_ratio)]
        command += ['--new-items'] if arguments.new_items else []
        command += ['--resume'] if (folder / 'config.json').is_file() else []
        print(f'running {folder.name}', file=sys.stderr, flush=True)
        process = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if process.returncode != 0:
            raise UserError(f"{folder.name} ended with {process.returncode}: {process.stderr.strip().splitlines()[-1]}")
    return folder


def _check_settings(folder: Path, arguments: argparse.Namespace, preset: str) -> None:
    """Refuses a finished run of other settings, such as of an earlier default or of fewer epochs."""
    config = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
    for part, now in zip(('model', 'training'), resolve_settings(run_settings(arguments, preset)), strict=True):
        for name, value in now.to_dict().items():
            before = config[part].get(name, value)
            if before != value:
                raise UserError(f"the run in '{folder}' was made with {name} {before!r}, now it is {value!r}; results "
                                'are not mixed: give the same or choose another --runs')


def read_cell(folder: Path, recall: float | None) -> dict[str, Any]:
    """Returns what a finished run came to."""
    metrics = json.loads((folder / 'metrics.json').read_text(encoding='utf-8'))
    lines = (folder / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()
    records = [json.loads(line) for line in lines]
    hits = [record['epoch'] for record in records
            if recall is not None and record['val'] is not None and record['val'][METRIC] >= recall]
    return {'seed': json.loads((folder / 'config.json').read_text(encoding='utf-8'))['run']['seed'],
            'val': metrics['val'][METRIC], 'test': metrics['test'][METRIC], 'test_ndcg': metrics['test'][f'ndcg@{K}'],
            'best_epoch': metrics['best_epoch'], 'epochs': len(records), 'epochs_to_recall': hits[0] if hits else None,
            'seconds': metrics['seconds']}


class TestUsers:
    """The users of the test split, and the metrics of each by a run's ``recommendations.csv``.

    Args:
        run (RunSettings): Names the set.
    """

    def __init__(self, run: RunSettings) -> None:
        data = load_data(run)
        labels = data[INTERACTS].test_edge_label_index
        num_users, self.num_items = data[USER].num_nodes, data[ITEM].num_nodes
        self.users = evaluation_users(labels, training_edges(data), num_users)
        self._labels = set((labels[0] * self.num_items + labels[1]).tolist())
        self._count = torch.bincount(labels[0], minlength=num_users)[self.users].numpy()
        raw = data.get('raw_id') or {}
        self._user = {str(name): user for user, name in enumerate(raw.get(USER, range(num_users)))}
        self._item = {str(name): item for item, name in enumerate(raw.get(ITEM, range(self.num_items)))}

    def metrics(self, folder: Path) -> dict[str, np.ndarray]:
        """Returns the Recall@20 and the NDCG@20 of each user, ``[N]``."""
        hits, gain = np.zeros(len(self._user)), np.zeros(len(self._user))
        with open(folder / 'recommendations.csv', encoding='utf-8', newline='') as file:
            for row in csv.DictReader(file):
                user, item = self._user[row['user']], self._item[row['item']]
                if user * self.num_items + item in self._labels:
                    hits[user] += 1
                    gain[user] += _DISCOUNT[int(row['rank']) - 1]
        users = self.users.numpy()
        ideal = np.cumsum(_DISCOUNT)[np.minimum(self._count, K) - 1]
        return {METRICS[0]: hits[users] / self._count, METRICS[1]: gain[users] / ideal}


def compare(of_users: Mapping[str, list[np.ndarray]]) -> dict[str, float]:
    """Tests, over users, whether the project's own settings differ from the released ones.

    Args:
        of_users (Mapping[str, list]): By preset, for each seed the metric of each user, ``[N]``.

    Returns:
        dict: Mean difference (own less released, each user's metric averaged over the seeds), its 95 % interval, the p
        values of the paired t test and of Wilcoxon's, and the difference that such a t test finds in 80 % of cases.
    """
    released, own = (np.mean(of_users[preset], axis=0) for preset in PRESETS)
    found = paired_test(own, released)
    difference = found.difference
    return {'users': difference.count, 'mean_difference': difference.mean, 'low': difference.low,
            'high': difference.high, 't_test_p': found.t_test_p, 'wilcoxon_p': found.wilcoxon_p,
            'detectable_difference': detectable_difference(found)}


def epoch_units(dataset: str, output: Path) -> dict[str, float | None]:
    """Returns what an epoch and its evaluation cost in units by preset, where ``speed.py`` has measured it."""
    units = {}
    for preset, suffix in zip(PRESETS, ('', '-default'), strict=True):
        path = output / f'speed-{dataset}{suffix}.json'
        parts = json.loads(path.read_text(encoding='utf-8'))['versions']['package']['units'] if path.is_file() else None
        units[preset] = None if parts is None else parts['epoch'] + parts['evaluation']
    return units


def markdown(report: Mapping[str, Any]) -> str:
    """Returns the report as Markdown tables."""
    lines = [f"# {report['setting']}: the project's own settings beside the released ones", '']
    if report['recall'] is not None:
        lines += [f"Epochs and units until validation Recall@20 is {report['recall']}" + (
            f" (the released implementation: {report['released_units']:,} units)." if report['released_units']
            else '.'), '']
    lines += [f'| preset | seed | val {METRIC} | test {METRIC} | test ndcg@{K} | best epoch | epochs to recall '
              '| units |', '|---|---|---|---|---|---|---|---|']
    for preset in PRESETS:
        units = report['epoch_units'][preset]
        for cell in report['cells'][preset]:
            to = cell['epochs_to_recall']
            lines.append(f"| {preset} | {cell['seed']} | {cell['val']:.4f} | {cell['test']:.4f} | "
                         f"{cell['test_ndcg']:.4f} | {cell['best_epoch']} | {_epochs(to, report['recall'])} | "
                         f"{'' if None in (to, units) else f'{to * units:,.0f}'} |")
        tests = [cell['test'] for cell in report['cells'][preset]]
        spread = f' (standard deviation {np.std(tests):.4f})' if len(tests) > 1 else ''
        lines.append(f'| {preset} | mean | | {np.mean(tests):.4f}{spread} | | | | |')
    for metric, test in report['tests'].items():
        lines += ['', f"Test {metric}, own less released, each user's averaged over the seeds: "
                  f"{test['mean_difference']:+.4f} (95 % interval {test['low']:+.4f} to {test['high']:+.4f}; "
                  f"{test['users']:,} users; paired t test p = {test['t_test_p']:.3g}, "
                  f"Wilcoxon p = {test['wilcoxon_p']:.3g}; "
                  f"differences from {test['detectable_difference']:.4f} on are found in 80 % of cases)."]
    return '\n'.join(lines) + '\n'


def _epochs(epochs: int | None, recall: float | None) -> str:
    return str(epochs) if epochs is not None else '' if recall is None else 'not reached'


def collect(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs what is missing and returns the report."""
    as_released = arguments.missing_ratio is None and not arguments.new_items  # How that implementation was run.
    released = RELEASED.get(arguments.dataset, {}) if as_released else {}
    recall = arguments.recall if arguments.recall is not None else released.get('recall')
    users = TestUsers(run_settings(arguments))
    cells: dict[str, list[dict[str, Any]]] = {preset: [] for preset in PRESETS}
    of_users: dict[str, dict[str, list[np.ndarray]]] = {metric: {preset: [] for preset in PRESETS}
                                                        for metric in METRICS}
    for seed in arguments.seeds:
        for preset in PRESETS:
            folder = run_cell(arguments, preset, seed)
            cells[preset].append(read_cell(folder, recall))
            for metric, values in users.metrics(folder).items():
                of_users[metric][preset].append(values)
    return {'dataset': arguments.dataset, 'setting': setting_name(arguments), 'recall': recall,
            'released_units': released.get('time_to'), 'epoch_units': epoch_units(arguments.dataset, arguments.output),
            'cells': cells, 'tests': {metric: compare(values) for metric, values in of_users.items()}}


def _run(argv: list[str]) -> int:
    arguments = build_parser().parse_args(argv)
    report = collect(arguments)
    arguments.output.mkdir(parents=True, exist_ok=True)
    name = f'default-mode-{setting_name(arguments)}'
    write_text(arguments.output / f'{name}.json', json.dumps(report, indent=2) + '\n')
    write_text(arguments.output / f'{name}.md', markdown(report))
    print(markdown(report))
    return 0


main = make_main(_run)

if __name__ == '__main__':
    sys.exit(main())
