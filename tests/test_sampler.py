"""Tests of dgmrec_pyg.training.sampler."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.errors import UserError
from dgmrec_pyg.schema import training_edges
from dgmrec_pyg.training.sampler import BPRSampler


def make_sampler(edge_index: Tensor, num_users: int = 30, num_items: int = 40, batch_size: int = 16, seed: int = 0,
                 exclude_items: Tensor | None = None) -> BPRSampler:
    generator = torch.Generator().manual_seed(seed)
    return BPRSampler(edge_index, num_users, num_items, batch_size, generator, exclude_items)


def epoch(sampler: BPRSampler) -> Tensor:
    """One epoch as rows (user, positive, negative)."""
    return torch.cat([torch.stack(batch, dim=1) for batch in sampler])


def seen_by(rows: int, *items: int) -> Tensor:
    """Users 0 to rows - 1 have all seen the same items."""
    return torch.stack([torch.arange(rows).repeat_interleave(len(items)), torch.tensor(items).repeat(rows)])


@pytest.mark.parametrize('batch_size', [1, 7, 60, 180, 1000])
def test_an_epoch_is_every_interaction_once(small_data: HeteroData, batch_size: int) -> None:
    edges = training_edges(small_data)
    sampler = make_sampler(edges, batch_size=batch_size)
    batches = list(sampler)
    sizes = [batch[0].numel() for batch in batches]
    assert len(sampler) == len(batches) == -(-180 // batch_size)
    assert all(size == batch_size for size in sizes[:-1])
    assert all(part.shape == batch[0].shape for batch in batches for part in batch)
    positives = torch.cat([torch.stack(batch[:2]) for batch in batches], dim=1)
    assert not positives.equal(edges)
    assert sorted(positives.t().tolist()) == sorted(edges.t().tolist())


def test_negatives_are_never_training_items(small_data: HeteroData) -> None:
    edges = training_edges(small_data)
    seen = torch.zeros(30, 40, dtype=torch.bool)
    seen[edges[0], edges[1]] = True
    sampler = make_sampler(edges)
    drawn = torch.cat([epoch(sampler) for _ in range(100)])
    user, _, negative = drawn.unbind(dim=1)
    assert not seen[user, negative].any()
    # 600 draws a user over 34 items: each is drawn at least once.
    assert torch.stack([user, negative]).unique(dim=1).size(1) == int((~seen).sum())


@pytest.mark.parametrize('seen', [(0, 1, 2), (3, 4, 5), (7, 8, 9), (0, 4, 9), (5, 2, 6, 3, 8, 1)])
@pytest.mark.parametrize('excluded', [(), (0,), (4, 9), (5, 6)])
def test_negatives_are_uniform(seen: tuple[int, ...], excluded: tuple[int, ...]) -> None:
    exclude = torch.zeros(10, dtype=torch.bool)
    exclude[list(excluded)] = True
    sampler = make_sampler(seen_by(3, *seen), 3, 10, exclude_items=exclude)
    draws = 20_000
    allowed = sorted(set(range(10)) - set(seen) - set(excluded))
    for user in range(3):
        count = sampler.sample_negatives(torch.full((draws,), user)).bincount(minlength=10)
        assert count.nonzero().view(-1).tolist() == allowed
        expected = draws / len(allowed)
        chi_square = float(((count[allowed] - expected) ** 2 / expected).sum())
        assert chi_square < len(allowed) - 1 + 5 * (2 * len(allowed)) ** 0.5


def test_users_of_different_histories_are_kept_apart() -> None:
    """User 0 has seen all but item 2, user 1 nothing in training, user 2 all but item 0, user 3 all but item 3."""
    edges = torch.tensor([[2, 0, 0, 0, 2, 2, 3, 3, 3], [1, 0, 1, 3, 2, 3, 0, 1, 2]])
    drawn = epoch(make_sampler(edges, 4, 4))
    assert dict(drawn[:, [0, 2]].tolist()) == {0: 2, 2: 0, 3: 3}
    free = make_sampler(edges, 4, 4).sample_negatives(torch.ones(200, dtype=torch.long))
    assert free.unique().tolist() == [0, 1, 2, 3]


def test_repeated_interactions_are_kept_as_positives() -> None:
    edges = torch.tensor([[0, 0, 0], [1, 1, 2]])
    drawn = epoch(make_sampler(edges, 1, 4))
    assert sorted(drawn[:, 1].tolist()) == [1, 1, 2]
    assert set(drawn[:, 2].tolist()) <= {0, 3}


def test_excluded_items_are_never_drawn(small_data: HeteroData) -> None:
    exclude = torch.arange(40) % 3 == 0
    sampler = make_sampler(training_edges(small_data), exclude_items=exclude)
    negatives = torch.cat([epoch(sampler)[:, 2] for _ in range(50)])
    assert not exclude[negatives].any()
    assert negatives.unique().numel() == int((~exclude).sum())


def test_same_seed_gives_same_epochs(small_data: HeteroData) -> None:
    first, second, other = (make_sampler(training_edges(small_data), seed=seed) for seed in (3, 3, 4))
    epochs = [epoch(first), epoch(first)]
    assert epochs[0].equal(epoch(second))
    assert epochs[1].equal(epoch(second))
    assert not epochs[0].equal(epochs[1])
    assert not epochs[0].equal(epoch(other))


def test_epoch_continues_from_generator_state(small_data: HeteroData) -> None:
    sampler = make_sampler(training_edges(small_data))
    epoch(sampler)
    state = sampler.generator.get_state()
    expected = epoch(sampler)
    resumed = make_sampler(training_edges(small_data), seed=99)
    resumed.generator.set_state(state)
    assert epoch(resumed).equal(expected)


def test_user_who_has_seen_everything_is_left_out_with_a_warning() -> None:
    edges = torch.cat([seen_by(1, 0, 1, 2), torch.tensor([[1], [0]])], dim=1)
    with pytest.warns(UserWarning, match='3 of 4 training interactions are left out') as caught:
        sampler = make_sampler(edges, 2, 3, batch_size=2)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert len(sampler) == 1
        assert epoch(sampler)[:, 0].tolist() == [1]


def test_nothing_left_to_draw_raises() -> None:
    with pytest.raises(UserError, match=r'none of the 6 training interactions .* \(3 of 3 items may be drawn\)'):
        make_sampler(seen_by(2, 0, 1, 2), 2, 3)
    with pytest.raises(UserError, match=r'\(0 of 3 items may be drawn\)'):
        make_sampler(seen_by(2, 0), 2, 3, exclude_items=torch.ones(3, dtype=torch.bool))
    with pytest.raises(UserError, match='none of the 0 training interactions'):
        make_sampler(torch.empty(2, 0, dtype=torch.long), 2, 3)


def test_batch_size_below_one_raises(small_data: HeteroData) -> None:
    with pytest.raises(UserError, match='batch_size is 0; give a number of at least 1'):
        make_sampler(training_edges(small_data), batch_size=0)


def test_inputs_are_not_written_to(small_data: HeteroData) -> None:
    edges, exclude = training_edges(small_data), torch.arange(40) < 5
    before = edges.clone(), exclude.clone()
    epoch(make_sampler(edges, exclude_items=exclude))
    assert edges.equal(before[0])
    assert exclude.equal(before[1])
