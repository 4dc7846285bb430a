"""Tests of dgmrec_pyg.regression.embedding_regression."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dgmrec_pyg.regression import EmbeddingRegression
from dgmrec_pyg.regression.block_ridge import PENALTIES

ITEMS, SIZE = 60, 5


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


FEATURES = {'image': 4 + 10 * draw(ITEMS, 6, seed=1), 'text': 0.1 * draw(ITEMS, 3, seed=2)}
KNOWN = torch.arange(ITEMS) % 4 != 0
EMBEDDING = FEATURES['image'][:, :SIZE] @ draw(SIZE, SIZE, seed=3) + 5 * draw(ITEMS, SIZE, seed=4)


def naive(features: dict[str, Tensor], known: Tensor, embedding: Tensor) -> Tensor:
    """The guesses, with the penalty of the least error when each item is left out, made independent of rotations."""
    blocks = []
    for x in features.values():
        centered = x.double() - x[known].double().mean(dim=0)
        blocks.append(centered / centered[known].square().sum(dim=1).mean().sqrt())
    x, mean = torch.cat(blocks, dim=1), embedding[known].double().mean(dim=0)
    y, identity = embedding[known].double() - mean, torch.eye(x.size(1), dtype=torch.double)
    tried = []
    for penalty in PENALTIES:
        solution = torch.linalg.inv(x[known].t() @ x[known] + penalty * identity) @ x[known].t()
        freedom = 1 + (x[known] @ solution).trace()
        error = (y - x[known] @ solution @ y).square().sum() / (1 - freedom / len(y))**2
        tried.append((float(error), solution @ y))
    return x @ min(tried, key=lambda found: found[0])[1] + mean


def guesses(features: dict[str, Tensor], embedding: Tensor, known: Tensor = KNOWN) -> Tensor:
    regression = EmbeddingRegression(features, known)
    columns = regression.columns(features)
    return regression.fit(columns, embedding)(columns)


@pytest.mark.parametrize('noise', [0.0, 1.0, 100.0])
def test_it_is_ridge_regression_with_a_penalty_chosen_by_cross_validation(noise: float) -> None:
    embedding = EMBEDDING + noise * draw(ITEMS, SIZE, seed=5)
    torch.testing.assert_close(guesses(FEATURES, embedding).double(), naive(FEATURES, KNOWN, embedding),
                               rtol=1e-3, atol=1e-3)


def test_scale_and_order_of_modalities_do_not_matter() -> None:
    other = {'text': 1000 * FEATURES['text'], 'image': FEATURES['image'] - 50}
    torch.testing.assert_close(guesses(other, EMBEDDING), guesses(FEATURES, EMBEDDING), rtol=1e-3, atol=1e-3)


def test_embeddings_of_unknown_items_are_not_read() -> None:
    spoilt = EMBEDDING.masked_fill(~KNOWN[:, None], torch.nan)
    assert guesses(FEATURES, spoilt).equal(guesses(FEATURES, EMBEDDING))


def test_wide_features_are_made_narrow_and_inputs_are_not_written_to() -> None:
    wide = {'image': draw(ITEMS, 300, seed=6), 'text': FEATURES['text']}
    before = {m: x.clone() for m, x in wide.items()}
    regression = EmbeddingRegression(wide, KNOWN)
    assert regression.columns(wide).shape == (ITEMS, int(KNOWN.sum()) + 3)  # No more components than known items.
    assert guesses(wide, EMBEDDING).isfinite().all()
    assert all(x.equal(before[m]) for m, x in wide.items())


def test_features_that_are_all_alike_give_the_mean() -> None:
    same = {m: torch.ones_like(x) for m, x in FEATURES.items()}
    torch.testing.assert_close(guesses(same, EMBEDDING), EMBEDDING[KNOWN].mean(dim=0).expand(ITEMS, SIZE))
