"""Tests of dgmrec_pyg.nn.nearest, and of graphs built by the approximate index."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dgmrec_pyg.nn import ItemGraphs, build_knn_graph, nearest
from dgmrec_pyg.nn.nearest import approximate_neighbors, exact_neighbors

NUM_ITEMS, SIZE = 600, 8
WITHOUT_FAISS = """
import sys
sys.modules['faiss'] = None
import torch
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.nn import build_knn_graph
try:
    build_knn_graph(torch.ones(5, 2), 2, index='approximate')
except UserError as error:
    print(error)
"""


@pytest.fixture
def x() -> Tensor:
    """Items in clusters of ten."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(NUM_ITEMS // 10, SIZE, generator=generator).repeat(10, 1)
    return centers + 0.3 * torch.randn(NUM_ITEMS, SIZE, generator=generator)


@pytest.fixture
def missing() -> Tensor:
    return torch.rand(NUM_ITEMS, generator=torch.Generator().manual_seed(1)) < 0.4


def recall(found: Tensor, wanted: Tensor) -> float:
    return (wanted.unsqueeze(2) == found.unsqueeze(1)).any(dim=2).float().mean().item()


def as_dict(graph: tuple[Tensor, Tensor]) -> dict[tuple[int, int], float]:
    edge_index, weight = graph
    return dict(zip(map(tuple, edge_index.t().tolist()), weight.tolist(), strict=True))


@pytest.mark.parametrize('tile', [1, 7, 100, NUM_ITEMS])
def test_tiles_of_any_size_give_the_nearest(x: Tensor, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, '_TILE_ITEMS', tile)
    neighbor, similarity = exact_neighbors(x, 9)
    expected = torch.nn.functional.cosine_similarity(x.unsqueeze(1), x.unsqueeze(0), dim=2).topk(9)
    torch.testing.assert_close(similarity, expected.values)
    assert neighbor.equal(expected.indices)


def test_chosen_rows_have_the_neighbors_that_they_have_among_all(x: Tensor) -> None:
    rows = torch.tensor([5, 0, 599, 5])
    neighbor, similarity = exact_neighbors(x, 4, rows=rows, block_size=3)
    expected = exact_neighbors(x, 4)
    assert neighbor.equal(expected[0][rows])
    torch.testing.assert_close(similarity, expected[1][rows])


@pytest.mark.parametrize('shift', [0.0, 2.0])
def test_approximate_finds_most_neighbors_with_their_true_cosines(x: Tensor, shift: float) -> None:
    pytest.importorskip('faiss')
    x = x + shift
    neighbor, similarity = approximate_neighbors(x, 8)
    assert recall(neighbor, exact_neighbors(x, 8)[0]) > 0.95
    cosine = torch.nn.functional.cosine_similarity(x.unsqueeze(1), x[neighbor], dim=2)
    torch.testing.assert_close(similarity, cosine)
    assert (similarity.diff(dim=1) <= 0).all()
    assert (neighbor.sort(dim=1).values.diff(dim=1) > 0).all()  # each stands once


