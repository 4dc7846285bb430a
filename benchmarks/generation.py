"""How near generated features come to the hidden ones, beside other ways to guess them, by missing pattern.

    python benchmarks/generation.py --dataset tiktok --root data

Nothing is trained: by the project's own settings, generation is a regression in closed form. See README.md beside this
file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import outputs
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.command_line import make_main
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.evaluation import paired_test
from dgmrec_pyg.evaluation.generation import center
from dgmrec_pyg.evaluation.retrieval import cca_guess, retrieval_metrics, ridge_guess, truth_ranks
from dgmrec_pyg.evaluation.slices import missing_patterns
from dgmrec_pyg.files import write_text
from dgmrec_pyg.imputation import observed_mean
from dgmrec_pyg.loading import RunSettings, dataset_name, load_data
from dgmrec_pyg.regression import FeatureRegression
from dgmrec_pyg.schema import is_true_feature, item_features, missing_mask, modality_names
from dgmrec_pyg.transforms import ImputeMissing

FOLDER = Path(__file__).resolve().parent
GENERATED, MEAN, RIDGE, CCA, NEIGHBORS = 'generated', 'mean', 'ridge', 'CCA', 'multi_hop'
METHODS = (GENERATED, RIDGE, CCA, NEIGHBORS, MEAN)
LEAST = 10
"""Items that a row of the table, and what it is fitted on, must have."""
EXPLANATION = (
    'Of the items that lack a modality, whose true features were hidden, by what else they lack. *generated*: the '
    "project's own settings, by what the items have and by who bought them; *ridge* and *CCA*: from all the "
    'modalities that such items have, fitted on the items that have these and the one that is guessed (the mean where '
    'they have none); *multi_hop*: from co-purchases alone. The mean of the observed items is taken off everything: '
    'imputing it has a cosine and an R2 of 0. Recall@10: how often the truth is among the ten nearest of the same '
    "row's items. Differences of cosines are per item, with their 95 % interval, in bold where it is above 0.")


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(prog='generation.py', description='Compares generated with hidden features.')
    parser.add_argument('--dataset', default='synthetic', metavar='NAME|DIR',
                        help='synthetic, or the folder of a set under --root (default: synthetic)')
    parser.add_argument('--root', default='data', metavar='DIR', help='where sets are kept (default: data)')
    parser.add_argument('--missing-ratio', type=float, metavar='R',
                        help="share of the items that lack a modality (default: by the set's own mask)")
    parser.add_argument('--missing-seed', type=int, default=0, metavar='N', help='draws the mask (default: 0)')
    parser.add_argument('--output', type=Path, default=FOLDER / 'results', metavar='DIR',
                        help='where results are written (default: results beside this file)')
    return parser


def compare(data: HeteroData) -> list[dict[str, Any]]:
    """Compares all methods, by modality and missing pattern.

    Args:
        data (HeteroData): The set, with the true features of what was hidden.

    Returns:
        list: A row for each: ``modality``, ``pattern``, ``num_items``, ``methods`` (cosine, R2, Recall@10 and median
        rank of each) and ``differences`` (of the cosines, generated less another).

    Raises:
        UserError: If nothing is hidden.
    """
    missing = {m: missing_mask(data, m) for m in modality_names(data)}
    patterns = missing_patterns(missing)
    generated, imputed = FeatureRegression.from_data(data), ImputeMissing(NEIGHBORS)(data)
    rows = []
    for modality, lacks in missing.items():
        x = item_features(data, modality)
        mean, hidden = observed_mean(x, lacks), lacks & is_true_feature(x)
        whole = {GENERATED: generated.generate(modality), NEIGHBORS: item_features(imputed, modality)}
        guesses: dict[str, dict[str, Tensor]] = {}
        for pattern, members in patterns.items():
            items = (hidden & members).nonzero().view(-1)
            if items.numel() < LEAST:
                continue
            present = [other for other in missing if not missing[other][items[0]]]
            fitted = _fitted(data, missing, present, modality, items)
            guesses[pattern] = {name: center(guess if name in fitted else guess[items], mean)
                                for name, guess in {**whole, **fitted}.items()}
            guesses[pattern] |= {MEAN: torch.zeros_like(x[items]), 'truth': x[items] - mean}
        if len(guesses) > 1:
            guesses['all'] = {name: torch.cat([of[name] for of in guesses.values()]) for name in (*METHODS, 'truth')}
        rows += [{'modality': modality, 'pattern': pattern, **_row(of)} for pattern, of in guesses.items()]
    if not rows:
        raise UserError(f'no modality is hidden from {LEAST} items of a set that knows it; give --missing-ratio')
    return rows


def _fitted(data: HeteroData, missing: Mapping[str, Tensor], present: list[str], modality: str, items: Tensor
            ) -> dict[str, Tensor]:
    """What ridge regression and CCA guess from the modalities that are present."""
    y = item_features(data, modality)
    known = ~torch.stack([missing[m] for m in (*present, modality)]).any(dim=0)
    if not present or int(known.sum()) < LEAST:
        return {name: observed_mean(y, missing[modality]).expand(items.numel(), -1) for name in (RIDGE, CCA)}
    x = torch.cat([item_features(data, m) for m in present], dim=1)
    arrays = x[known].numpy(), y[known].numpy(), x[items].numpy()
    return {RIDGE: torch.from_numpy(ridge_guess(*arrays)).float(), CCA: torch.from_numpy(cca_guess(*arrays)).float()}


def _row(guesses: Mapping[str, Tensor]) -> dict[str, Any]:
    """The metrics of all methods on the same items."""
    truth = guesses['truth']
    cosines = {name: torch.cosine_similarity(guesses[name], truth, dim=1).double().numpy() for name in METHODS}
    methods = {}
    for name in METHODS:
        found = retrieval_metrics(*truth_ranks(guesses[name], truth))
        errors = (guesses[name] - truth).double().square().sum()
        methods[name] = {'cosine': float(cosines[name].mean()),
                         'r2': float(1.0 - errors / truth.double().square().sum()),
                         'recall@10': found['recall@10'], 'median_rank': found['median_rank']}
    differences = {name: _difference(cosines[GENERATED], cosines[name]) for name in METHODS if name != GENERATED}
    return {'num_items': len(truth), 'methods': methods, 'differences': differences}


def _difference(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    found = paired_test(first, second)
    return {'mean': found.difference.mean, 'low': found.difference.low, 'high': found.difference.high,
            't_test_p': found.t_test_p, 'wilcoxon_p': found.wilcoxon_p}


def markdown(report: Mapping[str, Any]) -> str:
    """Returns the report as Markdown."""
    lines = [f"# {report['dataset']}: generated beside hidden features", '', EXPLANATION, '']
    rows = report['rows']
    for metric, title in (('cosine', 'Cosine'), ('r2', 'R2'), ('recall@10', 'Recall@10')):
        lines += [f'## {title}', '', *outputs.table(['modality and pattern', 'items', *METHODS], [
            [_name(row), f"{row['num_items']:,}", *(_best(row, metric, name) for name in METHODS)] for row in rows])]
    lines += ['## Cosine, generated less another', '', *outputs.table(
        ['modality and pattern', *METHODS[1:]],
        [[_name(row), *(_interval(row['differences'][name]) for name in METHODS[1:])] for row in rows])]
    return '\n'.join(lines)


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['modality']}, {row['pattern']}"


def _best(row: Mapping[str, Any], metric: str, name: str) -> str:
    """A figure, in bold where no other method's is higher."""
    values = {other: round(found[metric], 3) for other, found in row['methods'].items()}
    text = f'{values[name]:.3f}'
    return f'**{text}**' if values[name] == max(values.values()) else text


def _interval(difference: Mapping[str, float]) -> str:
    text = f"{difference['mean']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f})"
    return f'**{text}**' if difference['low'] > 0 else text


def _run(argv: list[str]) -> int:
    arguments = build_parser().parse_args(argv)
    run = RunSettings(dataset=arguments.dataset, root=arguments.root, missing_ratio=arguments.missing_ratio,
                      missing_seed=arguments.missing_seed)
    report = {'dataset': dataset_name(run.dataset), 'missing_ratio': run.missing_ratio,
              'missing_seed': run.missing_seed, 'rows': compare(load_data(run))}
    ratio = '' if run.missing_ratio is None else f'-ratio{run.missing_ratio:g}'
    path = arguments.output / f"generation-{report['dataset']}{ratio}"
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_text(path.with_name(f'{path.name}.json'), json.dumps(report, indent=2) + '\n')
    write_text(path.with_name(f'{path.name}.md'), markdown(report))
    print(markdown(report))
    return 0


main = make_main(_run)

if __name__ == '__main__':
    sys.exit(main())
