"""Tests of dgmrec_pyg.nn.LightGCNConv."""

from __future__ import annotations

import pytest
import torch
from adjacency_kinds import KINDS, dense_matrix, dense_symmetric, draw_edges, make_kind
from conftest import make_data
from torch import Tensor
from torch_geometric.nn import HeteroConv, LGConv

from dgmrec_pyg.nn import LightGCNConv
from dgmrec_pyg.schema import INTERACTS, ITEM, REV_INTERACTS, USER

NUM_SOURCES, NUM_TARGETS = 8, 6
SIZE = (NUM_SOURCES, NUM_TARGETS)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(NUM_SOURCES, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize('size', [SIZE, SIZE[::-1]])
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('weighted', [True, False])
@pytest.mark.parametrize('normalize', [True, False])
def test_output_and_gradient_equal_dense(kind: str, weighted: bool, normalize: bool, size: tuple[int, int]) -> None:
    edge_index, weight = draw_edges(*size, num_edges=17)
    weight = weight if weighted else None
    adjacency, edge_weight = make_kind(kind, edge_index, weight, size)
    x = torch.randn(size[0], 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64, requires_grad=True)
    matrix = dense_matrix(edge_index, weight, size)
    expected = (dense_symmetric(matrix) if normalize else matrix) @ x

    out = LightGCNConv(normalize)((x, None), adjacency, edge_weight, size=size)
    torch.testing.assert_close(out, expected)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    torch.testing.assert_close(torch.autograd.grad(out, x, grad), torch.autograd.grad(expected, x, grad))


@pytest.mark.parametrize('kind', [kind for kind in KINDS if kind.startswith('edge')])
@pytest.mark.parametrize('normalize', [True, False])
def test_gradient_of_weights_equals_dense(kind: str, normalize: bool, x: Tensor) -> None:
    edge_index, weight = draw_edges(*SIZE, num_edges=17)
    weight.requires_grad_()
    matrix = dense_matrix(edge_index, weight, SIZE)
    expected = (dense_symmetric(matrix) if normalize else matrix) @ x
    adjacency, edge_weight = make_kind(kind, edge_index, weight, SIZE)
    out = LightGCNConv(normalize)((x, None), adjacency, edge_weight, size=SIZE)
    (ours,), (naive,) = (torch.autograd.grad(y.square().sum(), weight, retain_graph=True) for y in (out, expected))
    torch.testing.assert_close(ours, naive)


@pytest.mark.parametrize('kind', KINDS)
def test_number_of_targets_comes_from_target_features_or_the_adjacency(kind: str, x: Tensor) -> None:
    adjacency, edge_weight = make_kind(kind, *draw_edges(*SIZE, num_edges=17), SIZE)
    target = torch.full((NUM_TARGETS, 1), float('nan'))  # Only the number of rows counts.
    conv = LightGCNConv()
    expected = conv((x, None), adjacency, edge_weight, size=SIZE)
    assert conv((x, target), adjacency, edge_weight).equal(expected)
    if kind in ('edge_list', 'edge_index_without_size'):
        with pytest.raises(ValueError, match='number of targets is not known'):
            conv((x, None), adjacency, edge_weight)
    else:
        assert conv((x, None), adjacency, edge_weight).equal(expected)


@pytest.mark.parametrize('kind', KINDS)
def test_isolated_nodes_get_zeros(kind: str, x: Tensor) -> None:
    adjacency, edge_weight = make_kind(kind, *draw_edges(*SIZE, num_edges=17), SIZE)
    out = LightGCNConv()((x, None), adjacency, edge_weight, size=SIZE)
    assert out[-1].tolist() == [0.0, 0.0, 0.0]
    assert (out[:-1] != 0).all()


@pytest.mark.parametrize('kind', KINDS)
def test_no_edges(kind: str, x: Tensor) -> None:
    adjacency, edge_weight = make_kind(kind, torch.empty(2, 0, dtype=torch.long), None, SIZE)
    out = LightGCNConv()((x, None), adjacency, edge_weight, size=SIZE)
    assert out.equal(torch.zeros(NUM_TARGETS, 3, dtype=torch.float64))


@pytest.mark.parametrize('turned', [False, True])
def test_a_changed_source_changes_its_targets_and_no_others(turned: bool) -> None:
    edge_index, _ = draw_edges(*SIZE, num_edges=17)
    edge_index, size = (edge_index.flip(0), SIZE[::-1]) if turned else (edge_index, SIZE)
    x = torch.randn(size[0], 2, generator=torch.Generator().manual_seed(5))
    changed = x.clone()
    changed[2] += 1.0
    conv = LightGCNConv()
    differs = (conv((x, None), edge_index, size=size) != conv((changed, None), edge_index, size=size)).any(dim=1)
    neighbors = set(edge_index[1, edge_index[0] == 2].tolist())
    assert 0 < len(neighbors) < size[1]
    assert set(differs.nonzero().view(-1).tolist()) == neighbors


def test_one_tensor_is_the_layer_on_one_set_of_nodes() -> None:
    edge_index, _ = draw_edges(9, 9, num_edges=30)
    edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1).unique(dim=1)
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(6))
    torch.testing.assert_close(LightGCNConv()(x, edge_index), LGConv()(x, edge_index))


def test_inside_hetero_conv() -> None:
    data = make_data()
    x_dict = {USER: torch.randn(30, 4, generator=torch.Generator().manual_seed(7)),
              ITEM: torch.randn(40, 4, generator=torch.Generator().manual_seed(8))}
    layer = HeteroConv({INTERACTS: LightGCNConv(), REV_INTERACTS: LightGCNConv()})
    out = layer(x_dict, {kind: data[kind].edge_index for kind in (INTERACTS, REV_INTERACTS)})
    matrix = dense_symmetric(dense_matrix(data[INTERACTS].edge_index, None, (30, 40))).float()
    torch.testing.assert_close(out[ITEM], matrix @ x_dict[USER])
    torch.testing.assert_close(out[USER], matrix.t() @ x_dict[ITEM])


@pytest.mark.parametrize('kind', KINDS)
def test_input_is_not_written_to(kind: str, x: Tensor) -> None:
    edge_index, weight = draw_edges(*SIZE, num_edges=17)
    before = edge_index.clone(), weight.clone(), x.clone()
    adjacency, edge_weight = make_kind(kind, edge_index, weight, SIZE)
    conv = LightGCNConv()
    first = conv((x, None), adjacency, edge_weight, size=SIZE)
    assert conv((x, None), adjacency, edge_weight, size=SIZE).equal(first)
    assert all(old.equal(new) for old, new in zip(before, (edge_index, weight, x), strict=True))


def test_repr() -> None:
    assert repr(LightGCNConv()).startswith('LightGCNConv(')
