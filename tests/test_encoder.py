"""Tests of dgmrec_pyg.nn.DisentangledEncoder."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dgmrec_pyg.nn import DisentangledEncoder

SIZES = {'text': 7, 'audio': 3, 'image': 5}


@pytest.fixture
def encoder() -> DisentangledEncoder:
    return DisentangledEncoder(SIZES, hidden_channels=4)


@pytest.fixture
def features() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(6, size, generator=generator) for name, size in SIZES.items()}


def test_parts_equal_definition(encoder: DisentangledEncoder, features: dict[str, Tensor]) -> None:
    general, specific = encoder(features)
    assert general.keys() == specific.keys() == SIZES.keys()
    for m, x in features.items():
        torch.testing.assert_close(general[m], torch.sigmoid(encoder.shared(torch.tanh(encoder.general[m](x)))))
        torch.testing.assert_close(specific[m], torch.sigmoid(encoder.specific[m](x)))


@pytest.mark.parametrize('num_items', [1, 6])
def test_passes_gradcheck(num_items: int) -> None:
    encoder, generator = DisentangledEncoder(SIZES, hidden_channels=4).double(), torch.Generator().manual_seed(0)
    x = torch.randn(num_items, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    weight, bias = encoder.shared.weight, encoder.shared.bias
    assert torch.autograd.gradcheck(lambda x, *_: encoder.encode({'text': x})[0]['text'], (x, weight, bias))


def test_half_precision_by_autocast(encoder: DisentangledEncoder, features: dict[str, Tensor]) -> None:
    with torch.autocast('cpu', torch.bfloat16):
        general, specific = encoder(features)
    sum((part[m].float().sum() for part in (general, specific) for m in SIZES), torch.zeros(())).backward()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())


def test_order_of_modalities_does_not_matter(encoder: DisentangledEncoder, features: dict[str, Tensor]) -> None:
    other = DisentangledEncoder(dict(reversed(SIZES.items())), hidden_channels=4)
    assert list(other.state_dict()) == list(encoder.state_dict())
    other.load_state_dict(encoder.state_dict())
    expected, found = encoder(features), other(dict(reversed(features.items())))
    for m in SIZES:
        assert found[0][m].equal(expected[0][m])
        assert found[1][m].equal(expected[1][m])


@pytest.mark.parametrize('subset', [['image'], ['text', 'audio']])
def test_some_modalities_give_the_same_as_all(encoder: DisentangledEncoder, features: dict[str, Tensor],
                                              subset: list[str]) -> None:
    expected = encoder(features)
    general, specific = encoder({m: features[m] for m in subset})
    assert list(general) == list(specific) == subset
    for m in subset:
        assert general[m].equal(expected[0][m])
        assert specific[m].equal(expected[1][m])


def test_one_modality_does_not_reach_into_another(encoder: DisentangledEncoder, features: dict[str, Tensor]) -> None:
    expected = encoder(features)
    found = encoder(features | {'image': features['image'] + 1})
    for part in (0, 1):
        assert not found[part]['image'].equal(expected[part]['image'])
        assert found[part]['text'].equal(expected[part]['text'])


def test_gradients_reach_features_and_all_parameters(encoder: DisentangledEncoder, features: dict[str, Tensor]) -> None:
    features = {m: x.requires_grad_() for m, x in features.items()}
    general, specific = encoder(features)
    sum((general[m] * specific[m]).sum() for m in SIZES).backward()
    for tensor in [*encoder.parameters(), *features.values()]:
        assert tensor.grad.abs().sum() > 0


@pytest.mark.parametrize('rows', [0, 1])
def test_few_rows(encoder: DisentangledEncoder, rows: int) -> None:
    general, specific = encoder({'image': torch.zeros(rows, 5)})
    assert general['image'].shape == specific['image'].shape == (rows, 4)


@pytest.mark.parametrize('name', ['items', 'keys', 'type', 'forward', 'a.b'])
def test_modalities_may_have_any_name(name: str) -> None:
    encoder = DisentangledEncoder({name: 3, 'text': 2}, hidden_channels=4)
    general, _ = encoder({name: torch.zeros(5, 3)})
    assert general[name].shape == (5, 4)
    DisentangledEncoder({'text': 2, name: 3}, hidden_channels=4).load_state_dict(encoder.state_dict())


def test_input_is_not_written_to(encoder: DisentangledEncoder, features: dict[str, Tensor]) -> None:
    before = {m: x.clone() for m, x in features.items()}
    encoder(features)
    assert all(features[m].equal(before[m]) for m in SIZES)
    assert list(features) == list(before)


def test_repr(encoder: DisentangledEncoder) -> None:
    assert repr(encoder) == "DisentangledEncoder({'audio': 3, 'image': 5, 'text': 7}, 4)"
