"""Tests of benchmarks/lightgcn_pyg.py."""

from __future__ import annotations

import json
from pathlib import Path

import lightgcn_pyg
import pytest
import torch
from model_training import draw_batch
from torch_geometric.data import HeteroData

from dgmrec_pyg.nn import LightGCN
from dgmrec_pyg.nn.models import LightGCNConfig


def test_with_the_same_weights_it_is_ours(small_data: HeteroData) -> None:
    config = LightGCNConfig(hidden_channels=8, embedding_reg_weight=0.5)
    ours, theirs = LightGCN.from_data(small_data, config), lightgcn_pyg.PyGLightGCN.from_data(small_data, config)
    with torch.no_grad():
        theirs.model.embedding.weight.copy_(torch.cat([ours.user_embedding.weight, ours.item_embedding.weight]))
    for one, two in zip(ours.embed(), theirs.embed(), strict=True):
        torch.testing.assert_close(one, two)
    batch = draw_batch(small_data)
    torch.testing.assert_close(ours.loss(*batch), theirs.loss(*batch))


def test_both_learn_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lightgcn_pyg.main(['--epochs', '3', '--seeds', '1', '2', '--output', str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    report = json.loads((tmp_path / 'lightgcn-pyg-synthetic.json').read_text(encoding='utf-8'))
    assert report['epochs'] == 3
    assert [record['seed'] for record in report['records']] == [1, 2]
    differences = []
    for record in report['records']:
        recalls = [record[name]['recall@20'] for name in ('ours', 'pyg')]
        assert min(recalls) > 0.04  # A random order gives 0.02.
        differences.append(recalls[0] - recalls[1])
        assert f'{recalls[0]:.4f}' in shown
    assert abs(sum(differences) / 2) < 0.02
    assert f'difference: {sum(differences) / 2:+.4f}' in shown


def test_an_error_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lightgcn_pyg.main(['--dataset', 'nothing', '--root', str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith('error: ')
