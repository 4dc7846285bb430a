"""The comparison of generated with hidden features, at a small size."""

from __future__ import annotations

import json
from pathlib import Path

import generation
import numpy as np
import pytest
import torch

from dgmrec_pyg.errors import UserError
from dgmrec_pyg.evaluation.generation import center
from dgmrec_pyg.evaluation.retrieval import cca_guess
from dgmrec_pyg.loading import RunSettings, load_data
from dgmrec_pyg.regression import FeatureRegression
from dgmrec_pyg.schema import item_features, missing_mask


def test_figures_are_those_of_their_definitions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generation.main(['--output', str(tmp_path)]) == 0
    report = json.loads((tmp_path / 'generation-synthetic.json').read_text())
    data = load_data(RunSettings())
    rows = {(row['modality'], row['pattern']): row for row in report['rows']}
    row, lacks = rows['image', 'all'], missing_mask(data, 'image')
    assert row['num_items'] == int(lacks.sum())
    x = item_features(data, 'image')
    mean = x[~lacks].mean(dim=0)
    guess, truth = center(FeatureRegression.from_data(data).generate('image')[lacks], mean), x[lacks] - mean
    found = row['methods']['generated']
    assert found['cosine'] == pytest.approx(torch.cosine_similarity(guess, truth).mean().item(), abs=1e-5)
    assert found['r2'] == pytest.approx(1 - ((guess - truth).square().sum() / truth.square().sum()).item(), abs=1e-5)
    assert (row['methods']['mean']['cosine'], row['methods']['mean']['r2']) == (0.0, 0.0)
    for name, difference in row['differences'].items():
        assert difference['low'] < difference['mean'] < difference['high']
        assert difference['mean'] == pytest.approx(found['cosine'] - row['methods'][name]['cosine'], abs=1e-9)
    assert 'image, missing:image' in capsys.readouterr().out


def test_where_nothing_is_present_ridge_and_cca_are_the_mean(tmp_path: Path) -> None:
    assert generation.main(['--output', str(tmp_path)]) == 0
    rows = json.loads((tmp_path / 'generation-synthetic.json').read_text())['rows']
    methods, = (row['methods'] for row in rows if (row['modality'], row['pattern']) == ('image', 'missing:all'))
    for name in ('ridge', 'CCA'):
        assert methods[name]['cosine'] == pytest.approx(0.0, abs=1e-4)
        assert methods[name]['r2'] == pytest.approx(0.0, abs=1e-6)
    assert methods['generated']['cosine'] > 0.1


def test_what_missing_rows_hold_is_for_the_comparison_alone() -> None:
    data = load_data(RunSettings())
    rows = generation.compare(data)
    lacks = missing_mask(data, 'text')
    data['item'].x_text = data['item'].x_text.masked_fill(lacks.unsqueeze(1), torch.nan)
    others = [row for row in rows if row['modality'] != 'text']
    assert generation.compare(data) == others


def test_a_set_without_anything_hidden_is_refused() -> None:
    with pytest.raises(UserError, match='no modality is hidden'):
        generation.compare(load_data(RunSettings(no_missing=True)))


def test_cca_has_nothing_to_learn_from_few_items_or_equal_ones() -> None:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((40, 4)), random.standard_normal((40, 3))
    for source, target in ((x[:4], y[:4]), (np.ones_like(x), y), (x, np.ones_like(y))):
        np.testing.assert_allclose(cca_guess(source, target, x[:6]), np.tile(target.mean(axis=0), (6, 1)))


def test_cca_guesses_what_depends_on_what_is_known() -> None:
    random = np.random.default_rng(0)
    common = random.standard_normal((300, 3))
    source, target = (common @ random.standard_normal((3, size)) for size in (12, 8))
    target += 0.1 * random.standard_normal(target.shape)
    guess = cca_guess(source[:200], target[:200], source[200:])
    centered = target[200:] - target[:200].mean(axis=0)
    assert np.square(guess - target[200:]).sum() < 0.1 * np.square(centered).sum()
