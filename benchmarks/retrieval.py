"""Whether what DGMRec generates finds the true content of items that lack it.

    python benchmarks/retrieval.py --dataset tiktok --seeds 0 1 2

For every two modalities: of the items that have the one and from which the other one was hidden, each is a query, and
the hidden features of all of them are the candidates. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import permutations
from typing import TYPE_CHECKING, cast

import cells
import outputs
import torch
from cell_worker import Groups, Task
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.errors import UserError
from dgmrec_pyg.evaluation import Interval, mean_interval
from dgmrec_pyg.evaluation.retrieval import (
    RETRIEVAL_KS,
    RETRIEVAL_METRICS,
    cca_projections,
    chance_metrics,
    mean_over,
    retrieval_metrics,
    ridge_guess,
    truth_ranks,
)
from dgmrec_pyg.experiment import Result
from dgmrec_pyg.imputation import observed_mean
from dgmrec_pyg.nn import DGMRec
from dgmrec_pyg.results import ResultFile
from dgmrec_pyg.schema import ITEM, is_true_feature, item_features, missing_mask, modality_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GENERATED, GENERAL, MEAN, RIDGE, CCA, CHANCE = 'generated', 'general parts', 'mean', 'ridge', 'CCA', 'chance'
METHODS = (GENERATED, GENERAL, MEAN, RIDGE, CCA, CHANCE)
LEAST = 10
"""Items that a search, and what it is fitted on, must have."""
EXPLANATION = (
    'A query is an item that has the first modality and lacks the second; candidates are the true features that were '
    'hidden from these items. *generated* searches by what DGMRec generates (from all that the item has, and from '
    'its buyers), *general parts* compares the general part of the first modality with that of the truth, *mean* '
    'imputes the mean of the observed items, which tells nothing apart, and *ridge* and *CCA* are fitted on the items '
    'that have both. Recall and MRR: more is better; median rank: less.')

Rows = dict[str, dict[str, Interval]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the mask."""
    cells.add_missing_arguments(parser)


def tasks(arguments: argparse.Namespace) -> list[Task]:
    """Returns a task per seed."""
    if arguments.no_missing:
        raise UserError('retrieval looks for what was hidden; leave out --no-missing')
    return [cells.make_task(arguments, {'model': 'dgmrec', 'seed': seed},
                            cells.base_run(arguments, 'dgmrec', seed, **cells.given_mask(arguments)), judge=judge)
            for seed in arguments.seeds]


def judge(data: HeteroData, result: Result) -> tuple[dict[str, float], Groups]:
    """Measures all searches between two modalities.

    Args:
        data (HeteroData): The set, with the true features of what was hidden.
        result (Result): A trained DGMRec.

    Returns:
        tuple: The metrics of what is generated, averaged over the searches; and by search and method those of each.

    Raises:
        UserError: If too little is hidden for a search.
    """
    model = cast(DGMRec, result.model)
    groups: Groups = {}
    for source, target in permutations(modality_names(data), 2):
        known = _known(data, source)
        queries = (known & _hidden(data, target)).nonzero().view(-1)
        both = (known & _known(data, target)).nonzero().view(-1)
        if min(queries.numel(), both.numel()) < LEAST:
            continue
        for method, metrics in _search(data, model, source, target, queries, both).items():
            groups[f'{source} to {target}: {method}'] = {'test': metrics, 'queries': queries.numel()}
    if not groups:
        raise UserError(f'no two modalities have {LEAST} items that have the one and from which the other was hidden, '
                        f'and {LEAST} that have both; hide more, with --missing-ratio')
    of_generated = {name: group['test'] for name, group in groups.items() if name.endswith(f': {GENERATED}')}
    return mean_over(of_generated), groups


def _known(data: HeteroData, modality: str) -> Tensor:
    """Items whose features a model is given and may learn from."""
    old = ~data[ITEM].get('is_new', torch.zeros(data[ITEM].num_nodes, dtype=torch.bool))
    return old & ~missing_mask(data, modality)


def _hidden(data: HeteroData, modality: str) -> Tensor:
    """Items whose features no model is given, and whose truth is there; rows of nothing but zeros are no truth."""
    return missing_mask(data, modality) & is_true_feature(item_features(data, modality))


def _search(data: HeteroData, model: DGMRec, source: str, target: str, queries: Tensor, both: Tensor
            ) -> dict[str, dict[str, float]]:
    """The metrics of each method. Features are compared by the cosine of their differences to the observed mean:
    features with a large mean in common are all alike."""
    x, y = item_features(data, source), item_features(data, target)
    mean = observed_mean(y, missing_mask(data, target))
    truth = y[queries] - mean
    fitted = (x[both].numpy(), y[both].numpy(), x[queries].numpy())
    of_queries, of_truth = cca_projections(*fitted, y[queries].numpy())
    pairs = {
        GENERATED: (model.features(target).cpu()[queries] - mean, truth),
        GENERAL: (_general(model, source, x[queries]), _general(model, target, y[queries])),
        MEAN: (torch.zeros_like(truth), truth),
        RIDGE: (torch.from_numpy(ridge_guess(*fitted)) - mean, truth),
        CCA: (torch.from_numpy(of_queries), torch.from_numpy(of_truth)),
    }
    found = {method: retrieval_metrics(*truth_ranks(*pair)) for method, pair in pairs.items()}
    return {**found, CHANCE: chance_metrics(queries.numel())}


