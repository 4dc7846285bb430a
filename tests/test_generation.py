"""Tests of dgmrec_pyg.evaluation.generation."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dgmrec_pyg.evaluation.generation import generation_quality

NUM_ITEMS = 60
SIZES = {'image': 9, 'text': 5}
Tables = dict[str, dict[str, Tensor]]


@pytest.fixture
def tables() -> Tables:
    """Features with a large mean; what is missing is imputed by the mean and generated with some noise."""
    generator = torch.Generator().manual_seed(0)
    draw = {name: torch.rand(NUM_ITEMS, generator=generator) < 0.4 for name in SIZES}
    truth = {name: torch.randn(NUM_ITEMS, size, generator=generator) + 100 for name, size in SIZES.items()}
    imputed, generated = {}, {}
    for name, true in truth.items():
        mean = true[~draw[name]].mean(dim=0)
        noise = torch.randn(true.shape, generator=generator)
        imputed[name] = torch.where(draw[name].unsqueeze(1), mean, true)
        generated[name] = torch.where(draw[name].unsqueeze(1), true + noise, true)
    return {'generated': generated, 'imputed': imputed, 'truth': truth, 'missing': draw}


def naive_cosine(table: Tensor, true: Tensor, rows: list[int], mean: Tensor) -> float:
    total = 0.0
    for row in rows:
        a, b = table[row].double() - mean, true[row].double() - mean
        total += float(a @ b / (a.norm() * b.norm()))
    return total / len(rows)


def test_equals_naive_loop(tables: Tables) -> None:
    missing, truth = tables['missing'], tables['truth']
    result = generation_quality(**tables)
    both = (missing['image'] & missing['text']).nonzero().view(-1).tolist()
    only_image = (missing['image'] & ~missing['text']).nonzero().view(-1).tolist()
    rows = {'missing:image': only_image, 'missing:all': both, 'all': only_image + both}
    mean = truth['image'][~missing['image']].double().mean(dim=0)
    assert set(result['image']) == set(rows)
    for name, hidden in rows.items():
        entry = result['image'][name]
        assert entry['num_items'] == len(hidden) > 0
        for kind in ('generated', 'imputed'):
            expected = naive_cosine(tables[kind]['image'], truth['image'], hidden, torch.zeros(9))
            assert entry['cosine'][kind] == pytest.approx(expected, abs=1e-5)
        expected = naive_cosine(tables['generated']['image'], truth['image'], hidden, mean)
        assert entry['centered_cosine']['generated'] == pytest.approx(expected, abs=1e-4)
    json.dumps(result)


def test_centered_cosine_of_the_mean_is_zero(tables: Tables) -> None:
    """Also when the mean was computed in another way, so that it differs in the last bits."""
    for name, table in tables['imputed'].items():
        table[tables['missing'][name]] *= 1 + 2e-7
    result = generation_quality(**tables)
    for name in SIZES:
        assert result[name]['all']['centered_cosine']['imputed'] == 0.0
        assert result[name]['all']['cosine']['imputed'] > 0.99
        assert 0.4 < result[name]['all']['centered_cosine']['generated'] < 0.95


def test_perfect_generation(tables: Tables) -> None:
    tables['generated'] = tables['truth']
    entry = generation_quality(**tables)['text']['all']
    assert entry['cosine']['generated'] == pytest.approx(1, abs=1e-5)
    assert entry['centered_cosine']['generated'] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize('values', [(math.nan, 3), (math.inf, 0), (0.0, slice(None))], ids=['nan', 'inf', 'zeros'])
def test_unknown_truth_is_left_out(values: tuple[float, int | slice], tables: Tables) -> None:
    value, columns = values
    unknown = torch.arange(NUM_ITEMS) % 2 == 0
    hidden = int((tables['missing']['image'] & ~unknown).sum())
    tables['truth']['image'][unknown, columns] = value
    entry = generation_quality(**tables)['image']['all']
    assert entry['num_items'] == hidden
    assert all(math.isfinite(value) for kind in ('cosine', 'centered_cosine') for value in entry[kind].values())


def test_modality_without_known_truth_is_left_out(tables: Tables) -> None:
    tables['truth']['image'][tables['missing']['image']] = math.nan
    assert set(generation_quality(**tables)) == {'text'}


def test_nothing_missing(tables: Tables) -> None:
    tables['missing'] = {name: torch.zeros(NUM_ITEMS, dtype=torch.bool) for name in SIZES}
    assert generation_quality(**tables) == {}


def test_nothing_observed_is_not_centered(tables: Tables) -> None:
    tables['missing']['image'][:] = True
    entry = generation_quality(**tables)['image']['all']
    assert entry['num_items'] == NUM_ITEMS
    assert entry['centered_cosine'] == entry['cosine']


def test_observed_rows_of_unknown_truth_have_no_part_in_the_mean(tables: Tables) -> None:
    unknown = ~tables['missing']['image'] & (torch.arange(NUM_ITEMS) % 2 == 0)
    known = ~tables['missing']['image'] & ~unknown
    mean = tables['truth']['image'][known].double().mean(dim=0)
    hidden = tables['missing']['image'].nonzero().view(-1).tolist()
    expected = naive_cosine(tables['generated']['image'], tables['truth']['image'], hidden, mean)
    tables['truth']['image'][unknown] = math.nan
    entry = generation_quality(**tables)['image']['all']
    assert entry['centered_cosine']['generated'] == pytest.approx(expected, abs=1e-4)


def test_observed_rows_of_generated_and_imputed_change_nothing(tables: Tables) -> None:
    expected = generation_quality(**tables)
    for kind in ('generated', 'imputed'):
        for name, table in tables[kind].items():
            table[~tables['missing'][name]] = math.nan
    assert generation_quality(**tables) == expected


def test_inputs_are_not_written_to(tables: Tables) -> None:
    before = copy.deepcopy(tables)
    generation_quality(**tables)
    assert all(tables[kind][name].equal(table) for kind, group in before.items() for name, table in group.items())


class MostBytes(TorchDispatchMode):
    """Notes the bytes of the largest tensor that an operation made."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.count = max(self.count, made.nbytes if isinstance(made, Tensor) else 0)
        return made


def test_wide_features_are_compared_block_by_block() -> None:
    generator = torch.Generator().manual_seed(0)
    true, noise = (torch.randn(8192, 1024, generator=generator) for _ in range(2))
    made = true + noise
    missing = {'image': torch.arange(8192) % 4 > 0, 'text': torch.arange(8192) % 3 > 0}
    with MostBytes() as most:
        result = generation_quality({'image': made}, {'image': true}, {'image': true}, missing)
    hidden = missing['image']
    assert 0 < most.count < true[hidden].nbytes
    expected = F.cosine_similarity(made[hidden], true[hidden]).mean()
    assert result['image']['all']['cosine']['generated'] == pytest.approx(float(expected), abs=1e-6)
    assert result['image']['all']['num_items'] == 6144
