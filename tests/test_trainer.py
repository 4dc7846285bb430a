"""Tests of dgmrec_pyg.training.trainer."""

from __future__ import annotations

import copy
import io
import math
import random
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_training import all_scores
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.config import DGMRecConfig, TrainingConfig
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.evaluation import SplitEvaluator
from dgmrec_pyg.nn import DGMRec, LightGCN, Recommender
from dgmrec_pyg.schema import INTERACTS, training_edges
from dgmrec_pyg.training import METRIC, BPRSampler, Trainer, load_checkpoint, save_checkpoint

DGMREC = DGMRecConfig(hidden_channels=8, knn_k=4, graph_refresh_every=2, club_weight=0.1, inter_modal_weight=0.1,
                      generate_from='encodings')
TRAINING = TrainingConfig(epochs=4, batch_size=64, learning_rate=0.01)


class Scripted:
    """A validation split whose Recall@20 is given beforehand."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = iter(values)

    def rank(self, score: object) -> None:
        return None

    def metrics(self, ranking: object) -> dict[str, float]:
        return {METRIC: next(self.values)}


def make_trainer(data: HeteroData, training: TrainingConfig = TRAINING, seed: int = 0, validation: Any = None,
                 model: Recommender | None = None, **options: Any) -> Trainer:
    if model is None:
        model = DGMRec.from_data(data, DGMREC, torch.Generator().manual_seed(seed))
    model.generator = torch.Generator().manual_seed(seed + 1)
    sampler = BPRSampler(training_edges(data), model.num_users, model.num_items, training.batch_size,
                         torch.Generator().manual_seed(seed + 2))
    labels = data[INTERACTS].val_edge_label_index
    validation = validation or SplitEvaluator(labels, training_edges(data), model.num_users, model.num_items)
    return Trainer(model, sampler, validation, training, **options)


def light_gcn(data: HeteroData, kind: type[LightGCN] = LightGCN) -> LightGCN:
    return kind.from_data(data, LightGCN.config_class(hidden_channels=8), torch.Generator().manual_seed(0))


def without_times(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if not key.endswith('seconds')} for record in records]


def tensors(state: Any) -> list[Tensor]:
    """All tensors in nested containers, in order."""
    if isinstance(state, Tensor):
        return [state]
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return [tensor for part in parts for tensor in tensors(part)]


def assert_equal_states(one: Any, other: Any) -> None:
    first, second = tensors(one), tensors(other)
    assert len(first) == len(second) > 0
    assert all(a.dtype == b.dtype and a.equal(b) for a, b in zip(first, second, strict=True))


# Early stopping and the best epoch ####################################################################################


@pytest.mark.parametrize(('values', 'settings', 'last', 'best'), [
    ([0.1, 0.2, 0.2, 0.2, 0.9], {'patience': 2}, 4, 2),  # as good as the best is not better
    ([0.3, 0.1, 0.2, 0.1], {'patience': 3}, 4, 1),
    ([0.3, 0.1, 0.31, 0.1, 0.1], {'patience': 2}, 5, 3),
    ([0.1 + 1e-9 * step for step in range(9)], {'patience': 1}, 9, 9),  # nothing is rounded
    ([0.3, 0.1, 0.1, 0.9], {'patience': 2, 'eval_every': 2}, 6, 2),  # patience counts evaluations
    ([0.3, 0.4, 0.5], {'patience': 5, 'eval_every': 4}, 9, 9),  # the last epoch is evaluated though none is due
    ([0.0, 0.0, 0.0], {'patience': 2}, 3, 1),
])
def test_early_stopping(small_data: HeteroData, values: list[float], settings: dict[str, int], last: int,
                        best: int) -> None:
    training = TRAINING.replace(epochs=9, **settings)
    fit = make_trainer(small_data, training, validation=Scripted(values), model=light_gcn(small_data)).fit()
    assert (fit.epoch, fit.best_epoch, fit.interrupted) == (last, best, False)
    assert [record['epoch'] for record in fit.records] == list(range(1, last + 1))
    evaluated = [record['epoch'] for record in fit.records if record['val'] is not None]
    every = settings.get('eval_every', 1)
    assert evaluated == [epoch for epoch in range(1, last + 1) if epoch % every == 0 or epoch == 9]
    assert fit.best_val == {METRIC: max(values[:len(evaluated)])}
    assert fit.seconds == sum(record['train_seconds'] + record['eval_seconds'] for record in fit.records) > 0


def test_the_best_epoch_is_restored_with_its_graphs(small_data: HeteroData) -> None:
    seen: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(record: dict[str, Any]) -> None:
        seen[record['epoch']] = all_scores(trainer.model), trainer.model.item_graph('image')[1].clone()

    trainer = make_trainer(small_data, validation=Scripted([0.1, 0.2, 0.1, 0.1]), on_epoch=keep)
    trainer.fit()
    scores, weights = seen[2]
    assert all_scores(trainer.model).equal(scores)
    assert trainer.model.item_graph('image')[1].equal(weights)
    assert not seen[4][0].equal(scores)
    assert not seen[4][1].equal(weights)


# What an epoch does ###################################################################################################


def test_learning_rate_decays_from_the_first_epoch(small_data: HeteroData) -> None:
    rates = []

    class Spy(LightGCN):
        def start_epoch(self, epoch: int) -> None:
            rates.append(trainer.optimizer.param_groups[0]['lr'])

    trainer = make_trainer(small_data, TRAINING.replace(learning_rate_decay=0.5), model=light_gcn(small_data, Spy))
    trainer.fit()
    assert rates == pytest.approx([0.01 * 0.5 ** (epoch / 50) for epoch in range(4)], rel=1e-12)


@pytest.mark.parametrize('model', [None, light_gcn])
def test_loss_decreases(small_data: HeteroData, model: Callable[[HeteroData], Recommender] | None) -> None:
    trainer = make_trainer(small_data, TRAINING.replace(epochs=15), model=model and model(small_data))
    losses = [record['loss'] for record in trainer.fit().records]
    assert losses[-1] < losses[7] < losses[0]


def test_terms_are_means_over_batches(small_data: HeteroData) -> None:
    seen: list[dict[str, float]] = []

    class Spy(DGMRec):
        def loss_terms(self, *args: Tensor) -> dict[str, Tensor]:
            terms = super().loss_terms(*args)
            seen.append({name: term.item() for name, term in terms.items()})
            return terms

    model = Spy.from_data(small_data, DGMREC, torch.Generator().manual_seed(0))
    record = make_trainer(small_data, TRAINING.replace(epochs=1), model=model).fit().records[0]
    assert len(seen) == 3  # 180 interactions in batches of 64
    means = {name: sum(terms[name] for terms in seen) / 3 for name in seen[0]}
    assert record['terms'] == pytest.approx(means, rel=1e-6)
    assert {'softmax', 'embedding_reg', 'club', 'generation', 'inter_modal'} <= set(record['terms'])
    weights = model.term_weights()
    assert record['loss'] == pytest.approx(sum(weights[name] * value for name, value in record['terms'].items()))


def test_an_epoch_is_in_a_checkpoint_before_it_is_told_of(small_data: HeteroData) -> None:
    told: list[tuple[str, int]] = []
    fit = make_trainer(small_data, on_epoch=lambda record: told.append(('record', record['epoch'])),
                       on_checkpoint=lambda state: told.append(('checkpoint', state['fit']['epoch']))).fit()
    assert told == [(kind, epoch) for epoch in range(1, 5) for kind in ('checkpoint', 'record')]
    assert [record['epoch'] for record in fit.records] == [1, 2, 3, 4]


def test_nothing_is_the_best_before_it_is_evaluated(small_data: HeteroData) -> None:
    """A second copy of the features costs memory, so there is none before there is anything to keep."""
    states: list[dict[str, Any]] = []
    trainer = make_trainer(small_data, TRAINING.replace(epochs=3, eval_every=2), validation=Scripted([0.2, 0.1]),
                           on_checkpoint=states.append)
    trainer.fit()
    assert [state['best_model'] is None for state in states] == [True, False, False]


def test_a_best_model_that_is_the_present_one_is_kept_once(small_data: HeteroData) -> None:
    shared: list[bool] = []
    make_trainer(small_data, validation=Scripted([0.1, 0.2, 0.1, 0.3]), on_checkpoint=lambda state: shared.append(
        state['best_model'] is state['model'])).fit()
    assert shared == [True, True, False, True]


def test_no_progress_bar_without_a_terminal(small_data: HeteroData, capfd: pytest.CaptureFixture[str]) -> None:
    make_trainer(small_data, model=light_gcn(small_data), progress=True).fit()
    assert capfd.readouterr() == ('', '')


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize('progress', [True, False])
def test_progress_bar_on_a_terminal(small_data: HeteroData, monkeypatch: pytest.MonkeyPatch, progress: bool) -> None:
    monkeypatch.setattr('sys.stderr', Terminal())
    monkeypatch.setenv('COLUMNS', '200')
    make_trainer(small_data, validation=Scripted([0.1, 0.25, 0.2, 0.1]), progress=progress).fit()
    shown = sys.stderr.getvalue()
    if progress:
        last = shown.rstrip().split('\r')[-1]
        assert re.search(r'DGMRec: 100%.* 4/4 .*, loss \d\.\d{4}, recall@20 0.1000, best 0.2500 \(epoch 2\)', last)
    else:
        assert shown == ''


# Seeds and resuming ###################################################################################################


def test_same_seed_same_numbers_and_another_seed_others(small_data: HeteroData) -> None:
    first, second, other = (make_trainer(small_data, seed=seed) for seed in (3, 3, 4))
    fits = [trainer.fit() for trainer in (first, second, other)]
    assert without_times(fits[0].records) == without_times(fits[1].records)
    assert_equal_states(first.state_dict(), second.state_dict())
    assert [r['loss'] for r in fits[0].records] != [r['loss'] for r in fits[2].records]
    assert not all_scores(first.model).equal(all_scores(other.model))


@pytest.mark.parametrize(('eval_every', 'train_features'), [(1, False), (2, False), (4, False), (2, True)])
def test_resuming_equals_training_through(small_data: HeteroData, tmp_path: Path, eval_every: int,
                                          train_features: bool) -> None:
    assert bool(small_data['item'].missing_image.any())
    training = TRAINING.replace(epochs=6, eval_every=eval_every)

    def make(seed: int = 0, **options: Any) -> Trainer:
        model = DGMRec.from_data(small_data, DGMREC.replace(train_features=train_features, reconstruction_items='all'),
                                 torch.Generator().manual_seed(seed))
        return make_trainer(small_data, training, seed, model=model, **options)

    whole = make()
    expected = whole.fit()

    # Interrupted, not finished, after the third epoch; the graphs are refreshed in the second, fourth and sixth.
    half = make(on_epoch=lambda record: (
        signal.raise_signal(signal.SIGINT) if record['epoch'] == 3 else None),
        on_checkpoint=lambda state: save_checkpoint(tmp_path / 'checkpoint.pt', state))
    assert half.fit().interrupted
    resumed = make(seed=99)
    resumed.load_state_dict(load_checkpoint(tmp_path / 'checkpoint.pt'))
    found = resumed.fit()

    assert without_times(found.records) == without_times(expected.records)
    assert (found.best_epoch, found.best_val, found.epoch) == (expected.best_epoch, expected.best_val, 6)
    assert (found.resumed_after, expected.resumed_after, found.interrupted) == (3, 0, False)
    assert_equal_states(resumed.state_dict(), whole.state_dict())
    assert all_scores(resumed.model).equal(all_scores(whole.model))


def test_global_random_states_are_kept(small_data: HeteroData, tmp_path: Path) -> None:
    """Nothing of ours draws from them, but a model of somebody else may."""

    def draw() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002, S311

    trainer = make_trainer(small_data, model=light_gcn(small_data))
    save_checkpoint(tmp_path / 'checkpoint.pt', trainer.state_dict())
    expected = draw()
    assert draw() != expected
    trainer.load_state_dict(load_checkpoint(tmp_path / 'checkpoint.pt'))
    assert draw() == expected


def test_nothing_is_trained_after_the_end(small_data: HeteroData) -> None:
    trainer = make_trainer(small_data, validation=Scripted([0.1, 0.2, 0.1, 0.1]))
    trainer.fit()
    again = make_trainer(small_data, validation=Scripted([]), seed=5)
    again.load_state_dict(trainer.state_dict())
    fit = again.fit()
    assert (fit.epoch, fit.resumed_after, fit.best_epoch) == (4, 4, 2)
    assert all_scores(again.model).equal(all_scores(trainer.model))


def test_the_best_of_the_first_part_stays_the_best(small_data: HeteroData) -> None:
    first = make_trainer(small_data, validation=Scripted([0.1, 0.9, 0.1, 0.1]))
    first.fit()
    second = make_trainer(small_data, TRAINING.replace(epochs=6), validation=Scripted([0.5, 0.6]))
    second.load_state_dict(first.state_dict())
    assert second.fit().best_epoch == 2
    assert all_scores(second.model).equal(all_scores(first.model))


def without(*keys: Any) -> Callable[[dict[str, Any]], object]:
    def change(state: dict[str, Any]) -> None:
        for key in keys[:-1]:
            state = state[key]
        del state[keys[-1]]

    return change


def nested(depth: int = 60) -> list[Any]:
    """Lists of the same list twice: small, unless one goes through them."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value, value]
    return value


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    'nothing in it': (lambda state: state.clear(), "KeyError: 'best_model'"),
    'no fit': (without('fit'), "KeyError: 'fit'"),
    'fit of another kind': (lambda state: state.update(fit=5), 'TypeError'),
    'no best epoch': (without('fit', 'best_epoch'), "KeyError: 'best_epoch'"),
    'a parameter lacks': (without('best_model', 'user_embedding.weight'), 'Missing key'),
    'parameters of another size': (lambda state: state['model'].update({'user_embedding.weight': torch.zeros(2, 2)}),
                                   'size mismatch'),
    'no best model': (lambda state: state.update(best_model=None), 'best model and its epoch do not belong together'),
    'no random states': (without('random', 'numpy'), "KeyError: 'numpy'"),
    'no generators': (lambda state: state['generators'].clear(), "KeyError: 'sampler'"),
    'a record lacks': (lambda state: state['fit']['records'].pop(0), 'epochs are not all there'),
    'a huge epoch': (lambda state: state['fit'].update(epoch=10**15), 'epochs are not all there'),
    'no epoch in a record': (lambda state: state['fit']['records'][1].pop('epoch'), 'epoch 2 is not whole'),
    'no loss in a record': (lambda state: state['fit']['records'][1].pop('loss'), 'epoch 2 is not whole'),
    'a tensor for a loss': (lambda state: state['fit']['records'][1].update(loss=torch.ones(2)),
                            'epoch 2 is not whole'),
    'an empty evaluation': (lambda state: state['fit']['records'][3].update(val={}), 'epoch 4 is not whole'),
    'a record of another kind': (lambda state: state['fit']['records'].__setitem__(1, 'a'), 'epoch 2 is not whole'),
    'another best epoch': (lambda state: state['fit'].update(best_epoch=1), 'epoch 1 is not the best'),
    'best epoch after the last': (lambda state: state['fit'].update(best_epoch=5), 'best epoch is none of'),
    "NumPy's position": (lambda state: state['random']['numpy']['state'].update(pos=10**7), "NumPy's random state"),
    "NumPy's generator": (lambda state: state['random']['numpy'].update(bit_generator='PCG64'),
                          "NumPy's random state"),
    "NumPy's key": (lambda state: state['random']['numpy']['state']['key'].pop(), "NumPy's random state"),
    "NumPy's numbers": (lambda state: state['random']['numpy']['state'].update(key=[nested()] * 624),
                        "NumPy's random state"),
    "Python's numbers": (lambda state: state['random'].update(python=(3, torch.zeros(1).expand(2**50), None)),
                         "Python's random state"),
    "Python's version": (lambda state: state['random'].update(python=(nested(), *state['random']['python'][1:])),
                         "Python's random state"),
    'scheduler of another kind': (lambda state: state['scheduler'].update(last_epoch='4'), 'do not belong together'),
    'a tensor for the last epoch': (lambda state: state['scheduler'].update(last_epoch=torch.tensor(4)),
                                    'do not belong together'),
    'another last epoch': (lambda state: state['scheduler'].update(last_epoch=3), 'do not belong together'),
    'a parameter is not finite': (lambda state: state['model']['item_embedding.weight'].fill_(math.nan),
                                  'item_embedding.weight.* is not finite'),
    'a loss is not finite': (lambda state: state['fit']['records'][1].update(loss=math.inf), 'epoch 2 is not whole'),
    'a term without a name': (lambda state: state['fit']['records'][1]['terms'].update({(1, ): 0.5}),
                              'epoch 2 is not whole'),
}


