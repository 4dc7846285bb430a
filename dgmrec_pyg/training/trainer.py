"""The training loop: BPR batches, learning-rate decay, early stopping on validation."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor
from tqdm import tqdm

from dgmrec_pyg.config import TrainingConfig
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.evaluation import SplitEvaluator
from dgmrec_pyg.memory import is_out_of_memory
from dgmrec_pyg.nn.models.base import Recommender
from dgmrec_pyg.training.adam import make_state, tables_stepped_by_rows
from dgmrec_pyg.training.finite import TOTAL, LossWatch, NotFinite, is_finite
from dgmrec_pyg.training.heap import give_back_freed_memory, keep_freed_memory
from dgmrec_pyg.training.interrupt import graceful_interrupt
from dgmrec_pyg.training.random_state import random_state, set_random_state
from dgmrec_pyg.training.sampler import BPRSampler
from dgmrec_pyg.training.saved_state import check_fit, load_model, load_optimizer

METRIC = 'recall@20'
"""What early stopping watches, unrounded."""

Record = dict[str, Any]


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

    An epoch ends with its checkpoint, and only then is its record handed out: what :obj:`on_epoch` has been told of is
    never lost. A loss that is not finite ends training at once, see :class:`~dgmrec_pyg.training.finite.LossWatch`.

    Args:
        model (Recommender): The model, on the device where it is to be trained.
        sampler (BPRSampler): The batches.
        validation (SplitEvaluator): The validation split.
        config (TrainingConfig): The settings.
        progress (bool): Whether to show a progress bar where the error output is a terminal. (default: :obj:`False`)
        on_epoch (Callable, optional): Called with each epoch's record. (default: nothing)
        on_checkpoint (Callable, optional): Called with :meth:`state_dict`'s result after each epoch, before
            :obj:`on_epoch`. (default: nothing)
        on_failure (Callable, optional): Called when something is not finite, with what :meth:`state_dict` returns then
            and, under ``failure``, the epoch, the step, its terms and its batch. (default: nothing)
    """

    def __init__(self, model: Recommender, sampler: BPRSampler, validation: SplitEvaluator, config: TrainingConfig,
                 progress: bool = False, on_epoch: Callable[[Record], None] | None = None,
                 on_checkpoint: Callable[[dict[str, Any]], None] | None = None,
                 on_failure: Callable[[dict[str, Any]], None] | None = None) -> None:
        keep_freed_memory()
        self.model = model
        self.sampler = sampler
        self.validation = validation
        self.config = config
        self.progress = progress
        self.on_epoch = on_epoch or (lambda record: None)
        self.on_checkpoint = on_checkpoint or (lambda state: None)
        self.on_failure = on_failure or (lambda state: None)
        self.optimizer = torch.optim.Adam(model.trainable_parameters(), lr=config.learning_rate, fused=True)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, config.learning_rate_factor)
        self.fit_state = Fit()
        # None as long as there is no best epoch, and where the model itself is in the state of that one.
        self._best_state: dict[str, Any] | None = None

    def fit(self) -> Fit:
        """Trains until the last epoch, until validation has not improved for long enough, or until Ctrl-C, which ends
        training after the epoch in flight.

        Raises:
            UserError: If the loss is no longer finite.
        """
        fit, config = self.fit_state, self.config
        bar = tqdm(total=config.epochs, initial=fit.epoch, unit='epoch', disable=None if self.progress else True,
                   desc=type(self.model).__name__, dynamic_ncols=True)
        with bar, graceful_interrupt() as interrupt:
            give_back_freed_memory()  # What building the model has freed.
            make_state(self.optimizer)
            self.optimizer.zero_grad()  # What a step that raised has left.
            while fit.epoch < config.epochs and not self._patience_is_over() and not interrupt.is_set():
                record = self._epoch(fit.epoch + 1)
                bar.set_postfix_str(f"loss {record['loss']:.4f}, {METRIC} {self._last_metric():.4f}, "
                                    f"best {fit.best_val.get(METRIC, math.nan):.4f} (epoch {fit.best_epoch})",
                                    refresh=False)
                bar.update()
        fit.interrupted = interrupt.is_set()
        if not fit.records:  # Ctrl-C before the first epoch: there is nothing to keep.
            raise KeyboardInterrupt
        if fit.best_epoch == 0:  # Ctrl-C before the first evaluation was due; whoever goes on does without this one.
            self._evaluate(fit.records[-1])
        if self._best_state is not None:
            self.model.load_state_dict(self._best_state)
        self._best_state = None
        give_back_freed_memory()
        return fit

    def state_dict(self) -> dict[str, Any]:
        """Returns all that is needed to go on after the present epoch."""
        fit, model = self.fit_state, self.model.state_dict()
        auxiliary = {name: optimizer.state_dict() for name, optimizer in self.model.auxiliary_optimizers().items()}
        return {
            'model': model,
            # The same tensors right after the best epoch: a file holds them once then.
            'best_model': model if self._is_best else self._best_state,
            'optimizer': self.optimizer.state_dict(),
            'auxiliary_optimizers': auxiliary,
            'scheduler': {'last_epoch': self.scheduler.last_epoch},
            'generators': {name: generator.get_state() for name, generator in self._generators().items()},
            'random': random_state(self.model.device),
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
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # PyTorch's guesses about what is damaged; the error below says it.
                self._load(state)
        except Exception as error:  # A damaged state fails in many ways.
            if is_out_of_memory(error):
                raise
            reason = ' '.join(f'{type(error).__name__}: {error}'.split())
            raise UserError(f'the checkpoint to go on from is damaged or of another model ({reason:.200}); start a new '
                            'run in another folder') from error

    def _load(self, state: dict[str, Any]) -> None:
        if state['best_model'] is not None:
            load_model(self.model, state['best_model'])  # Shows now, not after training, whether it fits.
        self._best_state = state['best_model']
        load_model(self.model, state['model'])
        for name, optimizer in self.model.auxiliary_optimizers().items():
            load_optimizer(optimizer, state['auxiliary_optimizers'][name], optimizer.param_groups[0]['lr'])
        for name, generator in self._generators().items():
            generator.set_state(state['generators'][name])
        fit = state['fit']
        check_fit(fit, METRIC)
        last_epoch = state['scheduler']['last_epoch']
        if type(last_epoch) is not int or last_epoch != fit['epoch']:
            raise ValueError('the learning rate and the epoch do not belong together')
        load_optimizer(self.optimizer, state['optimizer'],
                       float(self.scheduler.base_lrs[0]) * self.scheduler.lr_lambdas[0](last_epoch))
        self.scheduler.last_epoch = last_epoch
        self.fit_state = Fit(fit['best_epoch'], fit['best_val'], fit['epoch'], list(fit['records']),
                             resumed_after=fit['epoch'])
        if (self._best_state is None) != (self.fit_state.best_epoch == 0):
            raise ValueError('the best model and its epoch do not belong together')
        if fit['best_epoch'] == fit['epoch']:
            self._best_state = None  # The model itself.
        set_random_state(state['random'], self.model.device)

    def _epoch(self, epoch: int) -> Record:
        """Trains one epoch, evaluates it when it is due, and writes it down."""
        fit, start = self.fit_state, time.perf_counter()
        if fit.best_epoch > 0 and self._best_state is None:
            self._best_state = _copy(self.model.state_dict())
        self.model.train()
        self.model.start_epoch(epoch)
        give_back_freed_memory()  # A step needs blocks of other sizes than generation does.
        terms = self._train_batches(epoch)
        self._check_parameters(epoch)
        self.scheduler.step()
        record: Record = {'epoch': epoch, 'loss': terms.pop(TOTAL), 'terms': terms,
                          'train_seconds': time.perf_counter() - start, 'eval_seconds': 0.0, 'val': None}
        if epoch % self.config.eval_every == 0 or epoch == self.config.epochs:
            self._evaluate(record)
        fit.epoch = epoch
        fit.records.append(record)
        self.on_checkpoint(self.state_dict())
        self.on_epoch(record)
        return record

    def _train_batches(self, epoch: int) -> dict[str, float]:
        """One pass over the training interactions; returns the mean of each term over the batches."""
        watch = LossWatch()
        try:
            with tables_stepped_by_rows(self.model, self.optimizer):
                for batch in self.sampler:
                    self.step(batch, watch)
            return watch.means()
        except NotFinite as error:
            self._fail(f'the loss is not finite in epoch {epoch}, step {error.step} of {len(self.sampler)} ({error})',
                       epoch=epoch, step=error.step, terms=error.terms, batch=error.batch)

    def step(self, batch: tuple[Tensor, ...], watch: LossWatch) -> None:
        """Takes one step; nothing that it makes is there any more in the next one, neither gradients nor what they were
        computed from.

        Args:
            batch (tuple): Users, positive and negative items, as the sampler yields them.
            watch (LossWatch): Looks at the terms.

        Raises:
            NotFinite: If a term is NaN or infinite.
        """
        terms = self.model.loss_terms(*batch)
        total = self.model.total(terms)
        watch.add(terms, total, batch)
        total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _check_parameters(self, epoch: int) -> None:
        """Stops where the last step has spoilt the model, which the loss would show only after the checkpoint."""
        parameters = dict(self.model.named_parameters())
        finite = torch.stack([is_finite(parameter) for parameter in parameters.values()]).tolist()
        bad = [name for name, is_sound in zip(parameters, finite, strict=True) if not is_sound]
        if bad:
            self._fail(f"{len(bad)} of {len(finite)} parameters are not finite after epoch {epoch} (first: {bad[0]})",
                       epoch=epoch, step=len(self.sampler), parameters=bad)

    def _fail(self, message: str, **failure: Any) -> NoReturn:
        try:
            self.on_failure({**self.state_dict(), 'best_model': self._best_state, 'failure': failure})
        except UserError as error:  # Such as a full disk, which must not hide what went wrong.
            message = f'{message}; {error}'
        raise UserError(f'{message}; lower the learning rate (--set learning_rate=...) or look at the scale of the '
                        'features')

    def _evaluate(self, record: Record) -> None:
        fit, start = self.fit_state, time.perf_counter()
        self.model.eval()
        give_back_freed_memory()
        record['val'] = self.validation.metrics(self.validation.rank(self.model.scorer()))
        if fit.best_epoch == 0 or record['val'][METRIC] > fit.best_val[METRIC]:
            fit.best_epoch, fit.best_val = record['epoch'], record['val']
            self._best_state = None  # The model itself, until it is trained on.
        record['eval_seconds'] = time.perf_counter() - start

    def _patience_is_over(self) -> bool:
        fit = self.fit_state
        waited = sum(record['val'] is not None for record in fit.records[fit.best_epoch:])
        return fit.best_epoch > 0 and waited >= self.config.patience

    def _last_metric(self) -> float:
        evaluated = [record['val'][METRIC] for record in self.fit_state.records if record['val'] is not None]
        return evaluated[-1] if evaluated else math.nan

    @property
    def _is_best(self) -> bool:
        fit = self.fit_state
        return fit.best_epoch > 0 and self._best_state is None

    def _generators(self) -> dict[str, torch.Generator]:
        generators = {'sampler': self.sampler.generator}
        if self.model.generator is not None:
            generators['model'] = self.model.generator
        return generators


def _copy(state: Any) -> Any:
    """A copy that later training steps do not change."""
    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _copy(value) for key, value in state.items()}
    if isinstance(state, tuple):
        return tuple(_copy(value) for value in state)
    return state
