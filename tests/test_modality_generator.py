"""Tests of dgmrec_pyg.nn.ModalityGenerator and its noise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dgmrec_pyg.nn import ModalityGenerator, perturb

SIZES = {'text': 7, 'audio': 3, 'image': 5}
HIDDEN = 4


def parts(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(6, HIDDEN, generator=generator) for name in sorted(SIZES)}


@pytest.fixture
def net() -> ModalityGenerator:
    return ModalityGenerator(SIZES, HIDDEN, noise_scale=0.1)


def naive_features(net: ModalityGenerator, general: dict[str, Tensor], preference: dict[str, Tensor],
                   modality: str) -> Tensor:
    def two_layers(layers: torch.nn.Module, x: Tensor) -> Tensor:
        return torch.tanh(x @ layers[0].weight.t() + layers[0].bias) @ layers[2].weight.t() + layers[2].bias

    others = torch.cat([general[other] for other in sorted(SIZES) if other != modality], dim=1)
    made = torch.cat([two_layers(net.translator[modality], others),
                      two_layers(net.specific[modality], preference[modality])], dim=1)
    return made @ net.decoder[modality].weight.t() + net.decoder[modality].bias


def test_features_equal_definition(net: ModalityGenerator) -> None:
    general, preference = parts(0), parts(1)
    found = net.eval()(general, preference)
    assert {m: x.size(1) for m, x in found.items()} == SIZES
    for m, x in found.items():
        torch.testing.assert_close(x, naive_features(net, general, preference, m))


def test_order_of_modalities_does_not_matter(net: ModalityGenerator) -> None:
    other = ModalityGenerator(dict(reversed(SIZES.items())), HIDDEN)
    other.load_state_dict(net.state_dict())
    general, preference = parts(0), parts(1)
    expected = net.eval()(general, preference)
    found = other.eval()(dict(reversed(general.items())), dict(reversed(preference.items())))
    assert all(found[m].equal(expected[m]) for m in SIZES)


def test_a_modality_is_made_without_itself(net: ModalityGenerator) -> None:
    general = parts(0)
    expected = net.translate('image', general)
    assert net.translate('image', general | {'image': general['image'] + 1}).equal(expected)
    assert net.translate('image', {m: x for m, x in general.items() if m != 'image'}).equal(expected)
    assert not net.translate('image', general | {'text': general['text'] + 1}).equal(expected)


def test_noise_is_added_in_training_only_and_comes_from_the_generator(net: ModalityGenerator) -> None:
    general, preference = parts(0), parts(1)

    def make(seed: int) -> Tensor:
        return net(general, preference, torch.Generator().manual_seed(seed))['image']

    assert make(1).equal(make(1))
    assert not make(1).equal(make(2))
    net.eval()
    assert make(1).equal(make(2))


def test_noise_of_a_training_pass_is_on_the_input_of_the_decoder_alone(net: ModalityGenerator) -> None:
    general, preference = parts(0), parts(1)
    found = net(general, preference, torch.Generator().manual_seed(1))['audio']  # the first, so its noise is too
    made = net.translate('audio', general), net.generate_specific('audio', preference['audio'])
    assert found.equal(net.decode('audio', *made, 0.1, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize('names', [[], ['image']])
def test_fewer_than_two_modalities_are_an_error(names: list[str]) -> None:
    with pytest.raises(ValueError, match='two or more modalities'):
        ModalityGenerator(dict.fromkeys(names, 3))


@pytest.mark.parametrize('name', ['items', 'keys', 'type', 'a.b'])
def test_modalities_may_have_any_name(name: str) -> None:
    net = ModalityGenerator({name: 3, 'text': 2}, HIDDEN)
    rows = {m: torch.zeros(5, HIDDEN) for m in (name, 'text')}
    assert net(rows, rows)[name].shape == (5, 3)


def test_repr(net: ModalityGenerator) -> None:
    assert repr(net) == "ModalityGenerator({'audio': 3, 'image': 5, 'text': 7}, 4)"


@pytest.mark.parametrize('scale', [0.1, 2.0])
def test_perturb_adds_noise_of_length_scale_in_the_orthant_of_the_row(scale: float) -> None:
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(2))
    before = x.clone()
    found = perturb(x, scale, torch.Generator().manual_seed(3))
    torch.testing.assert_close((found - x).norm(dim=1), torch.full((50,), scale))
    assert (found.sign() == x.sign()).all()
    assert (found.abs() > x.abs()).all()
    assert x.equal(before)


def test_perturb_is_uniform_before_it_is_brought_to_its_length() -> None:
    """The ratio of two uniform numbers is below r with probability r / 2 for r <= 1; numbers of all columns alike."""
    noise = perturb(torch.full((40_000, 6), 1e-30), generator=torch.Generator().manual_seed(0))
    for first, second in ((0, 1), (1, 2), (2, 3), (3, 4), (0, 4), (5, 2)):
        ratio = noise[:, first] / noise[:, second]
        for bound in (0.1, 0.5, 1.0):
            assert (ratio < bound).double().mean().item() == pytest.approx(bound / 2, abs=0.01)
    assert noise.unique().numel() > 0.9 * noise.numel()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_perturb_in_other_precisions(dtype: torch.dtype) -> None:
    x = torch.full((200, 64), 1e-3, dtype=dtype)
    noise = (perturb(x, generator=torch.Generator().manual_seed(0)) - x).double()
    torch.testing.assert_close(noise.norm(dim=1), torch.full((200,), 0.1, dtype=torch.double), rtol=0.05, atol=0.0)


def test_perturb_comes_from_the_generator() -> None:
    x = torch.ones(4, 3)
    first, second, other = (perturb(x, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.equal(second)
    assert not first.equal(other)


def test_perturb_of_scale_zero_is_the_identity() -> None:
    x = torch.ones(4, 3)
    assert perturb(x, 0.0) is x


def test_perturb_leaves_zeros_and_passes_gradients_on() -> None:
    x = torch.zeros(4, 3, requires_grad=True)
    found = perturb(x)
    assert found.equal(torch.zeros(4, 3))
    found.sum().backward()
    assert x.grad.equal(torch.ones(4, 3))
