"""Tests of dgmrec_pyg.training.adam."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.config import DGMRecConfig, TrainingConfig
from dgmrec_pyg.evaluation import SplitEvaluator
from dgmrec_pyg.nn import DGMRec, wide_linear
from dgmrec_pyg.schema import INTERACTS, training_edges
from dgmrec_pyg.training import BPRSampler, Trainer
from dgmrec_pyg.training.adam import make_state, tables_stepped_by_rows

CONFIG = DGMRecConfig(hidden_channels=8, knn_k=4, train_features=True, generate_from='encodings',
                      reconstruction_items='all', club_weight=0.1)


def make_trainer(data: HeteroData, epochs: int = 2, seed: int = 0, config: DGMRecConfig = CONFIG) -> Trainer:
    model = DGMRec.from_data(data, config, torch.Generator().manual_seed(seed))
    model.generator = torch.Generator().manual_seed(seed + 1)
    edges = training_edges(data)
    sampler = BPRSampler(edges, model.num_users, model.num_items, 64, torch.Generator().manual_seed(seed + 2))
    validation = SplitEvaluator(data[INTERACTS].val_edge_label_index, edges, model.num_users, model.num_items)
    return Trainer(model, sampler, validation, TrainingConfig(epochs=epochs, learning_rate=0.01))


def parameters(trainer: Trainer) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in trainer.model.named_parameters()}


@pytest.mark.parametrize('which', ['all', 'batch', 'observed'])
@pytest.mark.parametrize('rows', [3, 1000])
def test_stepping_tables_by_rows_equals_stepping_them_whole(small_data: HeteroData, monkeypatch: pytest.MonkeyPatch,
                                                            which: str, rows: int) -> None:
    monkeypatch.setattr(wide_linear, '_BLOCK_ELEMENTS', {'cpu': 12 * rows})
    config = CONFIG.replace(reconstruction_items=which)
    by_rows, whole, still = (make_trainer(small_data, config=config) for _ in range(3))
    monkeypatch.setattr(whole.model, 'give_table_gradients', lambda take: None)
    by_rows.fit()
    whole.fit()
    torch.testing.assert_close(parameters(by_rows), parameters(whole))
    torch.testing.assert_close(by_rows.optimizer.state_dict(), whole.optimizer.state_dict())
    for before, after in zip(still.model.feature_tables.values(), by_rows.model.feature_tables.values(), strict=True):
        assert (before != after).any(dim=1).sum() > before.size(0) / 2  # More than what has been generated.


def test_tables_have_no_gradient_while_they_are_stepped_by_rows(small_data: HeteroData) -> None:
    trainer = make_trainer(small_data)
    model, batch = trainer.model, next(iter(trainer.sampler))
    make_state(trainer.optimizer)
    before = copy.deepcopy(model.feature_tables)
    with tables_stepped_by_rows(model, trainer.optimizer):
        model.loss(*batch).backward()
        for name, table in model.feature_tables.items():
            assert table.grad is None
            assert not table.equal(before[name])
    model.loss(*batch).backward()
    assert all(table.grad is not None for table in model.feature_tables.values())


def test_the_state_made_beforehand_is_what_the_first_step_makes() -> None:
    made, plain = (torch.optim.Adam([torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(5).double())],
                                    fused=True) for _ in range(2))
    make_state(made)
    assert all(not state[name].any() for state in made.state.values() for name in ('step', 'exp_avg', 'exp_avg_sq'))
    for optimizer in (made, plain):
        for parameter in optimizer.param_groups[0]['params']:
            parameter.grad = torch.full_like(parameter, 0.5)
        optimizer.step()
    for ours, theirs in zip(made.state.values(), plain.state.values(), strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert value.dtype == theirs[name].dtype
            assert value.equal(theirs[name])


def test_a_checkpoint_without_what_has_had_no_gradient_is_taken_up(small_data: HeteroData) -> None:
    """As they were written when the state was made by the first gradient."""
    trainer = make_trainer(small_data, epochs=1)
    trainer.fit()
    state = copy.deepcopy(trainer.state_dict())
    del state['optimizer']['state'][0]
    resumed = make_trainer(small_data, seed=5)
    resumed.load_state_dict(state)
    resumed.fit()
    assert len(resumed.optimizer.state_dict()['state']) == len(trainer.optimizer.state_dict()['state'])


def test_a_checkpoint_with_what_has_had_no_gradient_is_taken_up(small_data: HeteroData) -> None:
    without_decoders = CONFIG.replace(reconstruction_weight=0.0, feature_generation_weight=0.0)
    trainer = make_trainer(small_data, epochs=1, config=without_decoders)
    trainer.fit()
    resumed = make_trainer(small_data, seed=5, config=without_decoders)
    resumed.load_state_dict(copy.deepcopy(trainer.state_dict()))
    assert {int(state['step']) for state in resumed.optimizer.state.values()} == {0, len(trainer.sampler)}
    assert resumed.fit().epoch == 2


def test_two_losses_in_one_backward_pass_are_refused_while_tables_are_stepped_by_rows(small_data: HeteroData) -> None:
    trainer = make_trainer(small_data)
    make_state(trainer.optimizer)
    batch = next(iter(trainer.sampler))
    with tables_stepped_by_rows(trainer.model, trainer.optimizer), pytest.raises(RuntimeError, match='inplace'):
        (trainer.model.loss(*batch) + trainer.model.loss(*batch)).backward()


def test_training_after_a_step_that_raised_starts_without_its_gradients(small_data: HeteroData) -> None:
    trainer, other = (make_trainer(small_data) for _ in range(2))
    for parameter in trainer.model.trainable_parameters():
        parameter.grad = torch.ones_like(parameter)
    trainer.fit()
    other.fit()
    for name, expected in parameters(other).items():
        torch.testing.assert_close(parameters(trainer)[name], expected, rtol=0.0, atol=0.0)
