"""The training loop: BPR batches, learning-rate decay, early stopping on validation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from tqdm import tqdm

from dgmrec_pyg.config import TrainingConfig
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.evaluation import SplitEvaluator
from dgmrec_pyg.nn.models.base import Recommender
from dgmrec_pyg.training.interrupt import graceful_interrupt
from dgmrec_pyg.training.sampler import BPRSampler

METRIC = 'recall@20'
"""What early stopping watches, unrounded."""

Record = dict[str, Any]
_RECORD_KEYS = {'epoch', 'loss', 'terms', 'train_seconds', 'eval_seconds', 'val'}


@dataclass
class Fit:
    """How training went.

    Attributes:
        best_epoch (int): The epoch with the best validation metric, from 1; 0 before the first evaluation.
        best_val (dict): All validation metrics of that epoch.
        epoch (int): The last epoch that was trained.
        records (list): One dict per epoch: ``epoch``, ``loss``, ``terms``, ``train_seconds``, ``eval_seconds``,
            ``val``.
        interrupted (bool): Whether it was ended by Ctrl-C.
        resumed_after (int): The epoch after which training was taken up again; 0 if it began at the beginning.
    """

    best_epoch: int = 0
    best_val: dict[str, float] = field(default_factory=dict)
    epoch: int = 0
    records: list[Record] = field(default_factory=list)
    interrupted: bool = False
    resumed_after: int = 0

    @property
    def seconds(self) -> float:
        """Seconds spent in training and validation, over all epochs."""
        return sum(record['train_seconds'] + record['eval_seconds'] for record in self.records)


class Trainer:
    r"""Trains a recommender by Adam at :math:`lr \cdot decay^{epoch / 50}` until validation Recall@20 stops rising.

    Afterwards the model holds the parameters (and item graphs) of the best epoch. Nothing here ever sees the test set.

    Args:
        model (Recommender): The model, on the device where it is to be trained.
        sampler (BPRSampler): The batches.
        validation (SplitEvaluator): The validation split.
        config (TrainingConfig): The settings.
        progress (bool): Whether to show a progress bar where the error output is a terminal. (default: :obj:`False`)
        on_epoch (Callable, optional): Called with each epoch's record. (default: nothing)
        on_checkpoint (Callable, optional): Called with :meth:`state_dict`'s result, at most once per
            :obj:`checkpoint_seconds` and at the end. (default: nothing)
        checkpoint_seconds (float): Least seconds between two checkpoints. (default: :obj:`60.0`)
    """

    def __init__(self, model: Recommender, sampler: BPRSampler, validation: SplitEvaluator, config: TrainingConfig,
                 progress: bool = False, on_epoch: Callable[[Record], None] | None = None,
                 on_checkpoint: Callable[[dict[str, Any]], None] | None = None,
                 checkpoint_seconds: float = 60.0) -> None:
        self.model = model
        self.sampler = sampler
        self.validation = validation
        self.config = config
        self.progress = progress
        self.on_epoch = on_epoch or (lambda record: None)
        self.on_checkpoint = on_checkpoint
        self.checkpoint_seconds = checkpoint_seconds
        self.optimizer = torch.optim.Adam(model.trainable_parameters(), lr=config.learning_rate, fused=True)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda epoch: config.learning_rate_decay ** (epoch / 50))
        self.fit_state = Fit()
        self._best_state = _copy(model.state_dict())

    def fit(self) -> Fit:
        """Trains until the last epoch, until validation has not improved for long enough, or until Ctrl-C, which ends
        training after the epoch in flight.

        Raises:
            UserError: If the loss is no longer finite.
        """
        fit, config = self.fit_state, self.config
        bar = tqdm(total=config.epochs, initial=fit.epoch, unit='epoch', disable=None if self.progress else True,
                   desc=type(self.model).__name__, dynamic_ncols=True)
        last_checkpoint = time.monotonic()
        with bar, graceful_interrupt() as interrupt:
            while fit.epoch < config.epochs and not self._patience_is_over() and not interrupt.is_set():
                record = self._epoch(fit.epoch + 1)
                bar.set_postfix_str(f"loss {record['loss']:.4f}, {METRIC} {self._last_metric():.4f}, "
                                    f"best {fit.best_val.get(METRIC, math.nan):.4f} (epoch {fit.best_epoch})",
                                    refresh=False)
                bar.update()
                if time.monotonic() - last_checkpoint >= self.checkpoint_seconds:
                    self._checkpoint()
                    last_checkpoint = time.monotonic()
        fit.interrupted = interrupt.is_set()
        if not fit.records:  # Ctrl-C before the first epoch: there is nothing to keep.
            raise KeyboardInterrupt
        if fit.best_epoch == 0:  # Ctrl-C before the first evaluation was due.
            self._evaluate(fit.records[-1])
        self._checkpoint()
        self.model.load_state_dict(self._best_state)
        return fit

    def state_dict(self) -> dict[str, Any]:
        """Returns all that is needed to go on after the present epoch."""
        fit = self.fit_state
        auxiliary = {name: optimizer.state_dict() for name, optimizer in self.model.auxiliary_optimizers().items()}
        return {
            'model': self.model.state_dict(),
            'best_model': self._best_state,
            'optimizer': self.optimizer.state_dict(),
            'auxiliary_optimizers': auxiliary,
            'scheduler': {'last_epoch': self.scheduler.last_epoch},
            'generators': {name: generator.get_state() for name, generator in self._generators().items()},
            'fit': {'best_epoch': fit.best_epoch, 'best_val': fit.best_val, 'epoch': fit.epoch,
                    'records': fit.records},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up where :meth:`state_dict` was called.

        Args:
            state (dict): What :meth:`state_dict` returned, for the same model, data and settings.

        Raises:
            UserError: If the state is damaged or of another model.
        """
        try:
            self._load(state)
        except Exception as error:  # A damaged state fails in many ways.
            reason = ' '.join(f'{type(error).__name__}: {error}'.split())
            raise UserError(f'the checkpoint to go on from is damaged or of another model ({reason:.200}); start a new '
                            'run in another folder') from error

    def _load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state['best_model'])  # Shows now, not after training, whether it fits.
        self._best_state = state['best_model']
        self.model.load_state_dict(state['model'])
        self.optimizer.load_state_dict(state['optimizer'])
        for name, optimizer in self.model.auxiliary_optimizers().items():
            optimizer.load_state_dict(state['auxiliary_optimizers'][name])
        self.scheduler.last_epoch = state['scheduler']['last_epoch']
        for name, generator in self._generators().items():
            generator.set_state(state['generators'][name])
        self.fit_state = _fit_to_go_on(state['fit'])

    def _epoch(self, epoch: int) -> Record:
        """Trains one epoch and evaluates it when it is due."""
        fit, start = self.fit_state, time.perf_counter()
        self.model.train()
        self.model.start_epoch(epoch)
        terms = self._train_batches()
        self.scheduler.step()
        loss = sum(self.model.term_weights().get(name, 1.0) * value for name, value in terms.items())
        if not math.isfinite(loss):
            bad = [name for name, value in terms.items() if not math.isfinite(value)]
            raise UserError(f"the loss is not finite in epoch {epoch} ({', '.join(bad)}); lower the learning rate "
                            '(--set learning_rate=...) or look at the scale of the features')
        record: Record = {'epoch': epoch, 'loss': loss, 'terms': terms,
                          'train_seconds': time.perf_counter() - start, 'eval_seconds': 0.0, 'val': None}
        if epoch % self.config.eval_every == 0 or epoch == self.config.epochs:
            self._evaluate(record)
        fit.epoch = epoch
        fit.records.append(record)
        self.on_epoch(record)
        return record

    def _train_batches(self) -> dict[str, float]:
        """One pass over the training interactions; returns the mean of each term over the batches."""
        totals: dict[str, torch.Tensor] = {}
        for user, pos_item, neg_item in self.sampler:
            terms = self.model.loss_terms(user, pos_item, neg_item)
            self.optimizer.zero_grad()
            self.model.total(terms).backward()
            self.optimizer.step()
            for name, term in terms.items():  # Kept on the device: a number on the host would wait for it.
                totals[name] = totals.get(name, 0.0) + term.detach()
        return {name: float(total) / len(self.sampler) for name, total in totals.items()}

    def _evaluate(self, record: Record) -> None:
        fit, start = self.fit_state, time.perf_counter()
        self.model.eval()
        record['val'] = self.validation.metrics(self.validation.rank(self.model.scorer()))
        if fit.best_epoch == 0 or record['val'][METRIC] > fit.best_val[METRIC]:
            fit.best_epoch, fit.best_val = record['epoch'], record['val']
            self._best_state = _copy(self.model.state_dict())
        record['eval_seconds'] = time.perf_counter() - start

    def _patience_is_over(self) -> bool:
        fit = self.fit_state
        waited = sum(record['val'] is not None for record in fit.records[fit.best_epoch:])
        return fit.best_epoch > 0 and waited >= self.config.patience

    def _last_metric(self) -> float:
        evaluated = [record['val'][METRIC] for record in self.fit_state.records if record['val'] is not None]
        return evaluated[-1] if evaluated else math.nan

    def _checkpoint(self) -> None:
        if self.on_checkpoint is not None:
            self.on_checkpoint(self.state_dict())

    def _generators(self) -> dict[str, torch.Generator]:
        generators = {'sampler': self.sampler.generator}
        if self.model.generator is not None:
            generators['model'] = self.model.generator
        return generators


def _fit_to_go_on(state: dict[str, Any]) -> Fit:
    """The fit of a state, if its records are all there."""
    fit = Fit(state['best_epoch'], state['best_val'], state['epoch'], state['records'], resumed_after=state['epoch'])
    whole = [record['epoch'] for record in fit.records if record.keys() == _RECORD_KEYS]
    if whole != list(range(1, fit.epoch + 1)):
        raise ValueError(f'epochs 1 to {fit.epoch} are not all there')
    if fit.best_epoch > 0 and fit.best_val != fit.records[fit.best_epoch - 1]['val']:
        raise ValueError(f'epoch {fit.best_epoch} is not the best')
    return fit


def _copy(state: Any) -> Any:
    """A copy that later training steps do not change."""
    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _copy(value) for key, value in state.items()}
    if isinstance(state, tuple):
        return tuple(_copy(value) for value in state)
    return state
