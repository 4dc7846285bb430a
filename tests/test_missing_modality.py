from __future__ import annotations

import copy
from itertools import product

import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import Compose

from dgmrec_pyg.errors import UserError
from dgmrec_pyg.schema import build_data, item_features, missing_matrix, modality_names
from dgmrec_pyg.transforms import HoldOutNewItems, ImputeMissing, MissingModality
from dgmrec_pyg.transforms.strata import exact_counts

NAMES = ('audio', 'image', 'text', 'video')


def ladder(num_items: int = 1000, num_modalities: int = 2) -> HeteroData:
    """Item i is bought by the first i users, at most 50: popularity grows with the id, then all items tie."""
    item = torch.arange(num_items)
    degree = item.clamp(max=50)
    edge_index = torch.stack([torch.cat([torch.arange(n) for n in degree]), item.repeat_interleave(degree)])
    return build_data(num_users=50, num_items=num_items, edge_index=edge_index,
                      features={name: torch.randn(num_items, 3) for name in NAMES[:num_modalities]})


def count_patterns(mask: Tensor) -> dict[tuple[bool, ...], int]:
    """Naive count of the items per pattern."""
    counts: dict[tuple[bool, ...], int] = {}
    for row in mask.tolist():
        counts[tuple(row)] = counts.get(tuple(row), 0) + 1
    return counts


@pytest.mark.parametrize('num_modalities', [1, 2, 3, 4])
@pytest.mark.parametrize('ratio', [0, 0.3, 2 / 3, 1])
def test_protocol_shares(num_modalities: int, ratio: float) -> None:
    mask = missing_matrix(MissingModality(ratio)(ladder(num_modalities=num_modalities)))
    assert int(mask.any(dim=1).sum()) == round(ratio * 1000)
    counts = count_patterns(mask)
    assert counts.get((False,) * num_modalities, 0) == 1000 - round(ratio * 1000)
    for pattern in product([False, True], repeat=num_modalities):
        if any(pattern):
            share = 1 / num_modalities if all(pattern) else (1 - 1 / num_modalities) / (2**num_modalities - 2)
            assert abs(counts.get(pattern, 0) - ratio * 1000 * share) <= 2  # one per group, and there are two groups


def test_protocol_shares_of_the_paper() -> None:
    two = count_patterns(missing_matrix(MissingModality(0.8)(ladder(1000, 2))))
    assert two == {(False, False): 200, (True, False): 200, (False, True): 200, (True, True): 400}
    three = count_patterns(missing_matrix(MissingModality(0.9)(ladder(1000, 3))))
    assert three == {(False,) * 3: 100, **{p: 100 for p in product([False, True], repeat=3) if 0 < sum(p) < 3},
                     (True,) * 3: 300}


def test_protocol_meets_the_share_in_every_group() -> None:
    data = HoldOutNewItems(0.2)(ladder(1000))
    is_new = data['item'].is_new
    losing = missing_matrix(MissingModality(0.6)(data)).any(dim=1)
    cold = torch.arange(1000) < 700  # the ladder ties above 50: then the lower ids are cold
    for group in (cold & is_new, cold & ~is_new, ~cold & is_new, ~cold & ~is_new):
        assert abs(int(losing[group].sum()) - 0.6 * int(group.sum())) < 1


def test_protocol_reads_the_stored_popularity() -> None:
    data = ladder(20)
    data['item'].popularity = torch.arange(20).flip(0)  # cold: the last 14 items
    losing = missing_matrix(MissingModality(0.5)(data)).any(dim=1)
    assert int(losing[-14:].sum()) == 7
    assert int(losing[:6].sum()) == 3


@pytest.mark.parametrize('num_modalities', [1, 2, 3])
@pytest.mark.parametrize('ratio', [0, 0.3, 1])
def test_independent_shares(num_modalities: int, ratio: float) -> None:
    mask = missing_matrix(MissingModality(ratio, 'independent')(ladder(4000, num_modalities)))
    per_modality = round(4000 * (1 - (1 - ratio)**(1 / num_modalities)))
    assert mask.sum(dim=0).tolist() == [per_modality] * num_modalities
    assert mask.any(dim=1).float().mean().item() == pytest.approx(ratio, abs=0.03)


def test_independent_modalities_are_independent() -> None:
    mask = missing_matrix(MissingModality(0.75, 'independent')(ladder(4000, 2)))  # half of the items each
    assert mask.all(dim=1).float().mean().item() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize('level', [1, 2, 3])
def test_level_shares(level: int) -> None:
    mask = missing_matrix(MissingModality(0.6, 'level', level=level)(ladder(1000, 3)))
    counts = count_patterns(mask)
    assert counts.pop((False,) * 3) == 400
    assert all(sum(pattern) == level for pattern in counts)
    assert sum(counts.values()) == 600
    assert max(counts.values()) - min(counts.values()) <= 1
    assert len(counts) == {1: 3, 2: 3, 3: 1}[level]