def moment(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda state: state['state'][0].update({name: value(state['state'][0][name])})


OPTIMIZER_DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    'shape': (moment('exp_avg', lambda x: torch.zeros(1)), 'exp_avg does not fit'),
    'type': (moment('exp_avg_sq', Tensor.double), 'exp_avg_sq does not fit'),
    'one number in many places': (moment('exp_avg', lambda x: torch.zeros(()).expand(x.shape)), 'exp_avg does not'),
    'step of many': (moment('step', lambda x: torch.ones(3)), 'step is not a count'),
    'step zero': (moment('step', torch.zeros_like), 'step is not a count'),
    'another kind': (without('state', 0, 'step'), 'optimizer is of another kind'),
    'another parameter': (lambda state: state['state'].update({99: state['state'][0]}), 'KeyError: 99'),
    'learning rate': (lambda state: state['param_groups'][0].update(lr='a'), 'learning rate is not a number'),
    'no learning rate': (lambda state: state['param_groups'][0].update(lr=math.nan), 'learning rate is nan, not 0.0'),
    'huge learning rate': (lambda state: state['param_groups'][0].update(lr=1e30), r'learning rate is 1e\+30, not 0.0'),
    'endless step': (moment('step', lambda x: x.fill_(math.inf)), 'step is not a count'),
    'mean not finite': (moment('exp_avg', lambda x: x.fill_(math.nan)), 'exp_avg is not finite'),
    'mean square not finite': (moment('exp_avg_sq', lambda x: x.fill_(math.inf)), 'exp_avg_sq is not finite'),
    'negative mean square': (moment('exp_avg_sq', torch.neg), 'exp_avg_sq, a mean of squares, is negative'),
}


