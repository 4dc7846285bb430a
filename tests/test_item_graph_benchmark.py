"""The benchmark of item graphs at its smallest size; no time is judged."""

from __future__ import annotations

import json
from pathlib import Path

import item_graph
import pytest
import torch

from dgmrec_pyg import memory
from dgmrec_pyg.nn import build_knn_graph
from dgmrec_pyg.nn.nearest import exact_neighbors


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process takes seconds to start; speed's tests start some."""
    monkeypatch.setattr(item_graph, 'in_own_process', lambda task, index, threads: item_graph.MEASURES[index](task))


def test_smoke(in_this_process: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('faiss')
    assert item_graph.main(['--smoke', '--output', str(tmp_path)]) == 0
    report = json.loads((tmp_path / 'item-graph.json').read_text(encoding='utf-8'))
    assert report['task'] == {'items': 2_000, 'channels': 16, 'rows': 200, 'k': 10, 'seed': 0}
    assert report['feature_bytes'] == 4 * 2_000 * 16
    assert report['exact']['rows'] == 200
    for way in ('exact', 'approximate'):
        assert report[way]['seconds'] > 0
        assert report[way]['peak_bytes'] is None or report[way]['peak_bytes'] > report['feature_bytes']
    shown = capsys.readouterr().out
    assert 'extrapolated from 200 of 2,000 rows' in shown
    assert f"{report['approximate']['recall']:.4f}" in shown
    pytest.importorskip('matplotlib')
    assert (tmp_path / 'item-graph.png').stat().st_size > 1000


def test_recall_is_that_of_the_chosen_rows(in_this_process: None) -> None:
    pytest.importorskip('faiss')
    task = item_graph.Task(items=1_500, channels=6, rows=40, k=4, seed=3)
    x, rows = item_graph.make_features(task), item_graph.chosen_rows(task)
    assert rows.numel() == 40
    (source, target), _ = build_knn_graph(x, 4, index='approximate')
    hits = [len({*exact} & set(source[target == row].tolist()))
            for row, exact in zip(rows.tolist(), exact_neighbors(x, 4, rows=rows)[0].tolist(), strict=True)]
    assert item_graph.measure(task)['approximate']['recall'] == pytest.approx(sum(hits) / 160)


def test_features_are_clustered_and_depend_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    task = item_graph.Task(items=500, channels=64, rows=10)
    x = item_graph.make_features(task)
    assert x.shape == (500, 64)
    assert item_graph.make_features(task).equal(x)
    assert not item_graph.make_features(item_graph.Task(500, 64, 10, seed=1)).equal(x)
    similarity = exact_neighbors(x, 20)[1]
    assert similarity[:, 19].mean() > 0.35  # many are alike,
    assert exact_neighbors(torch.randn_like(x), 20)[1][:, 19].mean() < 0.3  # which is no matter of the size


def test_a_graph_that_does_not_fit_is_refused_before_anything_is_made(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('faiss')
    monkeypatch.setattr(memory, 'available_bytes', lambda device: 4 * 2**30)
    monkeypatch.setattr(item_graph, 'in_own_process', lambda *arguments: pytest.fail('something was made'))
    assert item_graph.main(['--items', '2000000', '--output', str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: a graph of 2,000,000 items with features of 384 needs about ')
    assert error.count('\n') == 1
    assert list(tmp_path.iterdir()) == []


def test_a_million_items_are_taken_to_fit_into_four_gibibytes() -> None:
    task = item_graph.Task()
    assert (task.items, task.channels) == (1_000_000, 384)
    assert 2 * 4 * 384_000_000 < task.estimated_bytes() < 4 * 2**30