def test_approximate_looks_at_few_cells(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('faiss')
    scattered = torch.randn(20 * 64, 32, generator=torch.Generator().manual_seed(3))
    exact = exact_neighbors(scattered, 10)[0]
    found = []
    for cells in (1, 4, 20):
        monkeypatch.setattr(nearest, '_VISITED_CELLS', cells)
        found.append(recall(approximate_neighbors(scattered, 10)[0], exact))
    assert found[0] < found[1] < found[2]
    assert found[2] > 0.99


def test_approximate_is_the_same_at_every_call(x: Tensor) -> None:
    pytest.importorskip('faiss')
    first = approximate_neighbors(x, 8)
    torch.manual_seed(5)  # noqa: TID251 (the global state is what must not matter)
    state = torch.get_rng_state()
    again = approximate_neighbors(x, 8)
    assert torch.get_rng_state().equal(state)
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize('knn_missing', ['drop_after', 'exclude_before'])
@pytest.mark.parametrize('with_missing', [True, False])
def test_small_graph_is_the_exact_one(x: Tensor, missing: Tensor, knn_missing: str, with_missing: bool) -> None:
    """With one cell and twice as many candidates as neighbors nothing is lost."""
    pytest.importorskip('faiss')
    x, missing = x[:100].double(), missing[:100] if with_missing else torch.zeros(100, dtype=torch.bool)
    graphs = [as_dict(build_knn_graph(x, 5, missing, knn_missing, index=index)) for index in ('exact', 'approximate')]
    assert graphs[0].keys() == graphs[1].keys()
    assert graphs[1] == pytest.approx(graphs[0])


@pytest.mark.parametrize('knn_missing', ['drop_after', 'exclude_before'])
def test_zero_rows_have_no_weight_and_take_no_place(x: Tensor, missing: Tensor, knn_missing: str) -> None:
    pytest.importorskip('faiss')
    zero = torch.zeros(NUM_ITEMS, dtype=torch.bool)
    zero[::3] = True
    x[zero] = 0.0
    (source, target), weight = build_knn_graph(x, 6, missing, knn_missing, index='approximate')
    assert weight.isfinite().all()
    assert (weight[(zero & ~missing)[target]] == 0).all()
    assert not (zero & ~missing)[source].any()
    loops = missing.nonzero().view(-1)
    assert source[missing[target]].equal(loops)
    assert target[missing[source]].equal(loops)


def test_excluded_rows_may_hold_anything(x: Tensor, missing: Tensor) -> None:
    pytest.importorskip('faiss')
    expected = build_knn_graph(x, 6, missing, 'exclude_before', index='approximate')
    x[missing] = math.nan
    found = build_knn_graph(x, 6, missing, 'exclude_before', index='approximate')
    assert all(a.equal(b) for a, b in zip(found, expected, strict=True))


def test_an_item_is_its_own_neighbor_among_many_that_the_index_cannot_tell_apart(x: Tensor) -> None:
    pytest.importorskip('faiss')
    x[:100] = x[0] + 0.01 * torch.randn(100, SIZE, generator=torch.Generator().manual_seed(2))
    neighbor, _ = approximate_neighbors(x, 3)
    assert neighbor[:, 0].equal(torch.arange(NUM_ITEMS))


@pytest.mark.parametrize('rows', [0, 1, 3])
def test_few_candidates(x: Tensor, rows: int) -> None:
    pytest.importorskip('faiss')
    candidates = torch.arange(NUM_ITEMS) < rows
    neighbor, similarity = approximate_neighbors(x, 5, candidates)
    assert (similarity > -math.inf).sum(dim=1).tolist() == [rows] * rows + [0] * (NUM_ITEMS - rows)
    assert (neighbor[similarity > -math.inf] < rows).all()


def test_approximate_does_not_write_to_features(x: Tensor, missing: Tensor) -> None:
    pytest.importorskip('faiss')
    before = x.clone()
    build_knn_graph(x, 5, missing, 'exclude_before', index='approximate')
    assert x.equal(before)


def test_item_graphs_use_the_index_for_build_and_refresh(x: Tensor, missing: Tensor,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('faiss')
    monkeypatch.setattr(nearest, '_VISITED_CELLS', 1)  # so that the two differ
    graphs = {index: ItemGraphs({'text': missing}, 5, knn_missing='exclude_before', is_new=torch.arange(600) < 50,
                                index=index) for index in ('exact', 'approximate')}
    for item_graphs in graphs.values():
        item_graphs.build({'text': x})
    first = {index: g.graph('text').edge_index.as_tensor().clone() for index, g in graphs.items()}
    assert not first['exact'].equal(first['approximate'])
    for item_graphs in graphs.values():
        item_graphs.refresh({'text': x}, 1.0)
    changed = missing & (torch.arange(600) >= 50)
    edges = {index: g.graph('text').edge_index.as_tensor() for index, g in graphs.items()}
    rows = {index: e[:, changed[e[1]]] for index, e in edges.items()}
    assert not rows['exact'].equal(rows['approximate'])


def test_without_faiss_the_error_names_the_extra() -> None:
    answer = subprocess.run([sys.executable, '-c', WITHOUT_FAISS], capture_output=True, text=True, check=False,
                            cwd=Path(nearest.__file__).parents[2])
    assert answer.stdout.count('\n') == 1, answer.stderr
    assert 'pip install "dgmrec-pyg[ann]"' in answer.stdout


def test_unknown_index_is_an_error(x: Tensor) -> None:
    with pytest.raises(ValueError, match="index must be one of exact, approximate \\(got 'exakt'\\)"):
        build_knn_graph(x, 3, index='exakt')