@torch.no_grad()
def _general(model: DGMRec, modality: str, x: Tensor) -> Tensor:
    """The general parts of features as they are in a set, ``[N, d]``, centered."""
    x = x.to(model.device)
    if modality in model.projection:
        x = model.projection[modality](x)
    general = model.encoder({modality: x / model.scale[modality]})[0][modality].cpu()
    return general - general.mean(dim=0)


def report(results: ResultFile, arguments: argparse.Namespace) -> str:
    """Returns a table per search and one over all, and draws Recall by method."""
    searches = list(dict.fromkeys(name.partition(': ')[0] for cell in results.done for name in cell.groups))
    rows = {search: rows_of(results, search) for search in searches}
    lines = outputs.heading(results, 'cross-modal retrieval')
    lines += outputs.plot(results.folder / 'retrieval.png', lambda figure: draw(figure, rows),
                          width=2.0 + 3.0 * min(3, len(rows)), height=1.0 + 2.4 * -(-len(rows) // 3))
    lines += [EXPLANATION, '', '## mean over all searches', '', *_table(_mean_rows(results), results.header.metrics)]
    for search, found in rows.items():
        sizes = [cell.groups[f'{search}: {GENERATED}']['queries'] for cell in results.done
                 if f'{search}: {GENERATED}' in cell.groups]
        number = f'{min(sizes):,}' if min(sizes) == max(sizes) else f'{min(sizes):,} to {max(sizes):,}'
        lines += [f'## {search} ({number} queries)', '', *_table(found, results.header.metrics)]
    return '\n'.join(lines)


def _mean_rows(results: ResultFile) -> Rows:
    """Metrics by method: in each seed the mean over its searches, then over the seeds."""
    rows: Rows = {}
    for method in METHODS:
        means = [mean_over({name: group['test'] for name, group in cell.groups.items() if name.endswith(f': {method}')})
                 for cell in results.done]
        rows[method] = {metric: mean_interval([mean[metric] for mean in means]) for metric in RETRIEVAL_METRICS}
    return rows


def rows_of(results: ResultFile, search: str) -> Rows:
    """Returns metrics by method, over the seeds.

    Args:
        results (ResultFile): The results.
        search (str): The two modalities, such as ``'audio to image'``.
    """
    return {method: {metric: outputs.over_seeds(results.done, metric, f'{search}: {method}')
                     for metric in RETRIEVAL_METRICS} for method in METHODS}


def _table(rows: Rows, metrics: Sequence[str]) -> list[str]:
    return outputs.table(['method', *metrics], [
        [method, *(outputs.show(row[metric], 1 if metric == 'median_rank' else 4) for metric in metrics)]
        for method, row in rows.items()])


def draw(figure: Figure, rows: dict[str, Rows]) -> None:
    """Draws Recall against k for each method, a picture per search.

    Args:
        figure (Figure): Where to draw.
        rows (dict): Intervals by search, method and metric.
    """
    columns = min(3, len(rows))
    pictures = figure.subplots(-(-len(rows) // columns), columns, squeeze=False).flatten()
    for axes, (search, found) in zip(pictures, rows.items(), strict=False):
        for number, (method, row) in enumerate(found.items()):
            points = {int(name.partition('@')[2]): interval.mean for name, interval in row.items()
                      if '@' in name and interval.count > 0}
            axes.plot(list(points), list(points.values()), marker='o', markersize=3, label=method,
                      color='black' if method == CHANCE else f'C{number}', linestyle=':' if method == CHANCE else '-',
                      linewidth=2.4 if method == GENERATED else 1.2)
        axes.set(title=search, xlabel='k', ylabel='Recall@k', xscale='log')
        axes.minorticks_off()
        axes.set_xticks(RETRIEVAL_KS, list(map(str, RETRIEVAL_KS)))
        axes.grid(alpha=0.3)
    for axes in pictures[len(rows):]:
        axes.set_axis_off()
    figure.legend(*pictures[0].get_legend_handles_labels(), loc='outside right center', frameon=False)


BENCHMARK = cells.Benchmark('retrieval', 'Whether what DGMRec generates finds the true content of items that lack it.',
                            add_arguments, tasks, cells.missing_description, report, models=('dgmrec', ),
                            has_models=False, metrics=RETRIEVAL_METRICS, known_metrics=RETRIEVAL_METRICS)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    return cells.main(BENCHMARK, argv)


if __name__ == '__main__':
    sys.exit(main())
