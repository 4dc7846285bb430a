"""One run from its settings: data, model, training, evaluation, run directory.

The command line and the benchmarks call this; nothing else knows all the parts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, cast

import torch
from torch_geometric import seed_everything
from torch_geometric.data import HeteroData

from dgmrec_pyg.config import Settings, TrainingConfig, load_preset, parse_settings
from dgmrec_pyg.console import describe_batches, describe_data
from dgmrec_pyg.datasets import data_hash
from dgmrec_pyg.datasets.statistics import set_sizes
from dgmrec_pyg.disk import DiskEstimate, check_disk, estimate_disk
from dgmrec_pyg.errors import UserError, check_name
from dgmrec_pyg.loading import RunSettings, dataset_name, load_again, load_data
from dgmrec_pyg.measuring import evaluators, measure
from dgmrec_pyg.memory import DataSizes, MemoryEstimate, check_memory, estimate_memory, memory_errors
from dgmrec_pyg.nn import MODELS, Recommender
from dgmrec_pyg.rundir import RECOMMENDATIONS_PER_USER, RunDirectory
from dgmrec_pyg.schema import INTERACTS, ITEM, USER, item_features, modality_names, training_edges, without_features
from dgmrec_pyg.training import BPRSampler, Fit, Trainer
from dgmrec_pyg.training.deterministic import deterministic
from dgmrec_pyg.training.heap import stop_keeping_freed_memory

DETERMINISTIC = ('deterministic: the same bits again on the same kind of device, with the same versions and {threads} '
                 'thread(s); on CPU this costs nothing that could be measured, on CUDA it was not measured')


@dataclass(frozen=True)
class Result:
    """What one model came to.

    Attributes:
        model (Recommender): The model of the best epoch.
        fit (Fit, optional): How training went; :obj:`None` where there was nothing to train.
        metrics (dict): ``val``, ``test``, ``best_epoch``, ``seconds``, ``slices``, with held-out new items
            ``among_new_items``, and, for models that generate what no imputer has filled in, ``generation``.
    """

    model: Recommender
    fit: Fit | None
    metrics: dict[str, Any]

    @property
    def interrupted(self) -> bool:
        """Whether training was ended by Ctrl-C."""
        return self.fit is not None and self.fit.interrupted


def resolve_device(name: str) -> torch.device:
    """Returns the device of a name, ``'auto'`` being CUDA where there is one.

    Raises:
        UserError: If CUDA is asked for where there is none.
    """
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    if name == 'cuda' and not torch.cuda.is_available():
        raise UserError('CUDA is asked for, but PyTorch finds no CUDA device here; use --device cpu or auto')
    return torch.device(name)


def resolve_settings(run: RunSettings, model: str | None = None) -> tuple[Settings, TrainingConfig]:
    """Returns the settings of a model and of its training: the preset's, then those given as ``key=value``.

    Args:
        run (RunSettings): The run.
        model (str, optional): One of the models to compare with; it takes only training settings from the run.
            (default: the run's model)

    Raises:
        UserError: If a name or a setting is not known or does not fit.
    """
    name = run.model if model is None else model
    check_name('model', name, MODELS)
    of_set = load_preset(run.preset, dataset_name(run.dataset))
    own = load_preset(run.preset, dataset_name(run.dataset), name)
    config = MODELS[name].config_class.from_dict(own['model'])
    # A set's training is DGMRec's; of the released one, which stands complete in it, models replace what is their own.
    general, special = MODELS[name].training_defaults, of_set['training']
    if run.preset == 'reference':
        general, special = special, general
    training = TrainingConfig.from_dict({**general, **special, **own['training']})
    # A model to compare with keeps its own settings: those given are meant for the run's model.
    given = config if model is None else MODELS[run.model].config_class()
    changed, training = cast(tuple[Settings, TrainingConfig], parse_settings(list(run.settings), given, training))
    return (changed if model is None else config), training


@memory_errors()
def build_model(data: HeteroData, name: str, config: Settings, seed: int, device: torch.device) -> Recommender:
    """Builds a model with seeded parameters and noise.

    Args:
        data (HeteroData): The set, on CPU.
        name (str): A name in :obj:`dgmrec_pyg.nn.MODELS`.
        config (Settings): The model's settings.
        seed (int): Draws its parameters, and later its noise.
        device (torch.device): Where to put it.

    Raises:
        UserError: If the model cannot work on the set, or memory does not suffice.
    """
    seed_everything(seed)  # For what libraries draw by themselves; everything of ours takes a generator.
    model = MODELS[name].from_data(data, config, torch.Generator().manual_seed(seed)).to(device)
    model.generator = torch.Generator(device).manual_seed(seed + 1)
    return model


def make_trainer(data: HeteroData, model: Recommender, training: TrainingConfig, seed: int,
                 **options: Any) -> Trainer:
    """Puts a trainer together for a model of :func:`build_model`.

    Args:
        data (HeteroData): The set.
        model (Recommender): The model.
        training (TrainingConfig): The settings.
        seed (int): Draws the batches.
        **options: Passed on to :class:`~dgmrec_pyg.training.Trainer`.
    """
    is_new = data[ITEM].get('is_new')
    edges = training_edges(data).to(model.device)
    sampler = BPRSampler(edges, model.num_users, model.num_items, training.interactions_per_step(edges.size(1)),
                         torch.Generator(model.device).manual_seed(seed + 2),
                         None if is_new is None else is_new.to(model.device))
    return Trainer(model, sampler, evaluators(data, model.device)[0], training, **options)


@memory_errors()
def fit_model(data: HeteroData, model: Recommender, training: TrainingConfig, seed: int,
              start: Callable[[Trainer | None], None] = lambda trainer: None,
              load_features: Callable[[], HeteroData] | None = None, **options: Any) -> Result:
    """Trains and measures a model of :func:`build_model`.

    Args:
        data (HeteroData): The set; without its features, which training does not read, if :obj:`load_features` is
            given.
        model (Recommender): The model.
        training (TrainingConfig): The training settings.
        seed (int): Draws the batches.
        start (Callable): Called with the trainer, :obj:`None` where there is nothing to train, before it starts.
            (default: nothing)
        load_features (Callable, optional): As :func:`~dgmrec_pyg.measuring.measure` takes it. (default: the features
            are in :obj:`data`)
        **options: Passed on to :class:`~dgmrec_pyg.training.Trainer`.

    Raises:
        UserError: If the loss is no longer finite, or memory does not suffice.
    """
    fit = _train(data, model, training, seed, start, **options)
    return Result(model, fit, measure(data, model, training, fit, load_features))


def _train(data: HeteroData, model: Recommender, training: TrainingConfig, seed: int,
           start: Callable[[Trainer | None], None], **options: Any) -> Fit | None:
    """By itself, so that the optimizer and the copy of the best epoch are gone before the model is measured."""
    if not model.trainable:
        start(None)
        model.eval()
        return None
    try:
        trainer = make_trainer(data, model, training, seed, **options)
        start(trainer)
        fit = trainer.fit()
    finally:
        stop_keeping_freed_memory()
    model.eval()
    return fit


def describe(data: HeteroData, run: RunSettings) -> dict[str, Any]:
    """Returns what a run is made of, fully resolved, for ``config.json``."""
    config, training = resolve_settings(run)
    return {
        'run': {**asdict(run), 'root': os.path.abspath(os.path.expanduser(run.root)),  # for --resume from elsewhere
                'device': str(resolve_device(run.device))},
        'model': config.to_dict(),
        'training': training.to_dict(),
        'compare': {name: resolve_settings(run, name)[0].to_dict() for name in run.compare},
        'data': {'hash': data_hash(data), **set_sizes(data)},
    }


def data_sizes(data: HeteroData) -> DataSizes:
    """Returns the sizes of a set that memory depends on.

    Args:
        data (HeteroData): The set.
    """
    edges = data[INTERACTS]
    return DataSizes(num_users=data[USER].num_nodes, num_items=data[ITEM].num_nodes,
                     num_train=training_edges(data).size(1),
                     num_labels=edges.val_edge_label_index.size(1) + edges.test_edge_label_index.size(1),
                     features={m: item_features(data, m).size(1) for m in modality_names(data)},
                     has_new_items='is_new' in data[ITEM])


def estimate_run(data: HeteroData, run: RunSettings) -> MemoryEstimate:
    """Estimates the peak memory of a run on a set.

    Args:
        data (HeteroData): The set.
        run (RunSettings): The run.
    """
    return estimate_memory(data_sizes(data), *resolve_settings(run), resolve_device(run.device))


def estimate_files(data: HeteroData, run: RunSettings) -> DiskEstimate:
    """Estimates the disk space of a run on a set.

    Args:
        data (HeteroData): The set.
        run (RunSettings): The run.
    """
    configs = [resolve_settings(run, name)[0] for name in (None, *run.compare)]
    return estimate_disk(data_sizes(data), configs, RECOMMENDATIONS_PER_USER)


def run_experiment(run: RunSettings, output: RunDirectory, progress: bool = False,
                   say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Carries out one run and writes its directory.

    Args:
        run (RunSettings): What to do.
        output (RunDirectory): Where to write.
        progress (bool): Whether to show progress bars. (default: :obj:`False`)
        say (Callable): Told the sizes of the set before training. (default: nothing)

    Returns:
        dict: The content of ``metrics.json``.

    Raises:
        UserError: If something the caller can put right is wrong. Nothing is left then, unless it shows only in
            training; the message names the run directory in that case.
    """
    try:
        with deterministic(run.deterministic):
            return _carry_out(run, output, progress, say)
    except UserError as error:
        output.discard_unused()
        raise UserError(f"{error} (what was written before is in '{output.path}')" if output.is_open else
                        str(error)) from error


def _carry_out(run: RunSettings, output: RunDirectory, progress: bool, say: Callable[[str], None]) -> dict[str, Any]:
    device = resolve_device(run.device)
    config, training = resolve_settings(run)
    other_settings = {name: resolve_settings(run, name) for name in run.compare}
    data = load_data(run)
    check_memory(estimate_run(data, run), device)
    check_disk(estimate_files(data, run), output.path)
    description = describe(data, run)
    # States are taken out of this when they are loaded: they are as large as the models.
    states = {name: output.state_to_resume(description, name) for name in (None, *run.compare)}
    model = build_model(data, run.model, config, run.seed, device)
    others = {name: build_model(data, name, other_settings[name][0], run.seed, device) for name in run.compare}
    data = without_features(data)  # The models have their own; at times these are most of what a run holds.
    load_features = partial(load_again, run, description['data']['hash'])
    begin = time.perf_counter()

    def load(trainer: Trainer | None, name: str | None = None) -> None:
        state = states.pop(name)
        if trainer is not None and state is not None:
            trainer.load_state_dict(state)

    def start(trainer: Trainer | None) -> None:  # Only when all is ready: whatever does not fit leaves nothing behind.
        load(trainer)
        fit = Fit() if trainer is None else trainer.fit_state
        if fit.epoch > training.epochs:
            raise UserError(f"the run in '{output.path}' has trained {fit.epoch} epochs already; give --epochs "
                            f'{fit.epoch} or more')
        output.open(description, fit.records)
        say(describe_data(description['data'], run.dataset))
        batches = describe_batches(description['training'], description['data']['num_train'])
        if batches and model.trainable:
            say(batches)
        if run.deterministic:
            say(DETERMINISTIC.format(threads=torch.get_num_threads()))
        if fit.epoch > 0:
            say(f"going on after epoch {fit.epoch}")
        elif output.resume and model.trainable:
            say('there is no checkpoint yet: starting with the first epoch')

    result = fit_model(data, model, training, run.seed, start, load_features, progress=progress,
                       on_epoch=output.add_epoch, on_checkpoint=output.save_state, on_failure=output.save_failure)
    if result.fit is not None and result.fit.resumed_after == result.fit.epoch:
        say('nothing was left to train: the last epoch was reached, or patience was over')
    metrics = {**result.metrics, 'interrupted': result.interrupted, 'total_seconds': time.perf_counter() - begin}
    output.finish(metrics, model, data, [] if result.fit is None else result.fit.records)
    for name in () if result.interrupted else run.compare:
        other = fit_model(data, others.pop(name), other_settings[name][1], run.seed, partial(load, name=name),
                          load_features, progress=progress, on_checkpoint=partial(output.save_state, compared=name),
                          on_failure=output.save_failure)
        metrics |= {'interrupted': other.interrupted, 'total_seconds': time.perf_counter() - begin}
        if not other.interrupted:  # A model that is trained by half is no comparison.
            metrics.setdefault('compare', {})[name] = other.metrics
        output.write_metrics(metrics)
        if other.interrupted:
            break
    return metrics
