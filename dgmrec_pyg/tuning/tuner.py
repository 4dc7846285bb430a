"""Tuning of a model, and of those to compare it with by the same number of trials.

Trials see training and validation interactions; the test ones are taken out of the set for them. Only then is each
model trained once more with its best settings, and tested.
"""

from __future__ import annotations

import copy
import json
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch_geometric.data import HeteroData

from dgmrec_pyg.command_line import require_library
from dgmrec_pyg.config import TrainingConfig, settings_as_text
from dgmrec_pyg.console import describe_data, table
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.experiment import (
    build_model,
    describe,
    estimate_run,
    make_trainer,
    resolve_device,
    resolve_settings,
    run_experiment,
)
from dgmrec_pyg.files import csv_cell, csv_text, write_text
from dgmrec_pyg.loading import RunSettings, load_data
from dgmrec_pyg.measuring import evaluators
from dgmrec_pyg.memory import check_memory, memory_errors
from dgmrec_pyg.rundir import CONFIG, RunDirectory
from dgmrec_pyg.schema import INTERACTS
from dgmrec_pyg.training.deterministic import deterministic
from dgmrec_pyg.training.trainer import METRIC
from dgmrec_pyg.tuning.spaces import SEARCH_SPACES, SearchSpace
from dgmrec_pyg.tuning.study import ModelStudy, Report, Trial

STUDIES = 'tuning.db'
TRIALS = 'trials.csv'
RESULTS = 'results.csv'
_TESTED = ('recall@20', 'ndcg@20')
_HEADER = ('model', 'trials', 'pruned', 'failed', f'val {METRIC}', 'untuned', *(f'test {name}' for name in _TESTED),
           'seconds')

Say = Callable[[str], None]


@dataclass(frozen=True)
class TuningSettings:
    """How to tune.

    Attributes:
        number (int): Trials of each model.
        output (Path): The folder of trials, best settings and runs; where it has trials they are gone on with.
        tensorboard (bool): Whether the runs of the best settings write event files.
        progress (bool): Whether to show progress bars.
    """

    number: int
    output: Path
    tensorboard: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        require_library('optuna', '--tune')
        if self.tensorboard:  # Not only after all trials.
            require_library('tensorboard', '--tensorboard')
        if self.number < 1:
            raise UserError(f'--tune takes the number of trials, at least 1 (got {self.number})')
        if self.output.is_dir() and any(self.output.iterdir()) and not (self.output / STUDIES).is_file():
            raise UserError(f"folder '{self.output}' is not empty and holds no {STUDIES}; give another --output")


def tune(run: RunSettings, tuning: TuningSettings, say: Say = lambda text: None) -> str:
    """Tunes the model of a run and those that it is compared with, trains each once with its best settings, and writes
    ``trials.csv``, ``results.csv``, the best settings as ``<model>.json`` and a run directory of each.

    Args:
        run (RunSettings): The run; settings given in it are kept, not searched.
        tuning (TuningSettings): How to tune.
        say (Callable): Told how it goes. (default: nothing)

    Returns:
        str: The results as a table.

    Raises:
        UserError: If something the caller can put right is wrong.
        KeyboardInterrupt: After Ctrl-C; the same call goes on.
    """
    data, runs = load_data(run), {name: _own_run(run, name) for name in (run.model, *run.compare)}
    _check(data, runs)
    say(describe_data(describe(data, run)['data'], run.dataset))
    studies = _open_studies(data, runs, tuning)
    without_test = _without_test(data)
    try:
        for name, study in studies.items():
            _search(study, runs[name], without_test, tuning, say)
    finally:
        _write_trials(tuning.output / TRIALS, studies)
    rows = []
    for name, study in studies.items():
        trials, best = study.trials(), study.best()
        say(f'{name}: training with the settings of trial {best.number}\n{_settings(best)}' if best else
            f'{name}: nothing to tune')
        metrics = _train_best(runs[name], best, tuning, say)
        rows.append(_row(name, trials, metrics))
    write_text(tuning.output / RESULTS, csv_text([_HEADER, *rows]))
    return table(_HEADER, rows)


def describe_spaces(run: RunSettings) -> str:
    """Returns what tuning would search, as a table.

    Args:
        run (RunSettings): The run, as :func:`tune` takes it.
    """
    rows = []
    for name in (run.model, *run.compare):
        own = _own_run(run, name)
        start = _start(own)
        rows += [[name, setting, str(start[setting]),
                  ' or '.join(map(str, domain)) if isinstance(domain, tuple) else str(domain)]
                 for setting, domain in _space(own).items()] or [[name, 'nothing', '', '']]
    return table(['model', 'setting', 'first trial', 'searched'], rows, left=4)


def _own_run(run: RunSettings, name: str) -> RunSettings:
    """The run of one of the models; one to compare with takes only training settings, as in any run."""
    settings = run.settings
    if name != run.model:
        training = {field.name for field in fields(TrainingConfig)}
        settings = tuple(pair for pair in settings if pair.partition('=')[0] in training)
    return replace(run, model=name, compare=(), settings=settings)


def _space(run: RunSettings) -> SearchSpace:
    given = {pair.partition('=')[0] for pair in run.settings}
    return {name: domain for name, domain in SEARCH_SPACES[run.model].items() if name not in given}


def _start(run: RunSettings) -> dict[str, Any]:
    config, training = resolve_settings(run)
    return {**config.to_dict(), **training.to_dict()}


def _with(run: RunSettings, drawn: Mapping[str, Any]) -> RunSettings:
    return replace(run, settings=(*run.settings, *settings_as_text(drawn)))


def _check(data: HeteroData, runs: Mapping[str, RunSettings]) -> None:
    """Refuses what no trial could put right, before anything is written."""
    for name, run in runs.items():
        device = resolve_device(run.device)
        config = resolve_settings(run)[0]
        check_memory(estimate_run(data, run), device)
        build_model(data, name, config, run.seed, device)


