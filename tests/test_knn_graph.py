"""Tests of dgmrec_pyg.nn.knn_graph."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dgmrec_pyg.nn import build_knn_graph
from dgmrec_pyg.nn.knn_graph import blend_rows

NUM_ITEMS = 23


@pytest.fixture
def x() -> Tensor:
    return torch.randn(NUM_ITEMS, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def missing() -> Tensor:
    return torch.rand(NUM_ITEMS, generator=torch.Generator().manual_seed(1)) < 0.4


def dense(graph: tuple[Tensor, Tensor]) -> Tensor:
    """The matrix [item, neighbor]; every edge must stand once."""
    (source, target), weight = graph
    assert (target * NUM_ITEMS + source).unique().numel() == target.numel()
    return torch.zeros(NUM_ITEMS, NUM_ITEMS, dtype=weight.dtype).index_put((target, source), weight)


def naive_graph(x: Tensor, k: int, missing: Tensor, exclude_before: bool) -> Tensor:
    """The definition, item by item."""
    matrix = torch.zeros(NUM_ITEMS, NUM_ITEMS, dtype=x.dtype)
    for i in range(NUM_ITEMS):
        if missing[i]:
            matrix[i, i] = 1.0
            continue
        candidates = [j for j in range(NUM_ITEMS) if not (exclude_before and missing[j])]
        cosine = {j: float(x[i] @ x[j] / x[i].norm() / x[j].norm()) for j in candidates}
        for j in sorted(candidates, key=lambda j: -cosine[j])[:k]:
            if not missing[j] and (cosine[j] > 0 or not exclude_before):
                matrix[i, j] = cosine[j]
    degree = matrix.sum(dim=1)
    scale = torch.where(degree > 0, degree.abs() ** -0.5, 0.0)
    return matrix * scale[:, None] * scale[None, :]


@pytest.mark.parametrize('k', [1, 4, NUM_ITEMS, NUM_ITEMS + 5])
@pytest.mark.parametrize('knn_missing', ['drop_after', 'exclude_before'])
@pytest.mark.parametrize('with_missing', [True, False])
def test_graph_equals_definition(x: Tensor, missing: Tensor, k: int, knn_missing: str, with_missing: bool) -> None:
    missing = missing if with_missing else torch.zeros_like(missing)
    graph = build_knn_graph(x, k, missing if with_missing else None, knn_missing)
    torch.testing.assert_close(dense(graph), naive_graph(x, k, missing, knn_missing == 'exclude_before'))


def test_exclude_before_keeps_k_neighbors_where_drop_after_loses_some(x: Tensor, missing: Tensor) -> None:
    def neighbors(knn_missing: str) -> Tensor:
        return (dense(build_knn_graph(x + 2.0, 4, missing, knn_missing)) != 0).sum(dim=1)[~missing]

    assert (neighbors('exclude_before') == 4).all()
    assert (neighbors('drop_after') < 4).any()


def test_excluded_items_take_no_place(x: Tensor, missing: Tensor) -> None:
    """As if they were not there, though some of the observed items point away from each other."""
    observed = (~missing).nonzero().view(-1)
    (source, target), weight = build_knn_graph(x[observed], 5, knn_missing='exclude_before')
    expected = torch.diag(missing.to(x.dtype))
    expected[observed[target], observed[source]] = weight
    torch.testing.assert_close(dense(build_knn_graph(x, 5, missing, 'exclude_before')), expected)


@pytest.mark.parametrize('block_size', [1, 2, 7, NUM_ITEMS, 1000])
@pytest.mark.parametrize('knn_missing', ['drop_after', 'exclude_before'])
def test_blocks_of_any_size_give_the_same(x: Tensor, missing: Tensor, knn_missing: str, block_size: int) -> None:
    expected = build_knn_graph(x, 5, missing, knn_missing)
    found = build_knn_graph(x, 5, missing, knn_missing, block_size)
    assert found[0].equal(expected[0])
    torch.testing.assert_close(found[1], expected[1])


@pytest.mark.parametrize('knn_missing', ['drop_after', 'exclude_before'])
def test_items_without_the_modality_have_a_loop_and_nothing_else(x: Tensor, missing: Tensor, knn_missing: str) -> None:
    matrix = dense(build_knn_graph(x, 5, missing, knn_missing))
    loops = torch.eye(NUM_ITEMS, dtype=x.dtype)
    assert matrix[missing].equal(loops[missing])
    assert matrix[:, missing].equal(loops[:, missing])


@pytest.mark.parametrize('knn_missing', ['drop_after', 'exclude_before'])
def test_all_missing_leaves_loops(x: Tensor, knn_missing: str) -> None:
    matrix = dense(build_knn_graph(x, 5, torch.ones(NUM_ITEMS, dtype=torch.bool), knn_missing))
    assert matrix.equal(torch.eye(NUM_ITEMS, dtype=x.dtype))


def test_excluded_items_may_hold_anything(x: Tensor, missing: Tensor) -> None:
    expected = dense(build_knn_graph(x, 5, missing, 'exclude_before'))
    x[missing] = float('nan')
    assert dense(build_knn_graph(x, 5, missing, 'exclude_before')).equal(expected)


@pytest.mark.parametrize('rows', [slice(0, 1), slice(2, 9), slice(0, NUM_ITEMS)])
@pytest.mark.parametrize('value', ['zero', 'identical', 'opposite'])
def test_rows_of_no_or_the_same_direction_give_finite_weights(x: Tensor, rows: slice, value: str) -> None:
    x[rows] = {'zero': 0.0, 'identical': 1.0, 'opposite': -x[0]}[value]
    for knn_missing in ('drop_after', 'exclude_before'):
        _, weight = build_knn_graph(x, 8, knn_missing=knn_missing)
        assert weight.isfinite().all()


@pytest.mark.parametrize('offset', [1e-3, 0.0, -1e-3])
def test_opposite_rows_have_no_edge_and_keep_their_loops(offset: float) -> None:
    """With an edge of similarity near -1, the sum of each row would be near zero and weights some thousands."""
    x = torch.tensor([[1.0, 0.0], [-1.0, offset]])
    edge_index, weight = build_knn_graph(x, 2, knn_missing='exclude_before')
    assert edge_index.tolist() == [[0, 1], [0, 1]]
    torch.testing.assert_close(weight, torch.ones(2))


def test_no_item_loses_all_edges_and_no_weight_is_negative_or_above_one(x: Tensor) -> None:
    matrix = dense(build_knn_graph(x, NUM_ITEMS, knn_missing='exclude_before'))
    assert (matrix.diagonal() > 0).all()
    assert (matrix >= 0).all()
    assert (matrix <= 1 + 1e-9).all()


def test_items_whose_places_are_all_taken_by_missing_twins_give_finite_weights() -> None:
    missing = torch.tensor([True, True, True, False, False])
    _, weight = build_knn_graph(torch.ones(5, 3), 2, missing, 'drop_after')
    assert weight.isfinite().all()


def test_an_item_is_its_own_neighbor(x: Tensor) -> None:
    assert (dense(build_knn_graph(x, 1)).diagonal() > 0.99).all()


def test_scale_of_features_does_not_matter(x: Tensor) -> None:
    torch.testing.assert_close(dense(build_knn_graph(x, 4)), dense(build_knn_graph(1000 * x, 4)))


def test_features_are_not_written_to(x: Tensor, missing: Tensor) -> None:
    before = x.clone(), missing.clone()
    build_knn_graph(x, 5, missing, 'exclude_before')
    assert x.equal(before[0])
    assert missing.equal(before[1])


@pytest.mark.parametrize(('arguments', 'message'), [
    ({'k': 0}, 'k must be at least 1'),
    ({'k': 3, 'knn_missing': 'drop'}, "got 'drop'"),
])
def test_wrong_arguments_are_errors(x: Tensor, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_knn_graph(x, **arguments)


def test_features_that_are_not_finite_are_an_error(x: Tensor, missing: Tensor) -> None:
    x[missing] = float('nan')
    with pytest.raises(ValueError, match='must be finite'):
        build_knn_graph(x, 3, missing, 'drop_after')


@pytest.mark.parametrize('rate', [0.0, 0.3, 1.0])
def test_blend_equals_dense(x: Tensor, missing: Tensor, rate: float) -> None:
    old, new = build_knn_graph(x, 4, missing), build_knn_graph(x.flip(1), 6)
    expected = dense(old)
    expected[missing] = rate * dense(new)[missing] + (1 - rate) * dense(old)[missing]
    blended = blend_rows(old, new, missing, rate, NUM_ITEMS)
    torch.testing.assert_close(dense(blended), expected)
    assert (blended[1] != 0).all()


def test_blend_of_no_rows_changes_nothing(x: Tensor, missing: Tensor) -> None:
    old = build_knn_graph(x, 4, missing)
    before = old[0].clone(), old[1].clone()
    blended = blend_rows(old, build_knn_graph(x, 6), torch.zeros_like(missing), 0.5, NUM_ITEMS)
    assert dense(blended).equal(dense(before))
    assert old[1].equal(before[1])
