"""What a report is made from: the results of a benchmark, or a run directory in the same form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dgmrec_pyg.errors import UserError
from dgmrec_pyg.reading import read_json
from dgmrec_pyg.report.epochs import Curves, read_curves
from dgmrec_pyg.result_lines import Cell, Header, to_cell, to_header
from dgmrec_pyg.results import CELLS, ResultFile, read_results
from dgmrec_pyg.rundir import CONFIG, METRICS, RunDirectory

COLUMNS = ('recall@20', 'ndcg@20', 'precision@20', 'hit_ratio@20')
"""The metrics that are shown of a run."""
_PLACES = ('root', 'missing_file')  # where a run found its files


@dataclass(frozen=True)
class Source:
    """Cells and what they share.

    Attributes:
        folder (Path): Where they were read.
        header (Header): What all cells share.
        cells (tuple): The cells, done and failed.
        users (Callable, optional): Returns the metrics of a cell's test users, as :meth:`ResultFile.users` does.
        epochs (dict): The curves of training by the name of the cell, where they are on record.
    """

    folder: Path
    header: Header
    cells: tuple[Cell, ...]
    users: Callable[[Cell], Mapping[str, np.ndarray]] | None = None
    epochs: Mapping[str, Curves] = field(default_factory=dict)

    @property
    def done(self) -> list[Cell]:
        """The cells that came to an end."""
        return [cell for cell in self.cells if cell.done]

    @property
    def failed(self) -> list[Cell]:
        """The cells that ended with an error."""
        return [cell for cell in self.cells if not cell.done]


def read_source(path: Path) -> Source:
    """Reads results of any kind.

    Args:
        path (Path): The folder of a benchmark or its ``cells.jsonl``, a run directory, or a folder with run directories
            of one set, with the same masks and held-out items.

    Raises:
        UserError: If there are none, or they are damaged or of another format.
    """
    path = path.expanduser()
    if path.name == CELLS or (path / CELLS).exists():
        results: ResultFile = read_results(path)
        return Source(results.folder, results.header, tuple(results.cells), results.users)
    if (path / CONFIG).exists():
        return _read_run(path)
    if runs := sorted(found.parent for found in path.glob(f'*/{CONFIG}')):
        return _read_runs(path, runs)
    if not path.exists():
        raise UserError(f"there is no '{path}'; give the folder of a benchmark, a run directory, or a folder with "
                        'some')
    raise UserError(f"'{path}' holds no results: neither {CELLS} of a benchmark nor {CONFIG} of a run, nor folders of "
                    'runs; give another folder')


def _read_run(folder: Path) -> Source:
    """A run directory as a benchmark with one seed: its model and those that it was compared with."""
    config = RunDirectory(folder, resume=True).read_config()
    if not (folder / METRICS).exists():
        raise UserError(f"the run in '{folder}' has no {METRICS} yet; let it finish, with --resume if it was stopped")
    metrics = read_json(folder / METRICS)
    try:
        run, data = config['run'], config['data']
        start = {'data_hash': data['hash'], 'versions': config['versions'], 'threads': config['threads'],
                 'device': run['device']}
        cells = [to_cell({**start, 'cell': {'model': name, 'seed': run['seed']}, 'metrics': _splits(found),
                          'groups': _groups(found), 'configuration': _configuration(config, name),
                          **{key: found[key] for key in ('seconds', 'best_epoch', 'generation') if key in found}})
                 for name, found in {run['model']: metrics, **metrics.get('compare', {})}.items()]
        common = {name: value for name, value in run.items() if name not in ('dataset', 'model', 'seed', 'compare')}
        header = to_header({'benchmark': 'run', 'dataset': run['dataset'], 'data_hash': data['hash'],
                            'metrics': list(COLUMNS), 'common': common,
                            'package_version': config['versions']['dgmrec_pyg']})
    except (LookupError, TypeError, AttributeError) as error:
        raise UserError(f"the run in '{folder}' is damaged ({type(error).__name__}: {error!s:.100}); start it again "
                        'in another folder') from error
    return Source(folder, header, tuple(cells), epochs={cells[0].name: read_curves(folder)})


def _read_runs(folder: Path, runs: Sequence[Path]) -> Source:
    """Run directories of one set, masks and held-out items as a benchmark; its axes are what they differ by."""
    sources = [_read_run(run) for run in runs]
    first = sources[0].header
    for run, header in ((run, source.header) for run, source in zip(runs, sources, strict=True)):
        if (header.dataset, header.data_hash) != (first.dataset, first.data_hash):
            raise UserError(f"the runs in '{folder}' are of different sets, masks or held-out items: '{runs[0].name}' "
                            f"of {first.dataset}, '{run.name}' of {header.dataset} (their hashes differ); put "
                            'those that share all three into a folder of their own, or give one run')
    common = _told_apart([source.header.common for source in sources])
    axes = [name for name, value in common[0].items()
            if name not in _PLACES and any(one.get(name) != value for one in common)]
    places = [{axis: one.get(axis) for axis in axes} for one in common]
    found = _moved(sources, places)
    if len(found) < sum(len(source.cells) for source in sources):  # The same once more, told apart by the folder.
        found = _moved(sources, [{**place, 'run': run.name} for place, run in zip(places, runs, strict=True)])
    shared = {name: value for name, value in first.common.items() if name not in (*axes, *_PLACES)}
    return Source(folder, replace(first, benchmark='runs', common=shared), tuple(cell for cell, _ in found.values()),
                  epochs={name: curves for name, (_, curves) in found.items()})


def _moved(sources: Sequence[Source], places: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Cell, Curves]]:
    """The cells of runs with their curves, by name, each at its run's place on the axes."""
    found = {}
    for source, place in zip(sources, places, strict=True):
        for cell in source.cells:
            moved = replace(cell, cell={**cell.cell, **place})
            found[moved.name] = moved, source.epochs.get(cell.name, {})
    return found


def _told_apart(common: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What runs share or not, with lists, such as of settings, as what is not in all of them."""
    found = [dict(one) for one in common]
    for name in common[0]:
        lists = [one[name] for one in common if isinstance(one.get(name), list)]
        if len(lists) == len(common):
            for one, values in zip(found, lists, strict=True):
                one[name] = ' '.join(str(value) for value in values if not all(value in other for other in lists))
    return found


def _configuration(config: dict[str, Any], name: str) -> dict[str, Any]:
    """The settings of the run's model, or of one that it was compared with, whose training is not on record."""
    if name == config['run']['model']:
        return {'model': config['model'], 'training': config['training']}
    return {'model': config['compare'].get(name, {})}


def _splits(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {split: _numbers(found[split]) for split in ('val', 'test')}


def _groups(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Slices of the items, in the form that benchmarks give them."""
    return {name: {'test': _numbers(part), 'users': part.get('num_users')} for name, part in found['slices'].items()}


def _numbers(found: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in found.items() if isinstance(value, (int, float))}