SETTINGS = [{'pattern': 'protocol'}, {'pattern': 'independent'}, {'pattern': 'level', 'level': 2}]


@pytest.mark.parametrize('setting', SETTINGS)
def test_seed(setting: dict) -> None:
    data = ladder(200, 3)
    first, again, other = (missing_matrix(MissingModality(0.6, seed=seed, **setting)(data)) for seed in (3, 3, 4))
    assert first.equal(again)
    assert not first.equal(other)


@pytest.mark.parametrize('setting', SETTINGS)
def test_global_random_state_is_left_alone(setting: dict) -> None:
    data = ladder(100, 3)
    before = torch.get_rng_state()
    MissingModality(0.6, **setting)(data)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize('setting', SETTINGS)
def test_order_of_modalities_does_not_matter(setting: dict) -> None:
    data = ladder(200, 3)
    turned = copy.copy(data)
    for name in reversed(modality_names(data)):
        x, mask = turned['item'].pop(f'x_{name}'), turned['item'].pop(f'missing_{name}')
        turned['item'][f'missing_{name}'], turned['item'][f'x_{name}'] = mask, x
    assert list(turned['item'].keys()) != list(data['item'].keys())
    transform = MissingModality(0.6, **setting)
    for name in modality_names(data):
        assert transform(data)['item'][f'missing_{name}'].equal(transform(turned)['item'][f'missing_{name}'])


def test_missing_stays_missing(small_data: HeteroData) -> None:
    before = missing_matrix(small_data)
    after = missing_matrix(MissingModality(0.5)(small_data))
    assert before.any()
    assert after[before].all()
    assert after.sum() > before.sum()


def test_inputs_are_not_written_to(small_data: HeteroData) -> None:
    before = copy.deepcopy(small_data)
    after = MissingModality(0.9)(small_data)
    assert list(small_data['item'].keys()) == list(before['item'].keys()) == list(after['item'].keys())
    assert missing_matrix(small_data).equal(missing_matrix(before))
    for name in modality_names(small_data):
        assert item_features(after, name) is item_features(small_data, name)


def test_without_stored_masks() -> None:
    data = ladder(100)
    expected = missing_matrix(MissingModality(0.5)(data))
    for name in modality_names(data):
        del data['item'][f'missing_{name}']
    assert missing_matrix(MissingModality(0.5)(data)).equal(expected)


def test_compose() -> None:
    data = Compose([HoldOutNewItems(), MissingModality(0.6), ImputeMissing()])(ladder(100))
    assert int(missing_matrix(data).any(dim=1).sum()) == 60
    assert data['item'].imputed == 'mean'


@pytest.mark.parametrize(('arguments', 'message'), [
    ({'ratio': 1.2}, 'ratio is 1.2'),
    ({'ratio': -0.1}, 'ratio is -0.1'),
    ({'ratio': float('nan')}, 'ratio is nan'),
    ({'pattern': 'protocoll'}, "did you mean 'protocol'"),
    ({'pattern': 'level'}, 'level is None'),
    ({'level': 1}, "pattern 'protocol'"),
    ({'pattern': 'level', 'level': 3}, 'give 1 to 2, as there are the modalities audio, image'),
    ({'pattern': 'level', 'level': 0}, 'level is 0'),
])
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        MissingModality(**arguments)(ladder(20))
    assert '\n' not in str(caught.value)


def test_without_modalities() -> None:
    data = build_data(num_users=2, num_items=2, edge_index=torch.tensor([[0, 1], [0, 1]]), features={})
    with pytest.raises(UserError, match='no modality'):
        MissingModality()(data)


def test_after_imputation_is_refused(small_data: HeteroData) -> None:
    with pytest.raises(UserError, match='before ImputeMissing'):
        MissingModality()(ImputeMissing()(small_data))


def test_repr() -> None:
    assert repr(MissingModality()) == "MissingModality(ratio=0.6, pattern='protocol', seed=0)"
    transform = MissingModality(0.5, 'level', level=2, seed=1)
    assert repr(transform) == "MissingModality(ratio=0.5, pattern='level', level=2, seed=1)"


@pytest.mark.parametrize('quotas', [[9 / 9] * 9, [1 / 9] * 9, [0.5, 0.5], [2.6, 0.7, 0.7], [0.0, 3.0], []])
def test_exact_counts(quotas: list[float]) -> None:
    wanted = torch.tensor(quotas, dtype=torch.double)
    counts = exact_counts(wanted, torch.Generator().manual_seed(0))
    assert int(counts.sum()) == round(sum(quotas))
    assert bool(((counts - wanted).abs() < 1).all())


def test_exact_counts_breaks_ties_at_random() -> None:
    generator = torch.Generator().manual_seed(0)
    winners = {int(exact_counts(torch.full((5, ), 0.2, dtype=torch.double), generator).argmax()) for _ in range(60)}
    assert winners == set(range(5))
