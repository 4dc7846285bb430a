"""Trains PyG's own LightGCN beside this package's, seed by seed: same batches, optimizer, epochs and evaluation.

    python benchmarks/lightgcn_pyg.py --dataset tiktok --root data --seeds 0 1 2

PyG's draws users and items as one table, so the two start from different weights. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.nn.models import LightGCN as PyGModel

from dgmrec_pyg.command_line import make_main
from dgmrec_pyg.console import table
from dgmrec_pyg.experiment import build_model, fit_model, resolve_settings
from dgmrec_pyg.files import write_text
from dgmrec_pyg.loading import RunSettings, dataset_name, load_data
from dgmrec_pyg.nn import Recommender
from dgmrec_pyg.nn.models import LightGCNConfig

FOLDER = Path(__file__).resolve().parent
METRIC = 'recall@20'
CPU = torch.device('cpu')


class PyGLightGCN(Recommender):
    """:class:`torch_geometric.nn.models.LightGCN` with its own loss, as this package's trainer wants a model.

    Args:
        data (HeteroData): Users, items and training edges.
        config (LightGCNConfig): The settings of this package's LightGCN.
    """

    config_class = LightGCNConfig
    config: LightGCNConfig
    edge_index: Tensor

    def __init__(self, data: HeteroData, config: LightGCNConfig) -> None:
        super().__init__(data, config)
        self.model = PyGModel(self.num_users + self.num_items, config.hidden_channels, config.num_layers)
        user, item = self.train_edge_index
        item = item + self.num_users
        self.register_buffer('edge_index', torch.stack([torch.cat([user, item]), torch.cat([item, user])]),
                             persistent=False)

    def embed(self) -> tuple[Tensor, Tensor]:
        """Returns the mean over the layers, users ``[U, d]`` and items ``[I, d]``."""
        user, item = self.model.get_embedding(self.edge_index).split([self.num_users, self.num_items])
        return user, item

    def loss_terms(self, user: Tensor, pos_item: Tensor, neg_item: Tensor) -> dict[str, Tensor]:
        """Computes PyG's loss, which regularizes by the whole squared norm, hence by half the weight."""
        positive, negative = pos_item + self.num_users, neg_item + self.num_users
        pairs = torch.stack([user.repeat(2), torch.cat([positive, negative])])
        of_positives, of_negatives = self.model(self.edge_index, pairs).chunk(2)
        nodes = torch.cat([user, positive, negative])
        return {'loss': self.model.recommendation_loss(of_positives, of_negatives, nodes,
                                                       lambda_reg=self.config.embedding_reg_weight / 2)}


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(prog='lightgcn_pyg.py', description="PyG's own LightGCN beside this package's.")
    parser.add_argument('--dataset', default='synthetic', metavar='NAME',
                        help='the folder of a set under --root (default: synthetic)')
    parser.add_argument('--root', default='data', metavar='DIR', help='where sets are kept (default: data)')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], metavar='N', help='(default: 0 1 2)')
    parser.add_argument('--epochs', type=int, metavar='N', help="most epochs (default: this package's for LightGCN)")
    parser.add_argument('--output', type=Path, default=FOLDER / 'results', metavar='DIR',
                        help='where results are written (default: results beside this file)')
    return parser


def train_both(data: HeteroData, run: RunSettings, seed: int) -> dict[str, Any]:
    """Trains both models and returns the test metric, the best epoch and the seconds per epoch of each.

    Args:
        data (HeteroData): The set.
        run (RunSettings): The run of this package's LightGCN.
        seed (int): Draws parameters and batches.
    """
    config, training = resolve_settings(run)
    ours = build_model(data, 'lightgcn', config, seed, CPU)
    theirs = PyGLightGCN.from_data(data, config, torch.Generator().manual_seed(seed))
    record: dict[str, Any] = {'seed': seed}
    for name, model in (('ours', ours), ('pyg', theirs)):
        metrics = fit_model(data, model, training, seed).metrics
        record[name] = {METRIC: metrics['test'][METRIC], 'best_epoch': metrics['best_epoch'],
                        'seconds_per_epoch': metrics['seconds'] / metrics['epochs']}
        print(f'seed {seed}, {name}: {record[name]}', file=sys.stderr, flush=True)
    return record


def summary(records: Sequence[dict[str, Any]]) -> str:
    """Returns the table of all seeds, and the mean difference with its deviation.

    Args:
        records (Sequence[dict]): What :func:`train_both` returned.
    """
    differences = [record['ours'][METRIC] - record['pyg'][METRIC] for record in records]
    rows = [[str(record['seed']), f"{record['ours'][METRIC]:.4f}", f"{record['pyg'][METRIC]:.4f}",
             f'{difference:+.4f}', *(str(record[name]['best_epoch']) for name in ('ours', 'pyg')),
             *(f"{record[name]['seconds_per_epoch']:.2f}" for name in ('ours', 'pyg'))]
            for record, difference in zip(records, differences, strict=True)]
    deviation = statistics.stdev(differences) if len(differences) > 1 else math.nan
    columns = ['seed', f'test {METRIC}: ours', "PyG's", 'difference', 'best epoch: ours', "PyG's",
               'seconds per epoch: ours', "PyG's"]
    return (f'{table(columns, rows)}\n\ndifference: {statistics.mean(differences):+.4f}, standard deviation over seeds '
            f'{deviation:.4f}')


def _run(argv: list[str]) -> int:
    arguments = build_parser().parse_args(argv)
    settings = () if arguments.epochs is None else (f'epochs={arguments.epochs}', )
    run = RunSettings(dataset=arguments.dataset, root=arguments.root, model='lightgcn', settings=settings)
    data = load_data(run)
    records = [train_both(data, run, seed) for seed in arguments.seeds]
    text = summary(records)
    print(text)
    arguments.output.mkdir(parents=True, exist_ok=True)
    name = f'lightgcn-pyg-{dataset_name(arguments.dataset)}'
    write_text(arguments.output / f'{name}.json', json.dumps({
        'dataset': dataset_name(arguments.dataset), 'epochs': resolve_settings(run)[1].epochs,
        'threads': torch.get_num_threads(), 'records': records}, indent=1) + '\n')
    return 0


main = make_main(_run)

if __name__ == '__main__':
    sys.exit(main())