@pytest.mark.parametrize('auxiliary', [False, True])
@pytest.mark.parametrize('case', OPTIMIZER_DAMAGE)
def test_an_optimizer_state_that_does_not_fit_is_refused(small_data: HeteroData, case: str, auxiliary: bool) -> None:
    change, message = OPTIMIZER_DAMAGE[case]
    trainer = make_trainer(small_data, TRAINING.replace(epochs=1))
    trainer.fit()
    state = copy.deepcopy(trainer.state_dict())
    change(state['auxiliary_optimizers']['club'] if auxiliary else state['optimizer'])
    with pytest.raises(UserError, match=message):
        make_trainer(small_data).load_state_dict(state)


def test_only_the_learning_rate_of_the_optimizer_is_taken_over(small_data: HeteroData) -> None:
    trainer = make_trainer(small_data, TRAINING.replace(epochs=1))
    trainer.fit()
    state = copy.deepcopy(trainer.state_dict())
    state['optimizer']['param_groups'][0].update(eps=1e9, params=[])
    other = make_trainer(small_data)
    other.load_state_dict(state)
    group = other.optimizer.param_groups[0]
    assert (group['lr'], group['eps']) == (0.01 * TRAINING.learning_rate_decay ** (1 / 50), 1e-8)
    assert len(group['params']) == len(other.model.trainable_parameters())