def _open_studies(data: HeteroData, runs: Mapping[str, RunSettings], tuning: TuningSettings) -> dict[str, ModelStudy]:
    try:
        tuning.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make folder '{tuning.output}': {error.strerror}; give another --output") from error
    studies = {}
    for name, run in runs.items():
        description, space = describe(data, run), _space(run)
        made_of = {part: description[part] for part in ('model', 'training', 'data')}
        made_of |= {'seed': run.seed, 'search space': {setting: str(domain) for setting, domain in space.items()}}
        studies[name] = ModelStudy(tuning.output / STUDIES, name, space, _start(run), made_of, run.seed)
    return studies


def _without_test(data: HeteroData) -> HeteroData:
    """The set as trials see it: a copy that shares all tensors but the test interactions, of which it has none."""
    data = copy.copy(data)
    data[INTERACTS].test_edge_label_index = data[INTERACTS].test_edge_label_index[:, :0]
    return data


def _search(study: ModelStudy, run: RunSettings, data: HeteroData, tuning: TuningSettings, say: Say) -> None:
    """Makes the trials that are still to be made; none where there is nothing to search."""
    if not _space(run):
        return
    done = len(study.trials())
    if done:
        say(f'{run.model}: going on after trial {done}')
    try:
        while done < tuning.number:
            trial = study.run_trial(lambda drawn, report: _try(_with(run, drawn), data, report, tuning.progress))
            done = trial.number
            say(_line(run.model, trial, study.best(), tuning.number))
    except KeyboardInterrupt:
        say(f'stopped after {done} of {tuning.number} trials of {run.model}; the same command goes on')
        raise
    if study.best() is None:
        raise UserError(f'all {done} trials of {run.model} failed (first: {study.trials()[0].error:.200})')


def _try(run: RunSettings, data: HeteroData, report: Report, progress: bool) -> tuple[float, int]:
    """Trains a model; returns the best validation metric and its epoch."""
    config, training = resolve_settings(run)
    device = resolve_device(run.device)

    def on_epoch(record: dict[str, Any]) -> None:
        if record['val'] is not None:
            report(record['epoch'], record['val'][METRIC])

    with deterministic(run.deterministic), memory_errors():
        model = build_model(data, run.model, config, run.seed, device)
        if not model.trainable:
            validation = evaluators(data, device)[0]
            return validation.metrics(validation.rank(model.scorer()))[METRIC], 0
        fit = make_trainer(data, model, training, run.seed, progress=progress, on_epoch=on_epoch).fit()
    if fit.interrupted:  # It would have gone on.
        raise KeyboardInterrupt
    return fit.best_val[METRIC], fit.best_epoch


def _line(model: str, trial: Trial, best: Trial | None, number: int) -> str:
    if trial.value is not None:
        how = f'{METRIC} {trial.value:.4f}' + (f' in epoch {trial.epoch}' if trial.epoch else '')
    else:
        how = f'pruned after epoch {trial.epoch}' if trial.state == 'pruned' else f'failed ({trial.error})'
    so_far = '' if best is None else f'; best {best.value:.4f} (trial {best.number})'
    return f'{model}, trial {trial.number} of {number}: {how}{so_far}; {trial.seconds:.1f} s'


def _settings(trial: Trial) -> str:
    drawn = ' '.join(f'{name}={value:.4g}' for name, value in trial.settings.items())
    return textwrap.fill(drawn, 80, initial_indent='  ', subsequent_indent='  ', break_on_hyphens=False)


def _train_best(run: RunSettings, best: Trial | None, tuning: TuningSettings, say: Say) -> dict[str, Any]:
    """Writes the best settings, and trains with them in a run directory of their own."""
    run = run if best is None else _with(run, best.settings)
    config, training = resolve_settings(run)
    content = {'run': {'model': run.model, 'dataset': run.dataset}, 'model': config.to_dict(),
               'training': training.to_dict()}
    write_text(tuning.output / f'{run.model}.json', json.dumps(content, indent=2) + '\n')
    folder = tuning.output / (run.model if best is None else f'{run.model}-trial-{best.number}')
    metrics = run_experiment(run, RunDirectory(folder, (folder / CONFIG).is_file(), tuning.tensorboard),
                             tuning.progress)
    if metrics['interrupted']:
        say(f'stopped while {run.model} was trained with its best settings; the same command goes on')
        raise KeyboardInterrupt
    return metrics


def _row(name: str, trials: list[Trial], metrics: Mapping[str, Any]) -> list[str]:
    states = [trial.state for trial in trials]
    untuned = trials[0].value if trials else None
    return [name, str(len(trials)), str(states.count('pruned')), str(states.count('failed')),
            f"{metrics['val'][METRIC]:.4f}", '-' if untuned is None else f'{untuned:.4f}',
            *(f"{metrics['test'][name]:.4f}" for name in _TESTED), f'{sum(trial.seconds for trial in trials):.1f}']


def _write_trials(path: Path, studies: Mapping[str, ModelStudy]) -> None:
    """One row per trial; a column for each setting that any model searches."""
    trials = [(name, trial) for name, study in studies.items() for trial in study.trials()]
    settings = list(dict.fromkeys(setting for _, trial in trials for setting in trial.settings))
    rows = [[name, trial.number, trial.state, '' if trial.value is None else trial.value, trial.epoch,
             f'{trial.seconds:.1f}', csv_cell(trial.error), *(trial.settings.get(setting, '') for setting in settings)]
            for name, trial in trials]
    write_text(path, csv_text([['model', 'trial', 'state', METRIC, 'epoch', 'seconds', 'error', *settings], *rows]))
