"""torch.compile: layers compile as one graph, models in few, and both compute what they did before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from conftest import make_data
from torch import Tensor
from torch.fx import GraphModule

from dgmrec_pyg.nn import (
    CLUB,
    DGMRec,
    DisentangledEncoder,
    FeatureProjection,
    LightGCN,
    LightGCNConv,
    ModalityGenerator,
    ModalityGraphConv,
    ModalityPreference,
    RankingLoss,
    Recommender,
    bpr_loss,
    build_knn_graph,
    info_nce_loss,
    perturb,
)
from dgmrec_pyg.nn.adjacency import make_adjacency
from dgmrec_pyg.schema import training_edges

SIZES = {'image': 12, 'text': 8}
USERS, ITEMS = 30, 40
EDGES = training_edges(make_data())


def rows(number: int, size: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(number, size, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def by_modality(size: int | None = None) -> dict[str, Tensor]:
    return {m: rows(ITEMS, size or own) for m, own in SIZES.items()}


def ranked_batch() -> tuple[Tensor, ...]:
    """Users, items, and where a batch stands in them."""
    user, item = EDGES[:, :64]
    return rows(USERS), rows(ITEMS, seed=1), torch.arange(USERS), user, item, item.flip(0), torch.arange(0, ITEMS, 3)


# What is compiled, with its arguments.
WHOLE: dict[str, Callable[[], tuple[Any, ...]]] = {
    'LightGCNConv': lambda: (LightGCNConv(), (rows(USERS), rows(ITEMS)), EDGES),
    'ModalityGraphConv': lambda: (ModalityGraphConv(2), rows(ITEMS), *build_knn_graph(rows(ITEMS).detach(), 5)),
    'DisentangledEncoder': lambda: (DisentangledEncoder(SIZES, 8), by_modality()),
    'ModalityPreference': lambda: (ModalityPreference(SIZES, 8), rows(USERS), EDGES, None, ITEMS),
    'ModalityGenerator': lambda: (ModalityGenerator(SIZES, 8), by_modality(8), by_modality(8)),
    'FeatureProjection': lambda: (FeatureProjection(rows(ITEMS, 12).detach(), 4), rows(ITEMS, 12)),
    'CLUB': lambda: (CLUB(8, 8), rows(ITEMS), rows(ITEMS, seed=1)),
    'perturb': lambda: (perturb, rows(ITEMS)),
    'bpr_loss': lambda: (bpr_loss, rows(ITEMS), rows(ITEMS, seed=1)),
    'info_nce_loss': lambda: (info_nce_loss, rows(ITEMS), rows(ITEMS, seed=1)),
    'RankingLoss, softmax': lambda: (RankingLoss('softmax', EDGES, USERS, 0.2, 1.0, 0.5), *ranked_batch()),
    'RankingLoss, BPR': lambda: (RankingLoss('bpr', EDGES, USERS, user_balance=0.5), *ranked_batch()),
}
# How many graphs a model's loss falls into: sparse products, and sizes that depend on the batch, stay out of them.
IN_PIECES: dict[type[Recommender], int] = {LightGCN: 4, DGMRec: 10}


def leaves(values: Any) -> list[Tensor]:
    """All tensors in nested tuples and dicts."""
    if isinstance(values, Tensor):
        return [values]
    nested = values.values() if isinstance(values, dict) else values if isinstance(values, Sequence) else ()
    return [tensor for value in nested for tensor in leaves(value)]


def outcome(call: Callable[..., Any], arguments: Sequence[Any], parameters: list[Tensor]) -> list[Tensor]:
    """What a call returns, and the gradients of its sum."""
    torch.manual_seed(0)  # noqa: TID251 (what is drawn without a generator)
    results = leaves(call(*arguments))
    grads = torch.autograd.grad(torch.stack([x.square().sum() for x in results]).sum(), parameters, allow_unused=True)
    return [*results, *(grad for grad in grads if grad is not None)]


def assert_compiles(call: Callable[..., Any], arguments: Sequence[Any], parameters: list[Tensor], most: int) -> None:
    graphs = []

    def backend(graph: GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    expected = outcome(call, arguments, parameters)
    torch.testing.assert_close(outcome(torch.compile(call, backend=backend), arguments, parameters), expected)
    assert 1 <= len(graphs) <= most


@pytest.mark.parametrize('name', WHOLE)
def test_a_layer_is_one_graph(name: str) -> None:
    call, *arguments = WHOLE[name]()
    inputs = [x for x in leaves(arguments) if x.requires_grad]
    own = list(call.parameters()) if isinstance(call, torch.nn.Module) else []
    assert_compiles(call, arguments, inputs + own, 1)


def test_an_edge_index_is_left_out_of_the_graph() -> None:
    adjacency = make_adjacency(EDGES, None, (USERS, ITEMS))
    conv, x = LightGCNConv(normalize=False), rows(USERS)
    assert_compiles(lambda x: conv((2 * x, None), *adjacency) + 1, [x], [x], 4)


@pytest.mark.parametrize('kind', IN_PIECES)
def test_a_models_loss(kind: type[Recommender]) -> None:
    data = make_data(modalities=SIZES)
    model = kind.from_data(data, generator=torch.Generator().manual_seed(0))
    user, item = training_edges(data)[:, :64]
    negative = torch.arange(64) % ITEMS
    assert_compiles(model.loss, [user, item, negative], model.trainable_parameters(), IN_PIECES[kind])