def test_a_buffer_that_is_not_finite_is_refused(small_data: HeteroData) -> None:
    def trainer() -> Trainer:
        model = DGMRec.from_data(small_data, DGMREC.replace(feature_channels=3), torch.Generator().manual_seed(0))
        return make_trainer(small_data, model=model)

    state = copy.deepcopy(trainer().state_dict())
    state['model']['projection.image.basis'].fill_(math.nan)
    with pytest.raises(UserError, match=r"'projection\.image\.basis' is not finite"):
        trainer().load_state_dict(state)


@pytest.mark.parametrize('case', DAMAGE)
def test_a_damaged_state_is_refused(small_data: HeteroData, case: str) -> None:
    change, message = DAMAGE[case]
    trainer = make_trainer(small_data, validation=Scripted([0.1, 0.2, 0.1, 0.1]), model=light_gcn(small_data))
    trainer.fit()
    state = copy.deepcopy(trainer.state_dict())
    change(state)
    with pytest.raises(UserError, match=f'is damaged or of another model .*{message}.*; start a new run') as caught:
        make_trainer(small_data, model=light_gcn(small_data)).load_state_dict(state)
    assert '\n' not in str(caught.value)


def test_memory_that_does_not_suffice_is_no_damage(small_data: HeteroData, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(small_data, model=light_gcn(small_data))
    state = trainer.state_dict()
    monkeypatch.setattr(trainer.model, 'load_state_dict', lambda state: torch.empty(2**58))
    with pytest.raises(RuntimeError, match='allocate'):
        trainer.load_state_dict(state)


def test_going_on_does_not_write_to_the_state(small_data: HeteroData) -> None:
    first = make_trainer(small_data, TRAINING.replace(epochs=1), model=light_gcn(small_data))
    first.fit()
    state = copy.deepcopy(first.state_dict())
    second = make_trainer(small_data, TRAINING.replace(epochs=3), model=light_gcn(small_data))
    second.load_state_dict(state)
    second.fit()
    assert len(state['fit']['records']) == 1


# What goes wrong ######################################################################################################


class Breaking(LightGCN):
    """The fifth batch spoils it, which is the second step of the second epoch."""

    steps = 0
    spoil: Callable[[dict[str, Tensor]], dict[str, Tensor]]

    def loss_terms(self, *args: Tensor) -> dict[str, Tensor]:
        self.steps += 1
        terms = super().loss_terms(*args)
        return self.spoil(terms) if self.steps == 5 else terms


def breaking(data: HeteroData, spoil: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> LightGCN:
    model = light_gcn(data, Breaking)
    model.spoil = spoil
    return model


@pytest.mark.parametrize(('spoil', 'named'), [
    (lambda terms: {**terms, 'bpr': terms['bpr'] * math.nan}, 'bpr nan'),
    (lambda terms: {**terms, 'bpr': terms['bpr'] + math.inf, 'extra': torch.tensor(math.nan)}, 'bpr inf, extra nan'),
    (lambda terms: {**terms, **dict.fromkeys(('one', 'other'), torch.tensor(3e38))}, 'total inf'),
])
def test_a_loss_that_is_not_finite_stops_at_once(small_data: HeteroData, tmp_path: Path, spoil: Any,
                                                 named: str) -> None:
    checkpoints: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    trainer = make_trainer(small_data, model=breaking(small_data, spoil), on_failure=failures.append,
                           on_checkpoint=lambda state: checkpoints.append(copy.deepcopy(state)))
    with pytest.raises(UserError, match=rf'not finite in epoch 2, step 2 of 3 \({named}\); lower the learning rate'):
        trainer.fit()
    assert trainer.model.steps == 5
    assert len(trainer.fit_state.records) == len(checkpoints) == len(failures) == 1

    failure = failures[0]['failure']
    assert (failure['epoch'], failure['step']) == (2, 2)
    bad = {name for name, value in failure['terms'].items() if not math.isfinite(value)}
    assert bad == {part.split()[0] for part in named.split(', ')} | {'total'}
    again = light_gcn(small_data)  # The parameters of that moment, and the batch, give its loss.
    again.load_state_dict(failures[0]['model'])
    assert all(parameter.isfinite().all() for parameter in again.parameters())
    assert math.isfinite(again.loss(*failure['batch']).item())
    save_checkpoint(tmp_path / 'failure.pt', failures[0])
    assert load_checkpoint(tmp_path / 'failure.pt')['failure']['terms'].keys() == failure['terms'].keys()

    resumed = make_trainer(small_data, model=light_gcn(small_data), seed=5)
    resumed.load_state_dict(checkpoints[0])
    whole = make_trainer(small_data, model=light_gcn(small_data))
    assert without_times(resumed.fit().records) == without_times(whole.fit().records)


def test_a_last_step_that_spoils_the_model_gives_no_checkpoint(small_data: HeteroData) -> None:
    """Its own loss is finite, and without an evaluation nothing else would look before the checkpoint."""
    failures: list[dict[str, Any]] = []
    checkpoints: list[int] = []
    model = light_gcn(small_data)
    model.user_embedding.weight.register_hook(lambda gradient: gradient * math.nan)
    trainer = make_trainer(small_data, TRAINING.replace(batch_size=1000, eval_every=4), model=model,
                           on_failure=failures.append, on_checkpoint=lambda state: checkpoints.append(1))
    with pytest.raises(UserError, match=r'1 of 2 parameters are not finite after epoch 1 \(first: user_embedding'):
        trainer.fit()
    assert failures[0]['failure']['parameters'] == ['user_embedding.weight']
    assert checkpoints == []


@pytest.mark.parametrize('eval_every', [1, 10])
def test_ctrl_c_ends_after_the_epoch_with_the_best_model(small_data: HeteroData, eval_every: int,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    handler = signal.getsignal(signal.SIGINT)
    scores: dict[int, Tensor] = {}

    def interrupt(record: dict[str, Any]) -> None:
        scores[record['epoch']] = all_scores(trainer.model)
        if record['epoch'] == 3:
            signal.raise_signal(signal.SIGINT)

    checkpoints: list[int] = []
    trainer = make_trainer(small_data, TRAINING.replace(epochs=50, eval_every=eval_every), on_epoch=interrupt,
                           validation=Scripted([0.1, 0.3, 0.2]),
                           on_checkpoint=lambda state: checkpoints.append(state['fit']['epoch']))
    fit = trainer.fit()
    assert fit.interrupted
    assert (fit.epoch, checkpoints) == (3, [1, 2, 3])
    best = 2 if eval_every == 1 else 3  # evaluated at the end, where no evaluation had been due
    assert fit.best_epoch == best
    assert METRIC in fit.best_val
    assert all_scores(trainer.model).equal(scores[best])
    assert signal.getsignal(signal.SIGINT) is handler
    assert 'stopping after this epoch' in capsys.readouterr().err


def test_what_generation_has_freed_goes_back_before_the_first_step(small_data: HeteroData,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, calls = make_trainer(small_data, TRAINING.replace(epochs=1)), []
    start_epoch, step = trainer.model.start_epoch, trainer.step
    monkeypatch.setattr('dgmrec_pyg.training.trainer.give_back_freed_memory', lambda: calls.append('give back'))
    monkeypatch.setattr(trainer.model, 'start_epoch', lambda epoch: calls.append('start') or start_epoch(epoch))
    monkeypatch.setattr(trainer, 'step', lambda *arguments: calls.append('step') or step(*arguments))
    trainer.fit()
    first = calls.index('step')
    assert calls[first - 2:first] == ['start', 'give back']


def test_a_second_ctrl_c_ends_at_once(small_data: HeteroData) -> None:
    def interrupt(record: dict[str, Any]) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(small_data, model=light_gcn(small_data), on_epoch=interrupt).fit()
    assert signal.getsignal(signal.SIGINT) is handler


def test_trains_in_any_thread(small_data: HeteroData) -> None:
    trainer = make_trainer(small_data, model=light_gcn(small_data))
    thread = threading.Thread(target=trainer.fit)
    thread.start()
    thread.join()
    assert trainer.fit_state.epoch == 4


def test_a_failure_that_cannot_be_written_down_is_still_named(small_data: HeteroData) -> None:
    def no_room(state: dict[str, Any]) -> None:
        raise UserError("cannot write 'failure.pt': No space left on device; free some space")

    trainer = make_trainer(small_data, on_failure=no_room)
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(math.nan)
    with pytest.raises(UserError, match=r'epoch 1, step 1 .*No space left on device.*lower the learning rate'):
        trainer.fit()
