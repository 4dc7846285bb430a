"""Layers used wrongly in somebody's own pipeline: one line says what does not fit, and nothing wrong is computed."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dgmrec_pyg.errors import UserError
from dgmrec_pyg.nn import (
    CLUB,
    DisentangledEncoder,
    FeatureProjection,
    ItemGraphs,
    LightGCNConv,
    ModalityGenerator,
    ModalityGraphConv,
    ModalityPreference,
    RankingLoss,
    build_knn_graph,
)
from dgmrec_pyg.nn.adjacency import make_adjacency

SIZES = {'image': 12, 'text': 8}
EDGES = torch.tensor([[0, 1, 2, 3, 4, 0], [5, 0, 1, 2, 3, 4]])  # 5 users, 6 items
NO_NUMBER = float('nan')


def rows(number: int, channels: int = 4) -> Tensor:
    return torch.rand(number, channels)


def parts(number: int = 6, channels: int = 4) -> dict[str, Tensor]:
    return {modality: rows(number, channels) for modality in SIZES}


def none_missing(*size: int) -> Tensor:
    return torch.zeros(*size, dtype=torch.bool)


def with_edge(source: int, target: int) -> Tensor:
    return torch.cat([EDGES, torch.tensor([[source], [target]])], dim=1)


encoder, generator = DisentangledEncoder(SIZES, 4), ModalityGenerator(SIZES, 4)
preference, club = ModalityPreference(SIZES, 4), CLUB(4, 3)
conv, plain_conv, item_conv = LightGCNConv(), LightGCNConv(normalize=False), ModalityGraphConv(2)
projection, graphs = FeatureProjection(rows(6, 12), 3), ItemGraphs({m: none_missing(6) for m in SIZES}, 2)

WRONG: dict[str, tuple[Callable[[], object], str]] = {
    'encoder: unknown modality': (lambda: encoder({'txt': rows(6, 8)}),
                                  "unknown modality 'txt'; did you mean 'text'? (known: image, text)"),
    'encoder: columns': (lambda: encoder({'text': rows(6, 9)}), "features 'text' must have shape [N, 8] (got [6, 9])"),
    'encoder: no table': (lambda: encoder({'text': torch.rand(8)}), 'must have shape [N, 8] (got [8])'),
    'encoder: no dict': (lambda: encoder(rows(6, 8)), 'must be a dict by modality (image, text), not a tensor'),
    'generator: no general part': (lambda: generator({'image': rows(6)}, parts()),
                                   "the general part of 'text' is not there (given: image)"),
    'generator: no preference': (lambda: generator(parts(), {}), "preference of 'image' is not there (given: none)"),
    'generator: general columns': (lambda: generator(parts(6, 3), parts()), 'must have shape [N, 4] (got [6, 3])'),
    'generator: preference columns': (lambda: generator(parts(), parts(6, 3)), 'must have shape [N, 4] (got [6, 3])'),
    'generator: rows': (lambda: generator(parts(7), parts(6)), 'specific parts must have shape [7, 4] (got [6, 4])'),
    'translate: unknown modality': (lambda: generator.translate('txt', parts()), "unknown modality 'txt'"),
    'translate: rows': (lambda: ModalityGenerator({**SIZES, 'audio': 3}, 4).translate(
        'audio', {'image': rows(6), 'text': rows(7)}), 'each general part must have shape [6, C] (got [7, 4])'),
    'generate_specific: unknown modality': (lambda: generator.generate_specific('txt', rows(6)), "modality 'txt'"),
    'generate_specific: columns': (lambda: generator.generate_specific('text', rows(6, 5)), '[N, 4] (got [6, 5])'),
    'decode: unknown modality': (lambda: generator.decode('txt', rows(6), rows(6)), "unknown modality 'txt'"),
    'decode: columns': (lambda: generator.decode('text', rows(6), rows(6, 5)), '[6, 4] (got [6, 5])'),
    'reconstruction_loss: unknown modality': (lambda: generator.reconstruction_loss('txt', rows(6, 8), rows(6, 8)),
                                              "unknown modality 'txt'"),
    'reconstruction_loss: parts': (lambda: generator.reconstruction_loss('text', rows(6, 4), rows(6, 8)),
                                   'parts must have shape [N, 8] (got [6, 4])'),
    'reconstruction_loss: target rows': (lambda: generator.reconstruction_loss('text', rows(6, 8), rows(7, 8)),
                                         '[6, 8] (got [7, 8])'),
    'reconstruction_loss: target columns': (lambda: generator.reconstruction_loss('text', rows(6, 8), rows(6, 9)),
                                            '[6, 8] (got [6, 9])'),
    'preference: one name': (lambda: ModalityPreference('text'), "must be a list of names, such as ['text']"),
    'preference: no names': (lambda: ModalityPreference([]), 'there must be at least one modality'),
    'preference: columns': (lambda: preference(rows(5, 3), EDGES, num_items=6),
                            'user_embedding must have shape [N, 4] (got [5, 3])'),
    'preference: few users': (lambda: preference(rows(3), EDGES, num_items=6), 'edge_index leads to source 3, but'),
    'preference: few items': (lambda: preference(rows(5), EDGES, num_items=3), 'edge_index leads to target 5, but'),
    'preference: weights': (lambda: preference(rows(5), EDGES, torch.ones(2), num_items=6),
                            'there are 6 edges, but 2 edge weights'),
    'conv: source': (lambda: conv((rows(5), rows(6)), with_edge(9, 0)),
                     'edge_index leads to source 9, but sources go from 0 to 4 (1 such edges); its rows are (source, '),
    'conv: target': (lambda: conv((rows(5), rows(6)), with_edge(0, 9)), 'target 9, but targets go from 0 to 5'),
    'conv: negative': (lambda: conv((rows(5), rows(6)), with_edge(-1, 0)), 'source -1, but sources go from 0 to 4'),
    'conv: the other way': (lambda: conv((rows(5), rows(6)), EDGES.flip(0)), 'source 5, but sources go from 0 to 4'),
    'conv: plain, source': (lambda: plain_conv((rows(5), rows(6)), with_edge(9, 0)), 'leads to source 9'),
    'conv: plain, target': (lambda: plain_conv((rows(5), rows(6)), with_edge(0, 9)), 'leads to target 9'),
    'conv: EdgeIndex': (lambda: conv((rows(4), rows(6)), make_adjacency(EDGES, None, (5, 6)).edge_index),
                        'leads to source 4'),
    'conv: sparse': (lambda: conv((rows(4), rows(6)), torch.ones(6, 5).to_sparse_csr()),
                     'adjacency of 4 sources and 6 targets must have shape [6, 4] (got [6, 5])'),
    'conv: weights': (lambda: conv((rows(5), rows(6)), EDGES, torch.ones(2)), '6 edges, but 2 edge weights'),
    'conv: pairs as rows': (lambda: conv((rows(5), rows(6)), EDGES.t()), 'of shape [2, E] (got torch.int64 [6, 2])'),
    'conv: no ids': (lambda: conv((rows(5), rows(6)), EDGES.float()), 'edge_index must be int64 of shape [2, E] (got'),
    'conv: no table': (lambda: conv((torch.rand(5), torch.rand(6)), EDGES), 'sources must have shape [N, C] (got [5])'),
    'conv: no targets': (lambda: conv((rows(5), None), EDGES), 'the number of targets is not known'),
    'item conv: few items': (lambda: item_conv(rows(4), EDGES), 'edge_index leads to source 4, but'),
    'item conv: the wrong way round': (lambda: item_conv(EDGES, rows(6)), 'of shape [2, E] (got torch.float32 [6, 4])'),
    'CLUB: x': (lambda: club(rows(6, 5), rows(6, 3)), 'x must have shape [N, 4] (got [6, 5])'),
    'CLUB: one column': (lambda: club(rows(6), rows(6, 1)), 'y must have shape [6, 3] (got [6, 1])'),
    'CLUB: rows': (lambda: club(rows(6), rows(1, 3)), 'y must have shape [6, 3] (got [1, 3])'),
    'CLUB: learning': (lambda: club.learning_loss(rows(6), rows(6, 1)), 'y must have shape [6, 3] (got [6, 1])'),
    'projection: columns': (lambda: projection(rows(6, 11)), 'features must have shape [N, 12] (got [6, 11])'),
    'projection: back': (lambda: projection.inverse(rows(6, 4)), 'must have shape [N, 3] (got [6, 4])'),
    'projection: not finite': (lambda: FeatureProjection(rows(6, 12) * NO_NUMBER, 3), 'features must be finite'),
    'projection: no table': (lambda: FeatureProjection(torch.rand(12), 3), 'must have shape [N, C] (got [12])'),
    'ranking loss: kind': (lambda: RankingLoss('sofmax', EDGES, 5), "unknown ranking loss 'sofmax'; did you mean 'so"),
    'knn: no table': (lambda: build_knn_graph(torch.rand(6), 2), 'features must have shape [N, C] (got [6])'),
    'knn: mask': (lambda: build_knn_graph(rows(6), 2, none_missing(5)), 'missing must be bool of shape [6], a value p'),
    'knn: mask of numbers': (lambda: build_knn_graph(rows(6), 2, torch.zeros(6)), '(got torch.float32 [6])'),
    'item graphs: unknown modality': (lambda: graphs.build({'txt': rows(6)}), "unknown modality 'txt'; did you mean"),
    'item graphs: rows': (lambda: graphs.build({'text': rows(5)}), 'bool of shape [5]'),
    'item graphs: not built': (lambda: graphs('text', rows(6)), "no graph of 'text' (built: none); call build()"),
    'item graphs: role': (lambda: graphs('text', rows(6), 'old'), "unknown role 'old' (known: initial, current)"),
}


@pytest.mark.parametrize('name', WRONG)
def test_what_does_not_fit_is_one_line(name: str) -> None:
    call, message = WRONG[name]
    with pytest.raises(UserError, match=re.escape(message)):
        call()


WHEN_COMPILED: dict[str, tuple[torch.nn.Module, tuple[object, ...]]] = {
    'encoder': (encoder, ({'text': rows(6, 9)},)),
    'generator': (generator, (parts(6, 3), parts())),
    'preference': (preference, (rows(5, 3), EDGES, None, 6)),
    'conv': (conv, ((torch.rand(5), torch.rand(6)), EDGES)),  # Edges are looked at in eager mode alone.
    'CLUB': (club, (rows(6), rows(6, 1))),
    'projection': (projection, (rows(6, 11),)),
}


@pytest.mark.parametrize('name', WHEN_COMPILED)
def test_a_compiled_layer_says_so_too(name: str) -> None:
    layer, arguments = WHEN_COMPILED[name]
    torch._dynamo.reset()
    with pytest.raises(UserError, match='must have shape'):
        torch.compile(layer, backend='eager')(*arguments)


def test_modalities_of_different_items_do_not_go_together() -> None:
    features = {'image': torch.ones(4, 6), 'text': torch.ones(5, 3)}
    with pytest.raises(UserError, match=r'of the same items, one row each \(got rows: image 4, text 5\)'):
        DisentangledEncoder({'image': 6, 'text': 3}, 8)(features)
